# SPDX-License-Identifier: Apache-2.0
"""The server of a federation: it averages weights, and sees nothing else of any site."""

from __future__ import annotations

import torch
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.workflows.fedavg import FedAvg

from monai_cadp.checkpoint import load_network


class NetworkAveraging(FedAvg):
    """Federated averaging that begins with a network of public images, and writes the weights of every round.

    Args:
        checkpoint: file of the public network.
        output: file of the averaged weights.
        num_clients: number of sites.
        num_rounds: of averaging.
    """

    def __init__(self, checkpoint: str, output: str, num_clients: int, num_rounds: int) -> None:
        super().__init__(num_clients=num_clients, num_rounds=num_rounds, persistor_id="")
        self.checkpoint, self.output = checkpoint, output

    def load_model(self) -> FLModel:
        """Return the weights of the public network."""
        state = load_network(self.checkpoint).state_dict()
        weights = {name: value.numpy() for name, value in state.items() if isinstance(value, torch.Tensor)}
        return FLModel(params_type=ParamsType.FULL, params=weights)

    def save_model(self, model: FLModel) -> None:
        """Write the averaged weights."""
        torch.save({name: torch.as_tensor(value) for name, value in model.params.items()}, self.output)
