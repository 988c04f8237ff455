# SPDX-License-Identifier: Apache-2.0
"""A site of a federated training: images stay where they are, weights travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.fl.client import ClientAlgo
from monai.fl.utils.constants import FlStatistics, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor

from monai_cadp.bundle_options import OPTION_CHECK
from monai_cadp.engines.flow_trainer import FlowTrainer
from monai_cadp.engines.private_flow_trainer import PrivateFlowTrainer
from monai_cadp.networks import InvertibleNetwork, new_event

__all__ = ["FederatedFlowClient", "average_weights", "take_weights"]

# Under which the record of the weights travels.
TRAINING_EVENTS = "training_events"


class FederatedFlowClient(ClientAlgo):
    """Train the network of a bundle on the images of one site, some epochs in every round.

    All sites begin with the weights of the server, which are those of a network whose linear parts were fitted to
    public images: parts that every site had fitted to its own could not be averaged. What leaves the site are the
    weights after a round, the number of steps, and the record of all that the weights have learnt from, under
    ``training_events`` among the statistics; no image, no loss, no statistic of images. The server sends its record the
    same way (:func:`average_weights`); weights that come without one count as those of unprotected data.

    With ``train_dp.yaml`` every round is a part of one private training: ``max_epochs`` is that of all rounds together,
    and the site's guarantee, :meth:`guarantee`, covers all weights that it ever sends, whatever the others send. Its
    state is on the disk before weights leave, so that a client that is started again goes on with the budget that is
    left.

    Args:
        config_file: the bundle's train.yaml, with overlays in their order.
        local_epochs: epochs of a round.
        checkpoint: file of the state after every epoch, from which a client that is started again goes on; private
            training needs one.
        overrides: values of the configuration that are replaced, such as ``dataset_dir`` of this site.

    Raises:
        ValueError: if ``local_epochs`` is not positive; when initialised twice, or for private training without a
            checkpoint or with moments of its own; while training, if the server's network is new, of another kind, or
            all epochs are over.
    """

    def __init__(
        self,
        config_file: str | Sequence[str],
        local_epochs: int = 1,
        checkpoint: str | Path | None = None,
        **overrides: Any,
    ) -> None:
        if local_epochs < 1:
            raise ValueError(f"local_epochs is {local_epochs}; expected 1 or more.")
        self.config_file = [config_file] if isinstance(config_file, str) else list(config_file)
        self.local_epochs, self.checkpoint, self.overrides = local_epochs, checkpoint, overrides
        self._trainer: FlowTrainer | None = None

    @property
    def trainer(self) -> FlowTrainer:
        """The engine that trains here."""
        if self._trainer is None:
            raise ValueError("The client was not initialised; call initialize() first.")
        return self._trainer

    def initialize(self, extra: Mapping[str, Any] | None = None) -> None:  # type: ignore[override]
        """Build the trainer, without handlers, which write and log.

        Args:
            extra: not used.
        """
        if self._trainer is not None:
            raise ValueError("The client was initialised twice; a second start would forget what was spent.")
        parser, config_files = ConfigParser(), self.config_file
        parser.read_config(config_files)
        parser.update(self.overrides)
        if OPTION_CHECK in parser:
            parser.get_parsed_content(OPTION_CHECK)
        trainer: FlowTrainer = parser.get_parsed_content("train#trainer")
        if isinstance(trainer, PrivateFlowTrainer) and (self.checkpoint is None or trainer.moments is not None):
            raise ValueError(
                "A private site came without a checkpoint, or with moments of its own; give it a file that keeps what "
                "is spent, and moments=None."
            )
        if self.checkpoint is not None:
            # Here, because handlers stand above engines.
            from monai_cadp.handlers import TrainingCheckpoint

            TrainingCheckpoint(self.checkpoint, resume=True).attach(trainer)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._pause)
        self._trainer = trainer

    def train(self, data: ExchangeObject, extra: Mapping[str, Any] | None = None) -> None:  # type: ignore[override]
        """Go on from the server's weights for one round.

        Args:
            data: with the weights of the server.
            extra: not used.
        """
        trainer = self.trainer
        if trainer.state.epoch >= trainer.state.max_epochs:
            raise ValueError(
                f"All {trainer.state.max_epochs} epochs are over; give max_epochs for all rounds together."
            )
        take_weights(trainer.network, data)
        if getattr(trainer.network, "is_new", False):
            raise ValueError(
                "The network of the server is new; give it one whose linear parts were fitted to public images, which "
                "all sites share."
            )
        trainer.run()

    def get_weights(self, extra: Mapping[str, Any] | None = None) -> ExchangeObject:  # type: ignore[override]
        """Return the weights after a round, and the number of its steps.

        Args:
            extra: not used.
        """
        weights = {name: tensor.cpu().numpy() for name, tensor in _tensors(self.trainer.network).items()}
        steps = self.local_epochs * int(self.trainer.state.epoch_length)
        statistics = {
            FlStatistics.NUM_EXECUTED_ITERATIONS.value: steps,
            TRAINING_EVENTS: list(self.trainer.network.training_events),
        }
        return ExchangeObject(weights=weights, weight_type=WeightType.WEIGHTS, statistics=statistics)

    def guarantee(self) -> dict[str, Any] | None:
        """Return what private training promises to this site's people in all rounds; None where it is not private."""
        return self.trainer.guarantee

    def _pause(self, engine: FlowTrainer) -> None:
        if engine.state.epoch % self.local_epochs == 0:
            engine.terminate()


def average_weights(received: Sequence[ExchangeObject]) -> ExchangeObject:
    """Return the weights of several sites on average, by the steps that they made, with the record of all of them.

    Args:
        received: as :meth:`FederatedFlowClient.get_weights` returns them.

    Returns:
        The average, for :meth:`FederatedFlowClient.train` and :func:`take_weights`.

    Raises:
        ValueError: if there is none, or the weights are those of different networks.
    """
    if not received or any(set(one.weights or {}) != set(received[0].weights or {}) for one in received):
        raise ValueError("The weights are missing or those of different networks; give those of one configuration.")
    steps = [float((one.statistics or {})[FlStatistics.NUM_EXECUTED_ITERATIONS.value]) for one in received]
    sent = [one.weights or {} for one in received]
    weights = {
        name: sum(share / sum(steps) * one[name] for share, one in zip(steps, sent, strict=True)) for name in sent[0]
    }
    records = [(one.statistics or {}).get(TRAINING_EVENTS) for one in received]
    known = [event for record in records if record for event in record]
    statistics = {TRAINING_EVENTS: known if all(records) else None}
    return ExchangeObject(weights=weights, weight_type=WeightType.WEIGHTS, statistics=statistics)


def take_weights(network: InvertibleNetwork, data: ExchangeObject) -> None:
    """Give a network the weights of a server, and add what they have learnt from to its record.

    Args:
        network: changed in place.
        data: weights, and among the statistics their record; without one they count as those of unprotected data.

    Raises:
        ValueError: if the weights are those of another network, or the record is none.
    """
    weights, tensors = data.weights or {}, _tensors(network)
    if set(weights) != set(tensors):
        raise ValueError("The weights of the server are those of another network; give all sites one configuration.")
    received = {name: torch.as_tensor(value) for name, value in weights.items()}
    if any(received[name].shape != tensor.shape for name, tensor in tensors.items()):
        raise ValueError("The weights of the server are those of another network; give all sites one configuration.")
    events = (data.statistics or {}).get(TRAINING_EVENTS)
    if not events:
        events = [new_event("weights of a server that keeps no record")]
    with torch.no_grad(), network.receiving(events):
        for name, tensor in tensors.items():
            tensor.copy_(received[name])


def _tensors(network: InvertibleNetwork) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
