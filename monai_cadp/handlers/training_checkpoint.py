# SPDX-License-Identifier: Apache-2.0
"""The file from which an interrupted training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events

from monai_cadp.engines.flow_trainer import FlowTrainer
from monai_cadp.release.checkpoint import check_file, write_file

__all__ = ["TrainingCheckpoint"]


class TrainingCheckpoint:
    """Save the whole state of a training at the ends of epochs; a killed process leaves the file of the one before.

    The file is on the disk before it takes the place of the one before, and only its owner can read it.

    Args:
        path: of the file; its folder is made if need be.
        every: number of epochs between two savings; 1 for private training, whose lost epochs are drawn again and must
            not have been seen.
        resume: go on from the file if it is there.

    Raises:
        ValueError: if ``every`` is not positive, or the path is a folder's; when attached to private training with
            another ``every`` than 1, or with ``resume``, if the file is damaged or belongs to another network.

    Attributes:
        comes_first: private training attaches it before all handlers that an epoch's network may leave by.
    """

    comes_first = True

    def __init__(self, path: str | Path, resume: bool = False, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every is {every}; expected a positive number of epochs.")
        check_file(path)
        self.path, self.resume, self.every = Path(path), resume, every

    def attach(self, engine: FlowTrainer) -> None:
        """Attach to a trainer, and load its state if asked to.

        Raises:
            ValueError: see the class.
        """
        if self.every > 1 and engine.guarantee is not None:
            raise ValueError(
                f"every is {self.every}; private training is saved after every epoch, for what an epoch that is drawn "
                "again has shown before would be spent twice: leave it out."
            )
        if self.resume and self.path.exists():
            saved = self._load(engine)
            # Handlers that are attached after this one have their turn.
            engine.add_event_handler(Events.STARTED, _load_handlers, engine, saved)
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self)
            engine.add_event_handler(Events.COMPLETED, self._save_last)

    def __call__(self, engine: FlowTrainer) -> None:
        """Save."""
        parts = engine.training_state() | engine.handler_states
        write_file({name: part.state_dict() for name, part in parts.items()}, self.path)

    def _save_last(self, engine: FlowTrainer) -> None:
        # Of a training that may go on for longer; from within an epoch none goes on.
        if engine.state.epoch % self.every and engine.state.iteration % engine.state.epoch_length == 0:
            self(engine)

    def _load(self, engine: FlowTrainer) -> dict[str, Any]:
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            parts = {name: saved[name] for name in engine.training_state()}
        except Exception:
            raise ValueError(
                "The training checkpoint could not be read; remove it to start anew, or give an undamaged one."
            ) from None
        max_epochs = engine.state.max_epochs
        for name, part in engine.training_state().items():
            part.load_state_dict(parts[name])
        # A longer training may be asked for than before.
        engine.state.max_epochs = max_epochs
        return saved


def _load_handlers(engine: FlowTrainer, saved: dict[str, Any]) -> None:
    for name, handler in engine.handler_states.items():
        # A handler may be new to this training.
        if name in saved:
            handler.load_state_dict(saved[name])
