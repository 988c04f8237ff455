# SPDX-License-Identifier: Apache-2.0
"""Stop when the validation does not get better."""

from __future__ import annotations

from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping as IgniteEarlyStopping

from monai_cadp.engines.flow_trainer import FlowTrainer

__all__ = ["EarlyStopping"]


class EarlyStopping:
    """Stop a trainer when its evaluator's ``bits_per_dimension`` has not become smaller for a number of validations.

    Args:
        evaluator: validates the network.
        patience: number of validations.
    """

    def __init__(self, evaluator: Engine, patience: int = 10) -> None:
        self.evaluator, self.patience = evaluator, patience

    def attach(self, engine: FlowTrainer) -> None:
        """Attach to a trainer."""
        handler = IgniteEarlyStopping(self.patience, self._score, engine)
        engine.handler_states["early_stopping"] = handler
        self.evaluator.add_event_handler(Events.COMPLETED, handler)

    @staticmethod
    def _score(evaluator: Engine) -> float:
        return -evaluator.state.metrics["bits_per_dimension"]
