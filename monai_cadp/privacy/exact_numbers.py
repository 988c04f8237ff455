# SPDX-License-Identifier: Apache-2.0
"""The number that a person reads, and the number that a computer holds."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from functools import lru_cache

__all__ = ["as_read", "as_written", "proved_value", "rounded_up"]


@lru_cache(maxsize=4096)
def as_written(value: float) -> Fraction:
    """Return the decimal number that a float is written as: what a person has read, signed and adds up.

    Args:
        value: finite.

    Returns:
        The exact value of the shortest decimal that stands for the float.

    Example:
        >>> as_written(0.1) * 10 == 1, Fraction(0.1) * 10 == 1
        (True, False)
    """
    return Fraction(repr(float(value)))


def proved_value(value: float) -> Decimal:
    """Return the smaller of a float's binary value and the decimal that it is written as.

    A mechanism that is private for this value is so for both readings of its epsilon, and both may be added up.

    Args:
        value: finite.

    Returns:
        An exact decimal number, not above the float and not above :func:`as_written`.

    Example:
        >>> proved_value(0.1)
        Decimal('0.1')
        >>> Fraction(proved_value(0.3)) == Fraction(0.3) < as_written(0.3)
        True
    """
    return min(Decimal(float(value)), Decimal(repr(float(value))))


def rounded_up(value: Fraction) -> float:
    """Return a float next to a value that, as it is written, is not below it.

    Args:
        value: 0 or more; above the largest float the result is infinite.

    Example:
        >>> rounded_up(as_written(0.1) + as_written(0.2))
        0.3
    """
    try:
        total = float(value)
    except OverflowError:
        return math.inf
    while math.isfinite(total) and as_written(total) < value:
        total = math.nextafter(total, math.inf)
    return total


def as_read(value: float, digits: int = 6) -> str:
    """Return a number as people read it: of so many digits at most, and not below the number as it is written.

    Args:
        value: an epsilon, a delta or another bound; what is understated would promise more than is kept.
        digits: at most.

    Example:
        >>> as_read(4.0), as_read(1e-06), as_read(0.9072590, digits=3)
        ('4', '1e-06', '0.908')
    """
    up = Context(digits, ROUND_CEILING).plus(Decimal(repr(float(value))))
    return f"{float(up):.{digits}g}"
