# SPDX-License-Identifier: Apache-2.0
"""What dp_accounting says of Gaussian noise: releases, and trainings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

__all__ = ["AGREEMENT", "composed_gaussian_epsilon", "gaussian_epsilon", "sums_epsilon"]

# How well two computations in floating-point numbers have to agree.
AGREEMENT = 1.001
# Below, the terms of the formula cancel, and what is left of an epsilon may be too small; no release states less.
LEAST_EPSILON = 1e-9


@lru_cache(maxsize=256)
def gaussian_epsilon(squared_noise: Fraction, delta: Fraction) -> float:
    """Return the epsilon of Gaussian noise, by the analytic formula of dp_accounting.

    Args:
        squared_noise: variance of the noise over the squared sensitivity.
        delta: between 0 and 1.

    Returns:
        The epsilon, 1e-9 or more.

    Example:
        >>> round(gaussian_epsilon(Fraction("3.730632") ** 2, Fraction("1e-5")), 5)
        1.0
    """
    from dp_accounting import get_epsilon_gaussian

    return max(float(get_epsilon_gaussian(math.sqrt(squared_noise), float(delta))), LEAST_EPSILON)


def composed_gaussian_epsilon(squared_noises: Sequence[Fraction], delta: Fraction) -> float:
    r"""Return the epsilon of several Gaussian mechanisms: together they are one, of :math:`1 / \sum 1 / \sigma_i^2`.

    Example:
        >>> four = composed_gaussian_epsilon([Fraction(4)] * 4, Fraction("1e-5"))
        >>> four == gaussian_epsilon(Fraction(1), Fraction("1e-5"))
        True
    """
    return gaussian_epsilon(1 / sum((1 / noise for noise in squared_noises), Fraction(0)), delta)


@lru_cache(maxsize=64)
def sums_epsilon(
    sums: tuple[tuple[float, float, int, float], ...], delta: float, *, add_or_remove_one: bool = False
) -> float:
    """Return the epsilon of a training's noisy sums, by the accountant of privacy loss distributions of dp_accounting.

    Args:
        sums: noise multiplier, sampling rate, number of steps, and largest distance of two contributions over the norm
            to which they are clipped.
        delta: of the training.
        add_or_remove_one: the relation under which one person more or less is in the data, in place of replacement.

    Example:
        >>> round(sums_epsilon(((2.0, 1.0, 1, 2.0),), 1e-5), 2)
        4.38
    """
    from dp_accounting import (
        ComposedDpEvent,
        GaussianDpEvent,
        NeighboringRelation,
        PoissonSampledDpEvent,
        SelfComposedDpEvent,
    )
    from dp_accounting.pld import PLDAccountant

    events = []
    for multiplier, rate, steps, distance in sums:
        # For a replacement the accountant's contributions are 2 apart, otherwise 1.
        event = GaussianDpEvent(multiplier if add_or_remove_one else 2 * multiplier / distance)
        events.append(SelfComposedDpEvent(PoissonSampledDpEvent(rate, event) if rate < 1 else event, steps))
    relation = NeighboringRelation.ADD_OR_REMOVE_ONE if add_or_remove_one else NeighboringRelation.REPLACE_ONE
    return float(PLDAccountant(relation).compose(ComposedDpEvent(events)).get_epsilon(delta))
