# SPDX-License-Identifier: Apache-2.0
"""The exponential function between two fractions, for comparisons that no rounding decides."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

__all__ = ["at_most_exp", "exp_enclosure", "log_above"]

BITS = 320
# log_above is right to this many decimals.
DECIMALS = 9


@lru_cache(maxsize=4096)
def exp_enclosure(x: Fraction) -> tuple[Fraction, Fraction]:
    r"""Return two fractions between which e^x lies.

    Proof. Let :math:`y = x / 2^r \le 1/2`. In multiples of :math:`2^{-320}`, the terms :math:`y^n / n!` of the Taylor
    series are rounded down for one sum and up for the other; the terms from :math:`y^n / n!` on add up to less than
    twice this one, because each is at most half of that before it. Then both sums are squared r times, rounded down
    and up again: all are positive, so the order is kept.

    Args:
        x: from 0 to 10,000.

    Returns:
        A lower and an upper bound, which differ by a relative :math:`2^{-280}` at most.

    Raises:
        ValueError: if x is out of its range.

    Example:
        >>> lower, upper = exp_enclosure(Fraction(1))
        >>> float(lower), 0 < upper - lower < Fraction(1, 2**280)
        (2.718281828459045, True)
    """
    if not 0 <= x <= 10_000:
        raise ValueError(f"The exponent is {float(x):g}; expected a number from 0 to 10000.")
    one = 1 << BITS
    halvings = 0
    while x / 2**halvings > Fraction(1, 2):
        halvings += 1
    y = x / 2**halvings
    low, high = math.floor(y * one), math.ceil(y * one)
    lower = upper = 0
    low_term = high_term = one
    number = 0
    while high_term > 1:
        lower, upper = lower + low_term, upper + high_term
        number += 1
        low_term, high_term = low_term * low // (one * number), -(-high_term * high // (one * number))
    upper += 2 * high_term
    for _ in range(halvings):
        lower, upper = lower * lower // one, -(-upper * upper // one)
    return Fraction(lower, one), Fraction(upper, one)


def at_most_exp(ratio: Fraction, epsilon: Fraction) -> bool:
    """Return whether a ratio is proved to be e^epsilon at most.

    Example:
        >>> at_most_exp(Fraction(2), Fraction("0.6931471806")), at_most_exp(Fraction(2), Fraction("0.6931471805"))
        (True, False)
    """
    return ratio <= exp_enclosure(epsilon)[0]


def log_above(ratio: Fraction) -> Fraction:
    """Return a decimal number that is not below the logarithm of a ratio, and less than 1e-8 above it.

    Args:
        ratio: 1 or more.

    Example:
        >>> log_above(Fraction(2))
        Fraction(693147181, 1000000000)
    """
    unit = 10**DECIMALS
    # Logarithms of integers, for the ratio may be larger than any float: only a proposal.
    proposal = math.log(ratio.numerator) - math.log(ratio.denominator)
    found = max(math.floor(proposal * unit) - 1, 0)
    while not at_most_exp(ratio, Fraction(found, unit)):
        found += 1
    return Fraction(found, unit)
