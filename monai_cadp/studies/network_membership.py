# SPDX-License-Identifier: Apache-2.0
"""What a study's network tells of the images that it was trained on."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from monai_cadp.attacks import membership
from monai_cadp.engines import FlowTrainer
from monai_cadp.networks import InvertibleNetwork
from monai_cadp.studies.network_training import NetworkTraining
from monai_cadp.studies.variant import Split

__all__ = ["NetworkMembership"]


class NetworkMembership:
    """Membership inference by likelihood on the study's network, and on one that was overfitted on purpose.

    The members-only control tells one half of the members from the other: it must not find anything. The overfitted
    network shows that the attack works where there is something to be found.

    Args:
        num_images: members, and as many others, who are attacked.
        num_overfitted: images on which the other network is trained.
        epochs: of its training.
    """

    def __init__(self, num_images: int = 2000, num_overfitted: int = 200, epochs: int = 60) -> None:
        self.num_images, self.num_overfitted, self.epochs = num_images, num_overfitted, epochs

    def __call__(
        self, trained: InvertibleNetwork, training: NetworkTraining, train: Split, test: Split
    ) -> list[dict[str, Any]]:
        """Return one row of figures for the network, for the control, and for the overfitted network.

        Args:
            trained: the network.
            training: how it was trained.
            train: its training images.
            test: images that it has not seen.
        """
        few = Split(train.x[: self.num_overfitted], train.y[: self.num_overfitted])
        overfitted = self._overfitted(training, few)
        members, others = (_scores(trained, split, self.num_images) for split in (train, test))
        half = len(members) // 2
        rows = {
            "the study's network": (members, others),
            "control: members from members": (members[:half], members[half:]),
            "a network overfitted on purpose": (
                _scores(overfitted, few, len(few.x)),
                _scores(overfitted, test, self.num_images),
            ),
        }
        return [{"network": name, **_figures(*scores)} for name, scores in rows.items()]

    def _overfitted(self, training: NetworkTraining, few: Split) -> InvertibleNetwork:
        torch.manual_seed(0)
        network = type(training.network)(**training.network.config)
        trainer = FlowTrainer(
            network,
            few.loader(min(32, len(few.x)), shuffle=True),
            max_epochs=self.epochs,
            learning_rate=training.learning_rate,
            weight_decay=0.0,
            noise=copy.deepcopy(training.noise),
            averaging=0.0,
        )
        trainer.run()
        return network


@torch.no_grad()
def _scores(network: InvertibleNetwork, split: Split, count: int) -> Tensor:
    parts = zip(split.x[:count].split(256), split.y[:count].split(256), strict=True)
    return torch.cat([network.log_prob(x, y) for x, y in parts])


def _figures(members: Tensor, others: Tensor) -> dict[str, Any]:
    result = membership(members, others, num_bootstraps=200)
    return {name: estimate.to_dict() for name, estimate in result._asdict().items()}
