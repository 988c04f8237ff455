# SPDX-License-Identifier: Apache-2.0
"""The server of a federation: it averages weights, and sees nothing else of any site."""

from __future__ import annotations

from typing import Any

import torch
from monai.fl.utils.exchange_object import ExchangeObject
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.workflows.fedavg import FedAvg

from monai_cadp.engines import take_weights
from monai_cadp.release.checkpoint import load_network, write_file

# Under which the record of what weights have learnt from travels, beside them.
TRAINING_EVENTS = "training_events"


class NetworkAveraging(FedAvg):
    """Federated averaging that begins with a network of public images, and writes the network of every round.

    Beside the weights travels the record of all that they have learnt from, which only grows.

    Args:
        checkpoint: file of the public network.
        output: file of the state of the averaged network.
        num_clients: number of sites.
        num_rounds: of averaging.
    """

    def __init__(self, checkpoint: str, output: str, num_clients: int, num_rounds: int) -> None:
        super().__init__(num_clients=num_clients, num_rounds=num_rounds, persistor_id="")
        self.checkpoint, self.output = checkpoint, output

    def load_model(self) -> FLModel:
        """Return the weights of the public network."""
        network = load_network(self.checkpoint)
        weights = {
            name: value.numpy() for name, value in network.state_dict().items() if isinstance(value, torch.Tensor)
        }
        meta = {TRAINING_EVENTS: list(network.training_events)}
        return FLModel(params_type=ParamsType.FULL, params=weights, meta=meta)

    def aggregate(self, results: list[FLModel], *arguments: Any, **options: Any) -> FLModel:
        """Average weights, and unite what they have learnt from; of a site that does not say it, nothing is known."""
        averaged = super().aggregate(results, *arguments, **options)
        records = [(result.meta or {}).get(TRAINING_EVENTS) for result in results]
        known = [event for record in records if record for event in record]
        averaged.meta = {**(averaged.meta or {}), TRAINING_EVENTS: known if all(records) else None}
        return averaged

    def save_model(self, model: FLModel) -> None:
        """Write the averaged network."""
        network = load_network(self.checkpoint)
        take_weights(network, ExchangeObject(weights=model.params, statistics=model.meta or {}))
        write_file(network.state_dict(), self.output)
