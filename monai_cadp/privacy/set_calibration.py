# SPDX-License-Identifier: Apache-2.0
"""From what a whole set may give away to the mechanism of a single release."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

from monai_cadp.privacy.binomial_sums import SMALLEST_LOST
from monai_cadp.privacy.checks import checked_delta, checked_epsilon
from monai_cadp.privacy.shuffling import Subset, shuffled_delta, shuffled_epsilon
from monai_cadp.privacy.threshold import MAX_EPSILON

__all__ = ["expected_fidelity", "fit_to_set"]

# Sizes that are tried are 2^(1/2) apart; local epsilons are stated in thousandths.
SIZES_PER_OCTAVE = 2
DIGITS = 1000
# Of delta, for what sums leave out.
CUT = 1e-6


def expected_fidelity(epsilon: float, subset: Subset) -> float:
    r"""Return the mean score of what is released, where scores of candidates are standard normal numbers.

    The share :math:`w = m / N` of the best has the mean score :math:`\varphi(z) / w` with :math:`\Phi(-z) = w`, all
    candidates 0 and the others :math:`-\varphi(z) / (1 - w)`. One of the best is released with probability :math:`p = w
    e^\epsilon / (w e^\epsilon + 1 - w)`, so the mean is :math:`\varphi(z) (p / w - (1 - p) / (1 - w))`. For a score
    :math:`\langle u, v \rangle` this is, in units of the length of u, how much of the content u is kept.

    Args:
        epsilon: of one release.
        subset: N and m.

    Returns:
        The mean, 0 or more.

    Example:
        >>> round(expected_fidelity(4.0, Subset(num_candidates=2**14, subset_size=1111)), 2)
        1.52
    """
    share = subset.subset_size / subset.num_candidates
    density = NormalDist().pdf(NormalDist().inv_cdf(share))
    best = 1 / (1 + (1 - share) / share * math.exp(-epsilon))
    return density * (best / share - (1 - best) / (1 - share))


@lru_cache(maxsize=256)
def fit_to_set(set_epsilon: float, num_releases: int, delta: float, num_candidates: int = 2**14) -> tuple[float, int]:
    r"""Return the local epsilon, and the subset size m, with which a shuffled set has at most a given epsilon.

    For each m the local epsilon is the largest, in thousandths, whose set is (``set_epsilon``, ``delta``) private by
    :func:`~monai_cadp.privacy.shuffling.shuffled_epsilon`. Of these pairs the one with the largest
    :func:`expected_fidelity` is taken: a search that goes on while the next smaller m keeps more. What is returned
    depends on public numbers alone, and is checked by the bound itself; how good it is rests on the search, that it is
    private does not.

    Args:
        set_epsilon: of the whole set, above 0.
        num_releases: n; where facts such as the class are public, of the smallest part of the set that shares them.
        delta: of the set, between 0 and 1.
        num_candidates: N.

    Returns:
        The local epsilon, not below ``set_epsilon``, and m.

    Raises:
        ValueError: if a number is out of its range.

    Example:
        >>> epsilon, size = fit_to_set(1.0, num_releases=1000, delta=1e-6)
        >>> 3.5 < epsilon < 5.5
        True
        >>> shuffled_epsilon(epsilon, 1000, 1e-6, Subset(2**14, size)) <= 1.0
        True
    """
    set_epsilon, delta = checked_epsilon(set_epsilon), checked_delta(delta)
    best, local = (-math.inf, set_epsilon, 1), set_epsilon
    octaves = math.log2(num_candidates)
    exponents = [octaves - 1 - step / SIZES_PER_OCTAVE for step in range(math.ceil(SIZES_PER_OCTAVE * octaves))]
    for size in sorted({max(int(2**exponent), 1) for exponent in exponents}, reverse=True):
        subset = Subset(num_candidates, size)
        local = _largest(set_epsilon, num_releases, delta, subset, local)
        fidelity = expected_fidelity(local, subset)
        if fidelity < best[0]:
            break
        best = (fidelity, local, size)
    _, local, size = best
    subset = Subset(num_candidates, size)
    while local > set_epsilon and shuffled_epsilon(local, num_releases, delta, subset) > set_epsilon:
        local = max((math.floor(local * DIGITS) - 1) / DIGITS, set_epsilon)
    return local, size


def _largest(set_epsilon: float, num_releases: int, delta: float, subset: Subset, low: float) -> float:
    """Return about the largest local epsilon, from one that is low enough on, at which the set's bound is kept."""
    from scipy.optimize import brentq

    def excess(local: float) -> float:
        bound = shuffled_delta(set_epsilon, local, num_releases, subset, max(delta * CUT, SMALLEST_LOST))
        return math.log(max(bound, delta * CUT) / delta)

    high = low
    while high < MAX_EPSILON and excess(high) <= 0:
        low, high = high, min(high + 1, MAX_EPSILON)
    if high > low and excess(high) > 0:
        low = float(brentq(excess, low, high, xtol=0.1 / DIGITS))
    return max(math.floor(low * DIGITS) / DIGITS, set_epsilon)
