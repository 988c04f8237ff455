# SPDX-License-Identifier: Apache-2.0
"""A sum with differential privacy: a random batch, clipped contributions, discrete Gaussian noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from monai_cadp.privacy.checks import checked_positive
from monai_cadp.privacy.discrete_gaussian import continuous_deviation, wide_gaussian, wide_squared_scale
from monai_cadp.privacy.randomness import random_words

__all__ = ["SumLattice", "poisson_batch"]

# Levels of the noise; the finest lattice is taken on which squares of lengths are exact.
LEVELS = 3, 4, 5
LEAST_BOUND, LARGEST_BOUND = 2**10, math.isqrt(2**53 - 1)
# Copies in 64 bits that stay in the cache.
NUMBERS_AT_ONCE = 2**19


def poisson_batch(count: int, sampling_rate: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Return the places of a random batch, which everybody enters by an independent draw.

    The draws are 64-bit words of the operating system's cryptographic generator, compared to an integer: one is in
    with the probability ``sampling_rate``, rounded down to a multiple of :math:`2^{-64}`.

    Args:
        count: number of images, or of patients, public.
        sampling_rate: above 0, and at most 1; public.
        generator: draws from this instead. For tests only: its numbers can be foretold.

    Returns:
        Indices in rising order, int64; perhaps none.

    Example:
        >>> poisson_batch(3, 1.0)
        tensor([0, 1, 2])
    """
    # Words are signed; `<=` because the threshold of rate 1 plus one would not be a word.
    last = math.floor(Fraction(sampling_rate) * 2**64) - 2**63 - 1
    words = random_words(torch.empty(count, 0), 1, generator)
    return (words[:, 0] <= last).nonzero()[:, 0]


class SumLattice:
    r"""The lattice on which contributions are clipped and added up, and noise is added to their sum.

    One step is C / c, C being the norm to which contributions are clipped, and c an integer, the same in steps.

    Proof that a sum and its noise promise what continuous Gaussian noise of the deviation m C does. What somebody adds
    is a vector of integers, of length c at most (:meth:`clipped_sum`); so is nothing, 0. The noise is the discrete
    Gaussian of the scale s, whose square is an integer, but for :math:`2^{-127}`
    (:func:`~monai_cadp.privacy.discrete_gaussian.wide_gaussian`). It promises what continuous noise of the deviation
    :math:`\sqrt{s^2 - 16}` does (:func:`~monai_cadp.privacy.discrete_gaussian.continuous_deviation`), also in sums
    over random batches, which are mixtures of moved laws, and in many of them, one after the other. That is m c steps
    or more, because c is the largest integer with :math:`m \, c \le \sqrt{s^2 - 16}`, in exact fractions: the deviation
    is m times the length of a contribution or more. Sums of integers below :math:`2^{53}` are exact in numbers of 64
    bits, so nothing is rounded before the noise is added. What follows, beginning with multiplication by C / c, is
    post-processing.

    Args:
        largest_norm: C.
        noise_multiplier: m, what the accountant is told.
        division: a number by which integers are multiplied before they get noise, so that their bound is as many times
            smaller.
        largest_bound: of c; the squares of contributions must be exact.

    Raises:
        ValueError: if a number is out of its range.

    Example:
        >>> lattice = SumLattice(largest_norm=1.0, noise_multiplier=2.0)
        >>> total = lattice.clipped_sum([torch.tensor([[3.0, 4.0], [0.0, 0.0]])])
        >>> [round(value * lattice.step, 6) for value in total[0].tolist()]
        [0.6, 0.8]
        >>> lattice.noisy(total)[0].shape
        torch.Size([2])
    """

    def __init__(
        self,
        largest_norm: float,
        noise_multiplier: float,
        *,
        division: int = 1,
        largest_bound: int = LARGEST_BOUND,
    ) -> None:
        self.largest_norm = checked_positive("largest_norm", largest_norm)
        multiplier = division * Fraction(checked_positive("noise_multiplier", noise_multiplier))
        for levels in LEVELS:
            bound = math.floor(continuous_deviation(Fraction(wide_squared_scale(levels))) / multiplier)
            if bound <= largest_bound:
                self.levels, self.bound = levels, bound
        if not hasattr(self, "bound") or self.bound < LEAST_BOUND:
            raise ValueError(f"noise_multiplier is {noise_multiplier}; expected a number from 0.25 to 1e6.")

    @property
    def step(self) -> float:
        """C / c, in units of the contributions."""
        return self.largest_norm / self.bound

    def clipped_sum(self, rows: Sequence[Tensor]) -> list[Tensor]:
        r"""Return the sum, in steps, of what everybody contributes, clipped to a norm over all parts together.

        Proof that a contribution is never longer than c. Floating-point arithmetic only proposes integers. The sum of
        their squares is exact as long as it is below :math:`2^{53}`, and no rounding takes a larger one below
        :math:`c^2 < 2^{53}`. Whoever's sum is above, or is no number, counts as 0, as somebody does who is not there.
        So one contribution changes the sum by c at most when it comes or goes, and by 2 c when it is replaced.

        (The proposal is good: it aims at :math:`c (1 - 2^{-30})` and rounds toward zero.)

        Args:
            rows: contributions (n, \*shape) in one or more parts, float; n may be 0, and :math:`n c` at most
                :math:`2^{53}`.

        Returns:
            For every part the sum of its shape: integers, as float64.
        """
        flat = [part.detach().reshape(len(part), math.prod(part.shape[1:])) for part in rows]
        total = [part.new_zeros(part.shape[1], dtype=torch.float64) for part in flat]
        at_once = max(1, NUMBERS_AT_ONCE // max(1, sum(part.shape[1] for part in flat)))
        for start in range(0, len(flat[0]), at_once):
            some = [part[start : start + at_once].double() for part in flat]
            norms = torch.stack([part.norm(dim=1) for part in some]).norm(dim=0)
            factors = (self.bound * (1 - 2.0**-30) / norms).clamp(max=1 / self.step)[:, None]
            steps = [(part * factors).trunc_() for part in some]
            squares = torch.stack([part.square().sum(dim=1) for part in steps]).sum(dim=0)
            kept = squares <= self.bound**2
            if not kept.all():
                steps = [part[kept] for part in steps]
            for sum_, part in zip(total, steps, strict=True):
                sum_ += part.sum(dim=0)
        return [sum_.view(part.shape[1:]) for sum_, part in zip(total, rows, strict=True)]

    def noisy(self, total: Sequence[Tensor], generator: torch.Generator | None = None) -> list[Tensor]:
        r"""Return a sum with its noise, in units of the contributions.

        Args:
            total: integers of any shapes, in steps.
            generator: draws from this instead. For tests only: its numbers can be foretold.

        Returns:
            Numbers of the same shapes, float64.
        """
        return [self.step * (part.long() + self.noise(part, generator)).double() for part in total]

    def noise(self, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the noise of a sum of this shape, in steps, int64."""
        return wide_gaussian(tuple(like.shape), self.levels, generator).to(like.device)
