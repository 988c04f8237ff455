# SPDX-License-Identifier: Apache-2.0
"""From the end of a training to the file that releases are made with."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from monai_cadp.engines.flow_evaluator import FlowEvaluator
from monai_cadp.engines.flow_trainer import FlowTrainer
from monai_cadp.networks import ContentBasis, TrainedModel
from monai_cadp.networks.training_record import as_events, as_texts
from monai_cadp.release.checkpoint import check_file, save_model

__all__ = ["ExportPrivatizer"]

VALUES_AT_ONCE = 2**21


class ExportPrivatizer:
    """Keep the averaged network of the best validation, part by part, and write a checkpoint of it at the end.

    Before, the network is finished by its trainer, on the training images, and its content basis is fitted. It carries
    the record of what it has learnt from, and of what the kept parts have. Attached to another trainer the handler
    leaves the one before and begins anew.

    Args:
        path: of the checkpoint.
        evaluator: engine whose ``bits_per_dimension`` says which network is best; None keeps the last one.
        num_directions: of the content basis.
        num_samples: prior samples from which the basis is fitted.
        in_subspace: see ``ContentBasis.fit``.
        weight_power: see ``ContentBasis.fit``.
        class_names: of the training images, in the order of their labels, which the checkpoint keeps; None for none.
        schema: of the training data, which the checkpoint keeps; see :class:`~monai_cadp.networks.TrainedModel`.
        progress: show a progress bar.

    Raises:
        ValueError: if the path is a folder's.

    Attributes:
        validations: bits per dimension of every validation, the first one first.
    """

    def __init__(
        self,
        path: str | Path,
        evaluator: Engine | None = None,
        num_directions: int = 32,
        num_samples: int = 2048,
        in_subspace: bool = False,
        weight_power: float = 1.0,
        class_names: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        check_file(path)
        self.path, self.evaluator = Path(path), evaluator
        self.num_directions, self.num_samples = num_directions, num_samples
        self.in_subspace, self.weight_power = in_subspace, weight_power
        self.class_names = None if class_names is None else list(class_names)
        self.schema, self.progress = schema, progress
        self.trainer: FlowTrainer | None = None
        self._begin()

    def _begin(self) -> None:
        self.validations: list[float] = []
        self.validated_at = 0
        self.best_of_parts: dict[int, float] = {}
        self.best_state: dict[str, Tensor] | None = None
        # What the kept parts have learnt from: the network that they are written to may have another record.
        self.best_events: frozenset[str] = frozenset()

    def attach(self, engine: FlowTrainer) -> None:
        """Attach to a trainer.

        Raises:
            ValueError: if the network has another number of classes than there are names, or no content basis can be
                fitted as it is asked for.
        """
        network = engine.averaged_network
        ContentBasis.check_fit(
            network,
            self.num_directions,
            self.num_samples,
            in_subspace=self.in_subspace,
            weight_power=self.weight_power,
        )
        num_classes = network.condition_space.num_classes
        if num_classes is None:
            self.class_names = None
        if self.class_names is not None and len(self.class_names) != num_classes:
            raise ValueError(
                f"The images are of {len(self.class_names)} named classes, but the network has {num_classes}; say "
                f"num_classes {len(self.class_names)}."
            )
        if self.trainer is not None:
            self._detach(self.trainer)
        if self.trainer not in (None, engine):
            self._begin()
        self.trainer = engine
        engine.handler_states["export"] = self
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._keep_best, engine)
            engine.add_event_handler(Events.COMPLETED, self._validate_last, self.evaluator)
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.COMPLETED, self._export)

    def _detach(self, engine: FlowTrainer) -> None:
        engine.handler_states.pop("export", None)
        handlers: list[tuple[Engine | None, Callable[..., None]]] = [
            (self.evaluator, self._keep_best),
            (engine, self._validate_last),
            (engine, self._export),
        ]
        for source, handler in handlers:
            if source is not None and source.has_event_handler(handler, Events.COMPLETED):
                source.remove_event_handler(handler, Events.COMPLETED)

    def _validate_last(self, engine: FlowTrainer, evaluator: Engine) -> None:
        """Validate what a training has learnt that ended between two validations."""
        if engine.state.iteration > self.validated_at:
            evaluator.run()

    def _keep_best(self, evaluator: Engine, trainer: FlowTrainer) -> None:
        network, metrics = trainer.averaged_network, evaluator.state.metrics
        parts = range(network.num_parts)
        bits = [metrics["bits_per_dimension"] if len(parts) == 1 else metrics[f"bits_of_part_{p}"] for p in parts]
        self.validations.append(metrics["bits_per_dimension"])
        self.validated_at = trainer.state.iteration
        better = {p for p in parts if bits[p] < self.best_of_parts.get(p, math.inf)}
        self.best_of_parts |= {p: bits[p] for p in better}
        if better:
            state = {n: v.clone() for n, v in network.state_dict().items() if isinstance(v, Tensor)}
            # Parts share nothing, and a part that overfits is not kept for the sake of one that still learns.
            kept = self.best_state or {}
            self.best_state = {
                name: kept[name] if name in kept and network.part_of(name) not in better else value
                for name, value in state.items()
            }
            self.best_events |= as_texts(network.training_events)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs to know of earlier epochs."""
        return {
            "validations": self.validations,
            "validated_at": self.validated_at,
            "best_of_parts": self.best_of_parts,
            "best_state": self.best_state,
            "best_events": list(as_events(self.best_events)),
            "class_names": self.class_names,
            "schema": self.schema,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier ``state_dict``.

        Raises:
            ValueError: if the classes or the schema of that training were others, or in another order.
        """
        # Older versions kept no schema of images.
        known = (state.get("class_names", self.class_names), state.get("schema") or self.schema)
        if known != (self.class_names, self.schema):
            raise ValueError(
                "The interrupted training was of other classes or columns, or of images that were read otherwise; "
                "train on what it was begun with, or begin anew by another checkpoint or resume of false."
            )
        self.validations, self.validated_at = list(state["validations"]), state.get("validated_at", 0)
        if "best_events" in state:
            self.best_of_parts, self.best_state = dict(state["best_of_parts"]), state["best_state"]
            self.best_events = as_texts(state["best_events"])
        # Older versions did not know what the best had learnt from: the best of every part is looked for from here.

    def _export(self, engine: FlowTrainer) -> None:
        network = copy.deepcopy(engine.averaged_network)
        tensors = network.state_dict()
        with torch.no_grad(), network.receiving([*as_events(self.best_events), engine.training_event()]):
            for name, value in (self.best_state or {}).items():
                tensors[name].copy_(value)
        held_out = self.evaluator.batches() if isinstance(self.evaluator, FlowEvaluator) else None
        engine.finish(network, progress=self.progress, held_out=held_out)
        basis = ContentBasis.fit(
            network,
            self.num_directions,
            num_samples=self.num_samples,
            batch_size=min(128, max(1, VALUES_AT_ONCE // network.num_latents)),
            in_subspace=self.in_subspace,
            weight_power=self.weight_power,
            progress=self.progress,
        )
        save_model(TrainedModel(network, basis, condition_names=self.class_names, schema=self.schema), self.path)
