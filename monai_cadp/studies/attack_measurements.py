# SPDX-License-Identifier: Apache-2.0
"""What attackers get from released images, as a study measures it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from monai_cadp.attacks import (
    attribute_inference,
    expected_releases,
    nearest_candidate,
    reidentification,
    train_verification,
)
from monai_cadp.studies.measurements import Figures, LearnedMeasurement, Releases, in_groups_of, public_groups

__all__ = ["AttributeInference", "NearestCandidate", "Reidentification"]

# Pixels a side, in two and three dimensions.
LARGEST_SIDE = {2: 32, 3: 16}


class Reidentification(LearnedMeasurement):
    """A verification network, retrained on releases, tells who is who among images of one class.

    It learns from pairs of a release and another image of the same person; where a data set has one image of everybody,
    the other image is the original itself, the most that an attacker may hold. Pairs are of people who are equal in all
    that is public.

    Args:
        num_learning: people from whom the attacker learns.
        num_attacked: people whom they attack.
        epochs: of their network.
    """

    def __init__(self, num_learning: int = 2000, num_attacked: int = 1000, epochs: int = 20) -> None:
        self.num_learning, self.num_attacked, self.epochs = num_learning, num_attacked, epochs

    def learn(self, releases: Releases, seed: int) -> Callable[[Releases], Figures]:
        """Train the attacker; figures are the AUC with its interval, beside the most that the guarantee allows."""
        if releases.train_released is None or releases.test_released is None:
            return lambda part: {}
        gallery, probes = releases.train_released[: self.num_learning], releases.train.x[: self.num_learning]
        model = train_verification(gallery, probes, epochs=self.epochs, seed=seed, progress=True)
        return lambda part: self._attacked(model, part, seed)

    def _attacked(self, model: nn.Module, releases: Releases, seed: int) -> Figures:
        assert releases.test_released is not None
        _, groups = public_groups(releases)
        attacked = in_groups_of(groups, 2)[: self.num_attacked]
        if len(attacked) == 0:
            return {}
        result = reidentification(
            model, releases.test_released[attacked], releases.test.x[attacked], labels=groups[attacked], seed=seed
        )
        return {
            "reidentification_auc": result.auc,
            "largest_possible_auc": largest_auc(releases.variant.epsilon),
            "reidentification_precision_at_1": result.precision_at_1,
            "reidentification_guess_at_1": result.guess_at_1,
        }


class NearestCandidate:
    """An attacker holds a few candidates of one class, one of whom is the original, and names the nearest to a release.

    They try it with the candidates themselves, and with what they have learnt that their releases look like; the better
    one counts. Large images they look at with at most 32 pixels a side, and volumes with 16.

    Args:
        num_candidates: that they hold; people of smaller classes are left in peace.
        num_learning: people from whom they learn what releases look like.
        num_attacked: releases that they attack.
    """

    def __init__(self, num_candidates: int = 10, num_learning: int = 2000, num_attacked: int = 1000) -> None:
        self.num_candidates, self.num_learning, self.num_attacked = num_candidates, num_learning, num_attacked

    def __call__(self, releases: Releases, seed: int) -> Figures:
        """Return how often they are right, beside the most that the guarantee allows."""
        if releases.train_released is None or releases.test_released is None:
            return {}
        train_groups, groups = public_groups(releases)
        learning = slice(self.num_learning)
        attacked = in_groups_of(groups, self.num_candidates)
        attacked = attacked[torch.isin(groups[attacked], train_groups[learning])][: self.num_attacked]
        attacked = attacked[in_groups_of(groups[attacked], self.num_candidates)]
        if len(attacked) == 0:
            return {}
        train, released_train, test, released_test = (
            _reduced(x)
            for x in (
                releases.train.x[learning],
                releases.train_released[learning],
                releases.test.x[attacked],
                releases.test_released[attacked],
            )
        )
        expected = expected_releases(
            train, released_train, test, shadow_labels=train_groups[learning], labels=groups[attacked]
        )
        results = [
            nearest_candidate(
                candidates,
                released_test,
                self.num_candidates,
                epsilon=releases.variant.epsilon,
                labels=groups[attacked],
                seed=seed,
            )
            for candidates in (test, expected.to(test.dtype))
        ]
        best = max(results, key=lambda result: result.success.value)
        return {
            "reconstruction_success": best.success,
            "reconstruction_guess": best.guessing,
            "reconstruction_limit": best.limit,
        }


class AttributeInference:
    r"""An attacker learns from releases of other people to tell an attribute of an original, beside its public class.

    Args:
        attribute: maps images (B, C, \*spatial) to numbers (B,) or (B, k), of which the one of ``index`` is taken.
        index: which one.
        num_learning: people from whom they learn.
        num_attacked: people whom they attack.
    """

    def __init__(
        self,
        attribute: Callable[[Tensor], Tensor],
        index: int = 0,
        num_learning: int = 2000,
        num_attacked: int = 1000,
    ) -> None:
        self.attribute, self.index = attribute, index
        self.num_learning, self.num_attacked = num_learning, num_attacked

    def __call__(self, releases: Releases, seed: int) -> Figures:
        """Return R2 with the release and with the class alone, and what the release adds."""
        if releases.train_released is None or releases.test_released is None:
            return {}
        learning, attacked = slice(self.num_learning), slice(self.num_attacked)
        train, test = (
            self.attribute(x).reshape(len(x), -1)[:, self.index]
            for x in (releases.train.x[learning], releases.test.x[attacked])
        )
        result = attribute_inference(
            releases.train_released[learning],
            train,
            releases.test_released[attacked],
            test,
            shadow_labels=releases.train.y[learning],
            labels=releases.test.y[attacked],
            seed=seed,
        )
        return {
            "attribute_r2": result.from_release,
            "attribute_r2_of_class": result.from_label,
            "attribute_gain": result.gain,
        }


def largest_auc(epsilon: float) -> float:
    """Return the largest area under the curve that pure epsilon allows."""
    return 1 / (1 + math.exp(-epsilon))


def _reduced(images: Tensor) -> Tensor:
    dimensions = images.ndim - 2
    if dimensions < 1:
        return images
    largest = LARGEST_SIDE[dimensions]
    sizes = [min(size, largest) for size in images.shape[2:]]
    return torch.nn.functional.interpolate(images, size=sizes, mode="area")
