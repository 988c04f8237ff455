# SPDX-License-Identifier: Apache-2.0
"""What hiding among others is worth: releases in random order under random names."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from monai_cadp.privacy.binomial_sums import MARGIN, LossLaw, positive_mean
from monai_cadp.privacy.checks import checked_delta, checked_epsilon
from monai_cadp.privacy.threshold import MAX_EPSILON, WORDS, acceptance_threshold

__all__ = ["Subset", "attained_epsilon", "shuffled_delta", "shuffled_epsilon"]

# Of delta, for what the sums leave out.
CUT = 1e-6
# Of the proposal, each time that it is not enough.
STEP = 2.0**-24
# Below, floating-point numbers cannot hold the sums, and a set counts as hiding nobody.
SMALLEST_DELTA = 1e-270
# Below, words of 64 bits hold e - 1 of a subset selection too coarsely.
SMALLEST = 1e-6
# More people than these hide no worse, and are counted as these: the sums have about as many terms.
MOST_RELEASES = 10**7


class Subset(NamedTuple):
    """What is known of a release that is one choice: N candidates, of which every input marks m."""

    num_candidates: int
    subset_size: int


def shuffled_epsilon(epsilon: float, num_releases: int, delta: float, subset: Subset | None = None) -> float:
    r"""Return an epsilon that a shuffled set of pure local releases has for a given delta, rounded up.

    The n people of a set release once each, by the same mechanism, which is :math:`\epsilon_0` private; only the set of
    the releases is seen, not which is whose. One person's input is x or x', those of the others are anything. What is
    done to every release alike, such as to decode it with fresh noise, changes nothing.

    **Theorem.** Let :math:`E = e^\epsilon`, and let :math:`b(y)` be a number that is not above the probability with
    which any of the others releases y, whatever their input, and above 0 where M(x) or M(x') may be y. Then the set is
    :math:`(\epsilon, \delta)` private with

    .. math:: \delta = \frac1n \mathbb{E} \Bigl( \sum_{i=1}^n J_i \Bigr)_+, \qquad
              J_i = \frac{\Pr[M(x) = y] - E \Pr[M(x') = y]}{b(y)} \text{ with probability } b(y), \text{ otherwise } 0,

    for independent :math:`J_i`, if that is so for every x and x'. *Proof.* Write :math:`\gamma = \sum b(y)`. Another
    person's release can be drawn so: with probability :math:`\gamma` from :math:`b / \gamma`, whatever the input is,
    otherwise from the rest of their law. Let an attacker be told, for nothing, who drew from the rest, and what. With k
    others left there remain s = k + 1 releases in random order, one of them the person's: under x the density of
    :math:`(y_1, \dots, y_s)` relative to s independent draws of :math:`b / \gamma` is :math:`\frac1s \sum_i \gamma
    \Pr[M(x) = y_i] / b(y_i)`. So the :math:`\delta` of this attacker, :math:`\sum (P - E Q)_+` over all outcomes, is
    the mean of :math:`\frac{\gamma}{s} (\sum_{i \le s} L_i)_+` with independent :math:`L_i = (M(x) - E M(x'))(y_i) /
    b(y_i)` and :math:`s - 1 \sim \mathrm{Bin}(n - 1, \gamma)`. As :math:`\frac{\gamma}{s} \Pr[\mathrm{Bin}(n - 1,
    \gamma) = s - 1] = \frac1n \Pr[\mathrm{Bin}(n, \gamma) = s]`, it is the mean that is stated. ∎

    The mean of a convex function of a sum only grows when the law of a J is spread without a change of its mean; here
    the mean is always 1 - E. Two facts about J follow.

    *Any pure mechanism.* Take :math:`b = e^{-\epsilon_0} \max(\Pr[M(x) = y], \Pr[M(x') = y])`. Then :math:`1 - E
    e^{\epsilon_0} \le J \le e^{\epsilon_0} - E`. And :math:`\mathbb{E} J_+ \le (e^{\epsilon_0} - E) / (e^{\epsilon_0} +
    1)`: where J > 0, with the probabilities P under x and P' under x', :math:`P - E P'` with :math:`P \le
    e^{\epsilon_0} P'` and :math:`1 - P' \le e^{\epsilon_0} (1 - P)` is largest where both are equalities. Spread what
    is above 0 onto 0 and :math:`e^{\epsilon_0} - E`, what is below onto 0 and :math:`1 - E e^{\epsilon_0}`: the result
    is never more spread than J = :math:`e^{\epsilon_0} - E`, :math:`1 - E e^{\epsilon_0}` with probability :math:`1 /
    (e^{\epsilon_0} + 1)` each, else 0. (These are the clones of Feldman, McMillan and Talwar, 2023.)

    *Subset selection.* A marked candidate is released with probability a, another one with b, and a / b is e. Take b(y)
    = b: in units of b, candidates have :math:`J = e - E`, :math:`1 - E e`, :math:`e (1 - E)` or :math:`1 - E`, as x
    alone, x' alone, both or neither mark them, with probability b each; J is 0 with probability 1 - N b. A candidate
    that both mark and one that neither marks have the same sum of J as two that are marked once each, and are nearer to
    each other. So the sets of x and x' overlap as little as they can: k = min(m, N - m) candidates are marked by x
    alone, k by x' alone. ∎ This looks at the size of the marked sets only: any ranking of any inputs is covered.

    The bound is computed by :func:`~monai_cadp.privacy.binomial_sums.positive_mean`, whose errors are all upwards, and
    the epsilon that is returned is one at which it was not above delta. It is never above the local one, and never
    above the closed form of Feldman, McMillan and Talwar,

    .. math:: \epsilon \le \ln\left(1 + (e^{\epsilon_0} - 1) \left( \frac{4 \sqrt{2 \ln(4 / \delta)}}
              {\sqrt{(e^{\epsilon_0} + 1) n}} + \frac{4}{n} \right)\right) \quad\text{for}\quad
              \epsilon_0 \le \ln\left(\frac{n}{8 \ln(2 / \delta)} - 1\right),

    which counts for sets of more than ten million, where the sums stop: the mean of n numbers is never more spread than
    that of fewer, so that more people never hide worse.

    Args:
        epsilon: of every single release, pure; :math:`\epsilon_0`.
        num_releases: n, the size of the set, one release of each person; where facts such as the class are public, of
            the part of the set that shares them.
        delta: between 0 and 1, of the set.
        subset: of releases by subset selection in one block; None for any pure mechanism.

    Returns:
        The epsilon of the set; that of a single release where the set is too small to hide anybody.

    Raises:
        ValueError: if a number is out of its range.

    References:
        Balle, Bell, Gascon, Nissim: The privacy blanket of the shuffle model, CRYPTO 2019, lemma 5.3 (the theorem).
        Su, Cheng, Wang: Decomposition-based optimal bounds for privacy amplification via shuffling, arXiv 2504.07414
        (no other decomposition gives less). Feldman, McMillan, Talwar: Stronger privacy amplification by shuffling for
        Renyi and approximate differential privacy, SODA 2023 (clones, closed form).

    Example:
        >>> round(shuffled_epsilon(4.0, 10_000, 1e-6), 2)
        0.41
        >>> round(shuffled_epsilon(4.0, 10_000, 1e-6, Subset(num_candidates=2**14, subset_size=295)), 2)
        0.28
    """
    epsilon, delta = checked_epsilon(epsilon), checked_delta(delta)
    _check_count(num_releases)
    return _bound(epsilon, num_releases, delta, subset)


def attained_epsilon(epsilon: float, num_releases: int, delta: float, subset: Subset) -> float:
    r"""Return an epsilon that a shuffled set of subset selections does not have for a given delta, rounded down.

    If all others have the same input, their releases are n - 1 independent draws of one law v, and the theorem of
    :func:`shuffled_epsilon` holds with equality for b = v: nothing is told to the attacker. Let the sets of x and x'
    overlap as little as they can, and the others' set overlap with what only one of them marks as little as it can, by
    i candidates each. With 3 m <= N all three sets are disjoint, and J is :math:`e - E` and :math:`1 - E e` with
    probability m b each, 1 - E with (N - 3 m) b, and (1 - E) / e with m a. This differs from the law of the upper bound
    by one thing: there (1 - E) / e is spread onto 1 - E and 0. Where the sets are larger, all but the first two values,
    with probability (k - i) b each, are replaced by their mean, which lowers the result: bounds then are further apart,
    the more so the smaller epsilon is.

    It is attained by inputs for which the ranking marks these sets. Those of real images may be told apart less well.

    Args:
        epsilon: of every single release.
        num_releases: n.
        delta: between 0 and 1, of the set.
        subset: of the releases.

    Returns:
        The epsilon; 0 where delta is so large that nothing is shown.

    Raises:
        ValueError: if a number is out of its range.

    Example:
        >>> set_of = dict(num_releases=10_000, delta=1e-6, subset=Subset(2**14, 295))
        >>> attained_epsilon(4.0, **set_of) <= shuffled_epsilon(4.0, **set_of) < 1.01 * attained_epsilon(4.0, **set_of)
        True
    """
    epsilon, delta = checked_epsilon(epsilon), checked_delta(delta)
    _check_count(num_releases)
    if epsilon < SMALLEST or delta < SMALLEST_DELTA:
        return 0.0
    law, _ = _subset_laws(epsilon, subset)
    found = _crossing(law, num_releases, delta, epsilon, upper=False)
    while found > 0 and not positive_mean(law, found, num_releases, upper=False, lost=delta * CUT) > delta:
        found = max(found - max(found * STEP, STEP), 0.0)
    return found


def shuffled_delta(
    epsilon: float, local_epsilon: float, num_releases: int, subset: Subset | None = None, lost: float = 1e-20
) -> float:
    """Return an upper bound of the delta at which a shuffled set is private for a given epsilon.

    Args:
        epsilon: of the set, 0 or more.
        local_epsilon: of every single release.
        num_releases: n.
        subset: as in :func:`shuffled_epsilon`, which proves the bound.
        lost: of delta, what the sums may leave out.

    Returns:
        A number not below delta.

    Example:
        >>> shuffled_delta(0.5, 4.0, 10_000) < 1e-6 < shuffled_delta(0.3, 4.0, 10_000)
        True
    """
    if epsilon >= local_epsilon:
        return 0.0
    _check_count(num_releases)
    count = min(num_releases, MOST_RELEASES)
    return positive_mean(_upper_law(local_epsilon, subset), epsilon, count, upper=True, lost=lost)


@lru_cache(maxsize=256)
def _bound(epsilon: float, num_releases: int, delta: float, subset: Subset | None) -> float:
    bound = min(epsilon, _closed_form(epsilon, num_releases, delta))
    if epsilon > MAX_EPSILON or delta < SMALLEST_DELTA:
        return bound
    found = _crossing(_upper_law(epsilon, subset), min(num_releases, MOST_RELEASES), delta, epsilon, upper=True)
    while found < bound and not shuffled_delta(found, epsilon, num_releases, subset, delta * CUT) <= delta:
        found += max(found * STEP, STEP)
    return min(found, bound)


def _upper_law(epsilon: float, subset: Subset | None) -> LossLaw:
    if subset is not None and epsilon >= SMALLEST:
        return _subset_laws(epsilon, subset)[1]
    ratio = Fraction(math.exp(epsilon) * (1 + 2.0**-44))
    return LossLaw(high=ratio, low=Fraction(1), chance=1 / (ratio + 1))


def _subset_laws(epsilon: float, subset: Subset) -> tuple[LossLaw, LossLaw]:
    """Return the laws of J for the lower and the upper bound, for the probabilities that the mechanism has."""
    num, size = subset
    threshold = acceptance_threshold(epsilon, num, size)
    marked, other = Fraction(threshold, WORDS * size), Fraction(WORDS - threshold, WORDS * (num - size))
    ratio, one = marked / other, Fraction(1)
    apart = min(size, num - size)
    alike = num - 2 * apart
    upper = LossLaw(ratio, one, apart * other, one if 2 * size <= num else ratio, alike * other)
    if 3 * size <= num:
        return LossLaw(ratio, one, size * other, one, (num - 3 * size) * other, 1 / ratio), upper
    chance = (apart - math.ceil(Fraction(size - alike, 2))) * other
    return LossLaw(ratio, one, chance, rest=(1 - chance * (ratio + 1)) / (1 - 2 * chance)), upper


def _crossing(law: LossLaw, count: int, delta: float, top: float, *, upper: bool) -> float:
    """Return about the epsilon, up to a top, at which a bound meets delta: a proposal, nothing is proved of it."""
    from scipy.optimize import brentq

    def excess(epsilon: float) -> float:
        bound = positive_mean(law, epsilon, count, upper=upper, lost=delta * CUT)
        return math.log(max(bound, delta * CUT) / delta)

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, top, xtol=STEP / 16, rtol=STEP)) if excess(top) < 0 else top


def _closed_form(epsilon: float, num_releases: int, delta: float) -> float:
    limit = num_releases / (8 * math.log(2 / delta)) - 1
    if limit <= 0 or epsilon > math.log(limit):
        return math.inf
    spread = 4 * math.sqrt(2 * math.log(4 / delta)) / math.sqrt((math.exp(epsilon) + 1) * num_releases)
    return math.log1p(math.expm1(epsilon) * (spread + 4 / num_releases)) * (1 + MARGIN)


def _check_count(num_releases: int) -> None:
    if isinstance(num_releases, bool) or not isinstance(num_releases, int) or num_releases < 2:
        raise ValueError(f"The number of releases is {num_releases!r}; expected an integer of 2 or more.")
