# SPDX-License-Identifier: Apache-2.0
"""The mean of what a sum of many independent numbers is above zero, with bounds for every error."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LossLaw", "positive_mean"]

ROUNDING = 2.0**-53
# Relative, of numbers that are computed by a few operations.
MARGIN = 2.0**-48
# Runs share a law of H if that moves x by no more than this share of its deviation.
COARSENESS = 2.0**-10
CELLS_AT_ONCE = 2**20
# Of ``lost``: what underflows is far below it.
SMALLEST_LOST = 1e-280


class LossLaw(NamedTuple):
    r"""The law of a number J that depends on a factor E, in exact fractions.

    .. math:: J = \text{high} - E\,\text{low}, \quad \text{low} - E\,\text{high}, \quad (1 - E)\,\text{common}, \quad
              (1 - E)\,\text{rest}

    with the probabilities ``chance``, ``chance``, ``common_chance`` and what is left of 1. Always low <= high, rest <=
    common (where ``common_chance`` is not 0), rest <= high, and high times chance <= 1.
    """

    high: Fraction
    low: Fraction
    chance: Fraction
    common: Fraction = Fraction(0)
    common_chance: Fraction = Fraction(0)
    rest: Fraction = Fraction(0)


def positive_mean(law: LossLaw, epsilon: float, count: int, *, upper: bool, lost: float = 1e-20) -> float:
    r"""Return a bound of :math:`\frac1n E (J_1 + \dots + J_n)_+` for independent J of one law, :math:`E = e^\epsilon`.

    Let :math:`G \sim \mathrm{Bin}(n, 2\,\text{chance})` be the number of J of the first two kinds, A of the first kind
    among these, each with probability 1/2, and H of the third kind among the other n - G. The sum is x(A, G) - c H with

    .. math:: x = (\text{high} - E\,\text{low}) A - (E\,\text{high} - \text{low})(G - A) - (E - 1)\,\text{rest}\,(n - G)

    and :math:`c = (E - 1)(\text{common} - \text{rest}) \ge 0`, so the mean is :math:`\frac1n \sum_{G, A} \Pr[G]
    \Pr[A \mid G]\, E(x - c H)_+`. As :math:`E\,\text{high} - \text{low} \ge \text{high} - E\,\text{low}`, no A up to
    G / 2 counts.

    What is not exact, each on the side that ``upper`` names:

    * E and the factors of x and c are moved outwards by a relative :math:`2^{-48}`, more than the few roundings of
      :math:`2^{-53}` in them and in x. The mean rises with the first factor and falls with E and the others.
    * H grows with n - G. Neighbouring G's share the H of the one among them where it is smallest (or largest).
    * Windows are cut, each at a probability of an eighth of ``lost``, by the inequalities of Bernstein (G, H) and
      Hoeffding (A). Where G is outside, the mean loses at most high chance :math:`\Pr[1 + \mathrm{Bin}(n - 1, 2
      \,\text{chance}) \text{ outside}]`, by symmetry, and windows are wide enough for that law too. For A and H that
      probability stands beside a factor whose mean is at most 2. From below what is cut is left out; from above
      ``lost`` is added.
    * All else are sums, products and quotients of positive numbers; there is no difference. A probability is a product
      of at most W ratios, of four roundings each, divided by a sum of such; two more cumulative sums give the means
      over H. Together that is less than 16 roundings for each entry of the three windows, relative to the result.
    * Probabilities are made one of another from a mode on, those of A from the last of a few G's, so that what
      underflows is below :math:`2^{-1022}` itself; all of it is far below the half of ``lost`` that no cut takes.

    Args:
        law: of each J.
        epsilon: 0 or more.
        count: n, 1 or more.
        upper: whether the bound is from above.
        lost: what the cuts may cost, 1e-280 or more.

    Returns:
        The bound, 0 or more.

    Raises:
        ValueError: if epsilon is below 0, where a J may be above 0 that is not here, or ``lost`` is too small.

    Example:
        >>> fair = LossLaw(Fraction(1), Fraction(0), Fraction(1, 2))
        >>> round(positive_mean(fair, 0.0, 2, upper=True), 9)
        0.25
    """
    if not epsilon >= 0 or not lost >= SMALLEST_LOST:
        raise ValueError(f"epsilon is {epsilon} and lost {lost}; expected 0 or more, and {SMALLEST_LOST:g} or more.")
    side = 1 if upper else -1
    factor = math.exp(epsilon) * (1 - side * MARGIN)
    high, low, common, rest = (float(value) for value in (law.high, law.low, law.common, law.rest))
    gain = (high - factor * low + side * MARGIN * high) * (1 + side * MARGIN)
    if gain <= 0:
        return 0.0
    inward = 1 - side * MARGIN
    loss = max(factor * high - low - side * MARGIN * factor * high, 0.0) * inward
    step = max(factor - 1 - side * MARGIN * factor, 0.0) * inward
    base, shared = step * rest * inward, step * float(law.common - law.rest) * inward
    hidden = law.common_chance / (1 - 2 * law.chance) if shared > 0 and law.common_chance else Fraction(0)
    log_cut = math.log(16 / lost)
    first, chances = _binomial(count, 2 * law.chance, log_cut)
    root = math.sqrt(first + len(chances))
    # No more rows than a deviation: the middle of one is then not far from that of any other.
    size = min(CELLS_AT_ONCE / (4 * root), root)
    if hidden:
        size = min(size, (gain + loss) * root / 2 * COARSENESS / (shared * float(hidden)))
    size = max(int(size), 1)
    total, entries = 0.0, len(chances)
    for start in range(0, len(chances), size):
        numbers = np.arange(first + start, first + min(start + size, len(chances)), dtype=np.float64)
        left, common_first, below = count - numbers, 0, None
        if hidden:
            common_first, probabilities = _binomial(int(left[-1] if upper else left[0]), hidden, log_cut)
            below = np.concatenate([[0.0], np.cumsum(np.cumsum(probabilities))])
        reached = (loss * numbers[0] + base * left[0] + shared * common_first) / (gain + loss)
        kinds, cells = _upper_rows(numbers, math.floor(reached) - 1, log_cut)
        x = np.maximum(gain * kinds - loss * (numbers[:, None] - kinds) - base * left[:, None], 0.0)
        if below is not None:
            # E (u - H)_+ is linear between integers, with the slope Pr[H <= h] from h on.
            grid = np.arange(common_first, common_first + len(below))
            u = x / shared
            x = shared * (np.interp(u, grid, below) + np.maximum(u - grid[-1], 0.0))
            entries = max(entries, len(chances) + len(below) + 4 * int(root * math.sqrt(log_cut)))
        total += float(chances[start : start + size] @ (cells * x).sum(axis=1))
    slack = 16 * ROUNDING * (entries + 4 * int(root * math.sqrt(log_cut)) + 16)
    return total / count * (1 + slack) + lost if upper else total / count * (1 - slack - lost)


def _binomial(trials: int, chance: Fraction, log_cut: float) -> tuple[int, NDArray[np.float64]]:
    """Return the first number of a window of Bin(trials, chance), and the probabilities in it.

    Outside of it are at most 2 exp(-log_cut) of this law, by Bernstein's inequality, and of 1 + Bin(trials - 1,
    chance), whose mean is less than 1 larger.
    """
    if chance in (0, 1):
        return int(trials * chance), np.ones(1)
    mean = float(trials * chance)
    spread = log_cut / 3 + math.sqrt(log_cut**2 / 9 + 2 * log_cut * mean * float(1 - chance))
    first, last = max(math.floor(mean - spread) - 2, 0), min(math.ceil(mean + spread) + 2, trials)
    numbers = np.arange(first, last, dtype=np.float64)
    ratios = float(chance / (1 - chance)) * (trials - numbers) / (numbers + 1)
    mode = int((ratios > 1).sum())
    rising = np.cumprod(1 / ratios[:mode][::-1])[::-1]
    weights = np.concatenate([rising, [1.0], np.cumprod(ratios[mode:])])
    return first, weights / weights.sum()


def _upper_rows(
    numbers: NDArray[np.float64], start: int, log_cut: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return A = start, start + 1, ... and Pr[A] for A ~ Bin(G, 1/2), a row for each of consecutive numbers G.

    The rows begin above G / 2 at the lowest, and end where exp(-log_cut) is left of the last, by Hoeffding's
    inequality.
    """
    smallest, largest = int(numbers[0]), int(numbers[-1])
    stop = min(math.ceil(largest / 2 + math.sqrt(log_cut / 2 * largest)) + 1, largest)
    if start > stop:
        return np.zeros(0), np.zeros((len(numbers), 0))
    start, last_middle = min(max(start, smallest // 2), smallest), largest // 2
    lowest = min(start, last_middle)
    # The last G; its law is symmetric, and of an even G the middle is there once.
    upward = np.arange(lowest, stop + 1, dtype=np.float64)
    weights = np.cumprod(np.concatenate([[1.0], (largest - upward[:-1]) / (upward[:-1] + 1)]))
    upper_half = weights[last_middle - lowest :]
    whole = 2 * upper_half[1:].sum() + (largest % 2 == 0) * upper_half[0]
    # Up the first column by Pr[G, a] / Pr[G + 1, a], then along the rows by Pr[G, a + 1] / Pr[G, a]. The other way, a
    # first number that underflows would take numbers with it that do not.
    up = np.cumprod((2 * (numbers[1:] - start) / numbers[1:])[::-1])[::-1]
    column = weights[start - lowest] / whole * np.concatenate([up, [1.0]])
    kinds = upward[start - lowest :]
    along = np.maximum(numbers[:, None] - kinds[None, :-1], 0.0) / (kinds[None, :-1] + 1)
    return kinds, np.cumprod(np.concatenate([column[:, None], along], axis=1), axis=1)
