# SPDX-License-Identifier: Apache-2.0
"""Private trainings that break their promise, each by a mistake that is easily made: audits must catch them.

Never train anything with one of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from monai_cadp.privacy.noisy_sum import SumLattice
from monai_cadp.studies.training_audit import BEYOND, CanaryMoments, CanaryTrainer

__all__ = ["BROKEN_MOMENTS", "BROKEN_TRAINERS"]


class _HalfTheNoise(CanaryTrainer):
    """Adds half of the noise that the accountant was told."""

    def _lattice(self) -> SumLattice:
        lattice = super()._lattice()
        noise = lattice.noise
        lattice.noise = lambda *args: noise(*args) // 2  # type: ignore[method-assign]
        return lattice


class _WithoutClipping(CanaryTrainer):
    """Adds contributions up as they are; the noise is that of the bound."""

    def _lattice(self) -> SumLattice:
        lattice = super()._lattice()
        lattice.clipped_sum = lambda rows: [  # type: ignore[method-assign]
            (part.double() / lattice.step).trunc().sum(0) for part in rows
        ]
        return lattice


class _ClippedByImage(CanaryTrainer):
    """Clips images, and not people, who have two of them."""

    def __init__(self, signs: Tensor, **options: float) -> None:
        super().__init__(signs, images=2, **options)  # type: ignore[arg-type]

    def _whose(self, person: Tensor) -> tuple[Tensor, Tensor]:
        return person, torch.arange(len(person))


class _FixedBatch(CanaryTrainer):
    """Takes the same people in every step, where the accountant was told of random batches."""

    def _sampler(self, rate: float, steps: int) -> Iterable[list[tuple[int, int]]]:
        people = self.people.tolist()
        return [[(place, person) for place, person in enumerate(people) if person < self.batch_size]] * steps


class _MomentsOfHalfTheNoise(CanaryMoments):
    """Adds half of the noise that the accountant was told."""

    def release(self, rows: Tensor, group: Tensor, num_groups: int, multiplier: float, weights: Tensor) -> Tensor:
        return super().release(rows, group, num_groups, multiplier / 2, weights)


class _MomentsWithoutClipping(CanaryMoments):
    """Takes vectors as long as they are; the noise is that of vectors of norm 1."""

    def release(self, rows: Tensor, group: Tensor, num_groups: int, multiplier: float, weights: Tensor) -> Tensor:
        # The same as without clipping, for vectors up to this length.
        return BEYOND**2 * super().release(rows / BEYOND, group, num_groups, multiplier / BEYOND**2, weights)


class _MomentsClippedByImage(CanaryMoments):
    """Counts every image in full, of people who have two of them."""

    def __init__(self, signs: Tensor) -> None:
        super().__init__(signs, images=2)

    def release(self, rows: Tensor, group: Tensor, num_groups: int, multiplier: float, weights: Tensor) -> Tensor:
        return super().release(rows, group, num_groups, multiplier, torch.ones_like(weights))


BROKEN_TRAINERS: dict[str, type[CanaryTrainer]] = {
    "noise halved": _HalfTheNoise,
    "clipping off": _WithoutClipping,
    "two images clipped one by one": _ClippedByImage,
    "a fixed batch": _FixedBatch,
}
BROKEN_MOMENTS: dict[str, type[CanaryMoments]] = {
    "noise halved": _MomentsOfHalfTheNoise,
    "clipping off": _MomentsWithoutClipping,
    "two images clipped one by one": _MomentsClippedByImage,
}
