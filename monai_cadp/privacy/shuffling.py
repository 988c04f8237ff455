# SPDX-License-Identifier: Apache-2.0
"""What hiding among others is worth: releases in random order under random names."""

from __future__ import annotations

import math

import numpy as np

from monai_cadp.privacy.checks import checked_delta, checked_epsilon

__all__ = ["shuffled_delta", "shuffled_epsilon"]

# Probability of each end of the number of clones that is counted as lost.
CUT = 1e-16
# Far above the rounding errors of the binomial tails (relative 1e-14), relative to the larger term.
SLACK = 1e-11


def shuffled_epsilon(epsilon: float, num_releases: int, delta: float) -> float:
    r"""Return the central epsilon of a shuffled set of pure local releases.

    If n people release by :math:`\epsilon_0` private mechanisms, one release each, and only the set of the releases is
    seen, the set is :math:`(\epsilon, \delta)` private for replacing one person. This is theorem 3.1 of Feldman,
    McMillan and Talwar (2023), which is used here and not proved again. Its idea: where the outputs of x and x' differ
    in probability, everybody else's release acts with probability :math:`q = 2 / (e^{\epsilon_0} + 1)` like one of x or
    of x', with equal chances, a clone; the number of clones hides which of the two the person had. The worst case is
    the pair of laws in :func:`shuffled_delta`, from which the numerical bound is computed. In closed form

    .. math:: \epsilon \le \ln\left(1 + (e^{\epsilon_0} - 1) \left( \frac{4 \sqrt{2 \ln(4 / \delta)}}
              {\sqrt{(e^{\epsilon_0} + 1) n}} + \frac{4}{n} \right)\right) \quad\text{for}\quad
              \epsilon_0 \le \ln\left(\frac{n}{8 \ln(2 / \delta)} - 1\right).

    The smaller of the two is returned, and only where the condition holds.

    Args:
        epsilon: of every single release, pure; :math:`\epsilon_0`.
        num_releases: n, the size of the set; where a fact such as the class is public, of the part of the set that
            shares it.
        delta: between 0 and 1, of the set.

    Returns:
        The epsilon of the set.

    Raises:
        ValueError: if a number is out of its range, or the set is too small for the condition.

    References:
        Feldman, McMillan, Talwar: Hiding among the clones, FOCS 2021; Stronger privacy amplification by shuffling for
        Renyi and approximate differential privacy, SODA 2023, theorems 3.1 and 3.2.

    Example:
        >>> round(shuffled_epsilon(4.0, 10_000, 1e-6), 2)
        0.41
    """
    epsilon, delta = checked_epsilon(epsilon), checked_delta(delta)
    if isinstance(num_releases, bool) or not isinstance(num_releases, int) or num_releases < 2:
        raise ValueError(f"The number of releases is {num_releases!r}; expected an integer of 2 or more.")
    limit = num_releases / (8 * math.log(2 / delta)) - 1
    if limit <= 0 or epsilon > math.log(limit):
        needed = math.ceil((math.exp(min(epsilon, 600.0)) + 1) * 8 * math.log(2 / delta))
        raise ValueError(
            f"{num_releases} releases of epsilon {epsilon:g} are too few to count as shuffled at delta {delta:g}; "
            f"expected about {needed:.3g} or more, or a smaller epsilon."
        )
    low, high = 0.0, min(epsilon, _closed_form(epsilon, num_releases, delta))
    if shuffled_delta(high, epsilon, num_releases) > delta:
        return high
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if shuffled_delta(middle, epsilon, num_releases) <= delta else (middle, high)
    return high


def shuffled_delta(epsilon: float, local_epsilon: float, num_releases: int) -> float:
    r"""Return an upper bound of the delta at which a shuffled set is private for a given central epsilon.

    With :math:`C \sim \mathrm{Bin}(n - 1, q)`, :math:`q = 2 / (e^{\epsilon_0} + 1)`, clones, :math:`A \sim
    \mathrm{Bin}(C, 1/2)` of them of the first kind, and the person of the first kind with probability :math:`p =
    e^{\epsilon_0} / (e^{\epsilon_0} + 1)` under x and 1 - p under x', the count a of the first kind among c + 1 has the
    probabilities

    .. math:: P_c(a) = p B_c(a - 1) + (1 - p) B_c(a), \qquad Q_c(a) = (1 - p) B_c(a - 1) + p B_c(a),

    :math:`B_c` those of A. As :math:`B_c(a - 1) / B_c(a) = a / (c - a + 1)` rises with a, so does :math:`P_c / Q_c`,
    and :math:`P_c(a) > e^\epsilon Q_c(a)` exactly from some :math:`a_c` on. So

    .. math:: \delta = E_C\left[ (p - e^\epsilon (1 - p)) \Pr[A \ge a_C - 1] - (e^\epsilon p - (1 - p))
              \Pr[A \ge a_C] \right],

    and the same for x and x' exchanged, by symmetry. The far ends of C are added as if they gave everything away, and
    rounding errors are covered by a slack.

    Args:
        epsilon: of the set, 0 or more.
        local_epsilon: of every release.
        num_releases: n.

    Returns:
        A number not below delta.
    """
    from scipy.stats import binom

    if epsilon >= local_epsilon:
        return 0.0
    p, factor = 1 / (1 + math.exp(-local_epsilon)), math.exp(epsilon)
    clones = binom(num_releases - 1, 2 / (math.exp(local_epsilon) + 1))
    first, last = int(clones.ppf(CUT)), int(clones.isf(CUT))
    counts = np.arange(max(first - 1, 0), min(last + 1, num_releases - 1) + 1)
    inside, outside = p - factor * (1 - p), factor * p - (1 - p)
    # P > e^epsilon Q where inside * a > outside * (c - a + 1).
    start = np.ceil(outside * (counts + 1) / (inside + outside))
    upper = inside * binom.sf(start - 2, counts, 0.5)
    terms = upper - outside * binom.sf(start - 1, counts, 0.5) + SLACK * upper
    lost = clones.cdf(counts[0] - 1) + clones.sf(counts[-1])
    return float(clones.pmf(counts) @ np.maximum(terms, 0.0) + lost)


def _closed_form(epsilon: float, num_releases: int, delta: float) -> float:
    grown = math.expm1(epsilon)
    spread = 4 * math.sqrt(2 * math.log(4 / delta)) / math.sqrt((math.exp(epsilon) + 1) * num_releases)
    return math.log1p(grown * (spread + 4 / num_releases))
