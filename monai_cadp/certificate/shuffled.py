# SPDX-License-Identifier: Apache-2.0
"""The delta of a shuffled set, by a second numerical method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Choice", "set_delta"]

# More people than these hide no worse, and are counted as these.
MOST = 10**7
# Of the variance, what the grid may add; the logarithm of how rarely sums leave it; its largest number of points.
ADDED, REACH, LARGEST = 1e-4, 60, 2**22


class Choice(NamedTuple):
    """A release that is one choice among N candidates, of which every input marks m: all integers of it."""

    num_candidates: int
    subset_size: int
    threshold: int


def set_delta(epsilon: float, local_epsilon: float, num_releases: int, choice: Choice | None = None) -> float:
    r"""Return the delta at which a shuffled set of n pure local releases is private for a given epsilon.

    The theorem is that of Balle, Bell, Gascon and Nissim, in the form that ``docs/PRIVACY_PROMISE.md`` states:
    :math:`\delta = \frac1n \mathbb{E} (J_1 + \dots + J_n)_+` for independent J of a known law with a few values. The
    number itself is found by a way of its own, a discrete Fourier transform. Values of J that are not on a grid are
    spread onto their two neighbours there without a change of the mean, which can only enlarge the mean of a convex
    function. The law is tilted, :math:`p_v \to p_v e^{\lambda v} / M` with the :math:`\lambda` at which its mean is 0,
    convolved n times with itself, and tilted back, :math:`\mathbb{E} S_+ = M^n \, \tilde{\mathbb{E}} (S_+ e^{-\lambda
    S})`, so that rounding errors stay in proportion to the result. Sums are above the grid with a probability of
    :math:`e^{-60}`, tilted; those below it are counted as if they were on it.

    Args:
        epsilon: of the set, 0 or more.
        local_epsilon: of every single release, at most 24.
        num_releases: n.
        choice: of releases by a single choice; None for any pure mechanism.

    Returns:
        An upper bound up to rounding errors, which are far below a thousandth of it.

    References:
        Balle, Bell, Gascon, Nissim: The privacy blanket of the shuffle model, CRYPTO 2019, lemma 5.3. Koskela,
        Heikkila, Honkela: Numerical accounting in the shuffle model of differential privacy, TMLR 2023 (transforms).

    Example:
        >>> 0.9e-6 < set_delta(0.36536, 4.0, 10_000, Choice(2**14, 1111, 14736334606869650475)) < 1.1e-6
        True
    """
    ratio = math.exp(epsilon)
    values, chances = _any_law(local_epsilon, ratio) if choice is None else _choice_law(choice, ratio)
    count = min(num_releases, MOST)
    return _positive_mean(values, chances, count) / count


def _any_law(local_epsilon: float, ratio: float) -> tuple[list[float], list[float]]:
    local = math.exp(local_epsilon)
    return [local - ratio, 1 - ratio * local], [1 / (local + 1)] * 2


def _choice_law(choice: Choice, ratio: float) -> tuple[list[float], list[float]]:
    num, size, threshold = choice
    other = (2**64 - threshold) / (2**64 * (num - size))
    local = threshold * (num - size) / ((2**64 - threshold) * size)
    apart = min(size, num - size)
    alike, weight = num - 2 * apart, 1.0 if 2 * size <= num else local
    return [local - ratio, 1 - ratio * local, weight * (1 - ratio)], [apart * other, apart * other, alike * other]


def _positive_mean(values: Sequence[float], chances: Sequence[float], count: int) -> float:
    import numpy as np

    if max(values) <= 0:
        return 0.0
    rest = max(1 - sum(chances), 0.0)
    tilt = _tilt(values, chances)
    tilted = [chance * math.exp(tilt * value) for value, chance in zip(values, chances, strict=True)]
    weights = [weight / (sum(tilted) + rest) for weight in tilted]
    limit = _reach(count, _variance(values, weights), max(values))
    # Whoever draws a lower one takes the sum below 0, whatever the others draw.
    kept = [index for index, value in enumerate(values) if value > -limit]
    values, chances, weights = ([numbers[index] for index in kept] for numbers in (values, chances, weights))
    variance = _variance(values, weights)
    widest = sum(_reach(count, variance, max(sign * value for value in values)) for sign in (1, -1))
    step = max(_step(values, weights, math.sqrt(variance)), 4 * widest / LARGEST)
    points: dict[int, float] = {0: rest}
    for value, chance in zip(values, chances, strict=True):
        below = math.floor(value / step + 1e-9)
        part = min(max(value / step - below, 0.0), 1.0)
        for place, share in ((below, 1 - part), (below + 1, part)):
            points[place] = points.get(place, 0.0) + chance * share
    total = sum(chance * math.exp(tilt * place * step) for place, chance in points.items())
    # In steps. Sums below these come back above 0, and are counted: the safe side.
    above, below = (
        math.ceil(_reach(count, variance / step**2, max(sign * place for place in points))) + 1 for sign in (1, -1)
    )
    length = 2 ** math.ceil(math.log2(above + below))
    law = np.zeros(length)
    for place, chance in points.items():
        law[place % length] += chance * math.exp(tilt * place * step) / total
    summed = np.fft.irfft(np.fft.rfft(law) ** count, length)[:above].clip(min=0)
    sums = np.arange(above) * step
    return float(np.sum(summed * sums * np.exp(-tilt * sums))) * math.exp(count * math.log(total))


def _variance(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(weight * value**2 for value, weight in zip(values, weights, strict=True))


def _reach(count: int, variance: float, largest: float) -> float:
    """Return what a sum of numbers up to a largest one exceeds by e^-REACH at most, by Bernstein's inequality."""
    slope = REACH * max(largest, 0) / 3
    return min(slope + math.sqrt(slope**2 + 2 * REACH * count * variance), count * max(largest, 0))


def _step(values: Sequence[float], weights: Sequence[float], deviation: float) -> float:
    """Return a step of the grid with which values that are spread add ADDED to the variance at most."""
    # The likeliest value may lie on the grid; the others are fewer, and the step larger.
    likeliest = max(range(len(values)), key=lambda index: weights[index] * (values[index] != 0))
    others = sum(weights) - weights[likeliest]
    fine, coarse = (deviation * math.sqrt(4 * ADDED / max(part, 1e-12)) for part in (sum(weights), others))
    return max(fine, abs(values[likeliest]) / math.ceil(abs(values[likeliest]) / coarse))


def _tilt(values: Sequence[float], chances: Sequence[float]) -> float:
    """Return the tilt, 0 or more, at which the mean is 0."""

    def mean(tilt: float) -> float:
        return sum(chance * value * math.exp(tilt * value) for value, chance in zip(values, chances, strict=True))

    low, high = 0.0, 600 / max(values)
    if mean(0.0) >= 0:
        return 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < 0 else (low, middle)
    return low
