# SPDX-License-Identifier: Apache-2.0
"""The one number on which the promise of subset selection rests, in exact integers."""

from __future__ import annotations

import math
from decimal import Context, Decimal
from fractions import Fraction

from monai_cadp.privacy.checks import checked_epsilon
from monai_cadp.privacy.exact_numbers import proved_value

__all__ = ["MAX_EPSILON", "WORDS", "acceptance_threshold", "equal_share", "exp_lower_bound"]

MAX_EPSILON = 40.0
WORDS = 2**64


def exp_lower_bound(epsilon: float | Decimal) -> Fraction:
    """Return a fraction that is never above e^epsilon, and below it by a relative 1e-98 at most.

    Decimal's exponential is correctly rounded, so that the number next below its result is a lower bound.

    Args:
        epsilon: taken as its exact value.

    Returns:
        The bound, at least 1 for an epsilon of 0 or more.

    Example:
        >>> float(exp_lower_bound(1.0))
        2.718281828459045
    """
    context = Context(prec=100)
    # An epsilon next to 0 has e^epsilon = 1 in 100 digits; 1 is then a lower bound itself.
    return max(Fraction(context.next_minus(context.exp(Decimal(epsilon)))), Fraction(1))


def acceptance_threshold(epsilon: float, num_candidates: int, subset_size: int) -> int:
    r"""Return the largest T for which subset selection with acceptance probability T / 2^64 is epsilon private.

    N candidates are public; an input marks exactly m of them. A uniform 64-bit word below T releases one of the
    marked, all alike; any other word releases one of the others, all alike. A given candidate is then released with
    probability

    .. math:: a = \frac{T}{2^{64} m} \text{ if marked}, \quad b = \frac{2^{64} - T}{2^{64} (N - m)} \text{ if not,}

    whatever the input is. Hence two inputs change its probability by the factors 1, a / b or b / a only, and both are
    at most :math:`E \le e^\epsilon` if and only if

    .. math:: T (N - m) \le E \, m \, (2^{64} - T) \quad\text{and}\quad (2^{64} - T) \, m \le E \, T \, (N - m).

    T is the largest integer with the first property; the second is checked. Both are compared as exact fractions, for
    the smaller of the two readings of epsilon, binary and decimal.

    Args:
        epsilon: above 0 and at most 40, where the word's 64 bits begin to cost accuracy.
        num_candidates: N.
        subset_size: m, from 1 to N - 1.

    Returns:
        T, from 1 to 2^64 - 1.

    Raises:
        ValueError: if a number is out of its range, or epsilon is so small that 64 bits cannot hold its promise.

    References:
        Ye, Barg: Optimal schemes for discrete distribution estimation under locally differential privacy, IEEE
        Transactions on Information Theory 64, 2018.

    Example:
        >>> acceptance_threshold(1.0, 2, 1) / 2**64
        0.7310585786300049
    """
    epsilon = checked_epsilon(epsilon)
    if epsilon > MAX_EPSILON:
        raise ValueError(f"epsilon is {epsilon} for one choice; expected {MAX_EPSILON} at most (use more blocks).")
    if not 1 <= subset_size < num_candidates:
        raise ValueError(f"The subset size is {subset_size} of {num_candidates} candidates; expected fewer.")
    inside, outside = subset_size, num_candidates - subset_size
    factor = exp_lower_bound(proved_value(epsilon))
    threshold = int(WORDS * factor * inside / (outside + factor * inside))
    holds = threshold * outside <= factor * inside * (WORDS - threshold)
    if not holds or (WORDS - threshold) * inside > factor * threshold * outside:
        raise ValueError(f"epsilon is {epsilon}, too small for 64-bit draws; use PriorOnly to release no content.")
    return threshold


def equal_share(epsilon: float, num_blocks: int) -> float:
    """Return the epsilon of each block, rounded down until the exact sum of what is proved of each is at most epsilon.

    Proved is the smaller of two readings, binary and decimal (``proved_value``), of shares and of epsilon alike; so a
    single block has epsilon itself.

    Args:
        epsilon: of all blocks together, above 0.
        num_blocks: 1 or more.

    Returns:
        A float next to the quotient.

    Example:
        >>> equal_share(20.0, 2)
        10.0
    """
    share = epsilon / num_blocks
    while num_blocks * Fraction(proved_value(share)) > Fraction(proved_value(epsilon)):
        share = math.nextafter(share, 0.0)
    return share
