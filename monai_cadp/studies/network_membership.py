# SPDX-License-Identifier: Apache-2.0
"""What a study's network tells of the images that it was trained on."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from monai_cadp.attacks import likelihood_ratio_scores, membership
from monai_cadp.engines import FlowTrainer
from monai_cadp.networks import InvertibleNetwork
from monai_cadp.studies.network_training import QUICK_EPOCHS, NetworkTraining
from monai_cadp.studies.variant import Split

__all__ = ["NetworkMembership"]

OVERFITTED = "a network overfitted on purpose"


class NetworkMembership:
    """Membership inference on the study's network, and on one that was overfitted on purpose.

    The study's network is attacked by its likelihoods. The members-only control tells one half of the members from the
    other: it must not find anything. The overfitted network shows that the attack works where there is something to be
    found; its training can be repeated, so that it is attacked by likelihood ratios as well, with shadow networks
    trained in the same way on random halves of its members and as many others.

    Args:
        num_images: members, and as many others, who are attacked.
        num_overfitted: images on which the other network is trained.
        epochs: of its training, and of a shadow's.
        num_shadow_pairs: pairs of shadow networks; each pair learns both halves of a partition. 2 or more, so that
            every image is known to two shadows and unknown to two.

    Raises:
        ValueError: if there are too few pairs.
    """

    def __init__(
        self, num_images: int = 2000, num_overfitted: int = 200, epochs: int = 20, num_shadow_pairs: int = 2
    ) -> None:
        if num_shadow_pairs < 2:
            raise ValueError(f"num_shadow_pairs is {num_shadow_pairs}; expected 2 or more.")
        self.num_images, self.num_overfitted, self.epochs = num_images, num_overfitted, epochs
        self.num_shadow_pairs = num_shadow_pairs

    def __call__(
        self,
        trained: InvertibleNetwork,
        training: NetworkTraining,
        train: Split,
        test: Split,
        quick: bool = False,
        people: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> list[dict[str, Any]]:
        """Return one row of figures for every network and attack, and for the control.

        Args:
            trained: the network.
            training: how it was trained.
            train: its training images.
            test: images that it has not seen.
            quick: whether a few epochs are enough.
            people: whose each training image and each test image is, as numbers, for intervals over people; None for
                images of as many people. Nobody is in both.
        """
        members, others = (_scores(trained, split, self.num_images) for split in (train, test))
        member_people, other_people = _numbered(people, (len(train.x), len(test.x)))
        owners = member_people[: len(members)], other_people[: len(others)]
        # Of the members' people one half, with all their images.
        known = owners[0].unique(return_inverse=True)[1]
        first = known < (int(known.max()) + 1) // 2
        count = min(self.num_overfitted, len(train.x), len(test.x))
        of_few = member_people[:count], other_people[:count]
        # The first half are members of the overfitted network.
        attacked = Split(*(torch.cat([one[:count], other[:count]]) for one, other in zip(train, test, strict=True)))
        likelihoods, ratios = self._overfitted(
            training, attacked, min(self.epochs, QUICK_EPOCHS) if quick else self.epochs
        )
        rows = [
            ("the study's network", "likelihood", (members, others), owners),
            (OVERFITTED, "likelihood", likelihoods.split(count), of_few),
            (OVERFITTED, "likelihood ratio, with shadow networks", ratios.split(count), of_few),
        ]
        if bool(first.any()):
            halves = (members[first], members[~first]), (owners[0][first], owners[0][~first])
            rows.insert(1, ("control: members from members", "likelihood", *halves))
        return [{"network": name, "attack": attack, **_figures(scores, of)} for name, attack, scores, of in rows]

    def _overfitted(self, training: NetworkTraining, people: Split, epochs: int) -> tuple[Tensor, Tensor]:
        """Return likelihoods and likelihood ratios of all people under a network of the first half of them."""
        count = len(people.x)
        generator = torch.Generator().manual_seed(0)
        known = [torch.arange(count) < count // 2]
        for _ in range(self.num_shadow_pairs):
            half = torch.randperm(count, generator=generator) < count // 2
            known += [half, ~half]
        bar = tqdm(known, desc="membership", unit="network")
        target, *shadows = (
            _scores(self._trained(training, Split(*(x[mask] for x in people)), epochs), people) for mask in bar
        )
        return target, likelihood_ratio_scores(target, torch.stack(shadows), torch.stack(known[1:]))

    def _trained(self, training: NetworkTraining, few: Split, epochs: int) -> InvertibleNetwork:
        torch.manual_seed(0)
        network = type(training.network)(**training.network.config)
        trainer = FlowTrainer(
            network,
            few.loader(min(32, len(few.x)), shuffle=True),
            max_epochs=epochs,
            learning_rate=training.learning_rate,
            weight_decay=0.0,
            noise=copy.deepcopy(training.noise),
            averaging=0.0,
            device=few.x.device,
        )
        trainer.run()
        return network


@torch.no_grad()
def _scores(network: InvertibleNetwork, split: Split, count: int | None = None) -> Tensor:
    parts = zip(split.x[:count].split(256), split.y[:count].split(256), strict=True)
    return torch.cat([network.log_prob(x, y) for x, y in parts]).cpu()


def _numbered(people: tuple[Tensor | None, Tensor | None], counts: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return whose each training image and each test image is, by numbers that come in one of the two only."""
    members, others = (
        torch.arange(count) if of is None else of.cpu() for of, count in zip(people, counts, strict=True)
    )
    return members, others + int(members.max()) + 1


def _figures(scores: tuple[Tensor, Tensor], people: tuple[Tensor, Tensor]) -> dict[str, Any]:
    result = membership(*scores, people=people, num_bootstraps=200)
    return {name: estimate.to_dict() for name, estimate in result._asdict().items()}
