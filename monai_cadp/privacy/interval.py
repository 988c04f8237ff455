# SPDX-License-Identifier: Apache-2.0
"""Real numbers between two decimal ones, and the normal distribution function of them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction

__all__ = ["Interval", "exponential", "normal_distribution"]

DIGITS = 60
DOWN, UP = (Context(DIGITS, rounding, Emin=-(10**9), Emax=10**9) for rounding in (ROUND_FLOOR, ROUND_CEILING))
PI = Decimal("3.141592653589793238462643383279502884197169399375105820974944592307")
# Up to here a series is summed; beyond, a continued fraction.
SERIES_UP_TO = 4
SERIES_TERMS, FRACTION_TERMS = 120, 120


@dataclass(frozen=True)
class Interval:
    """A real number that is not known, between two that are.

    Every operation returns an interval that holds its result, whatever the numbers in its arguments are: lower ends
    are rounded down and upper ends up, in decimal arithmetic of 60 digits, whose roundings IEEE 854 defines.

    Args:
        lower: not above the number.
        upper: not below the number.

    Example:
        >>> third = Interval.of(1) / Interval.of(3)
        >>> Fraction(third.lower) < Fraction(1, 3) < Fraction(third.upper)
        True
    """

    lower: Decimal
    upper: Decimal

    @staticmethod
    def of(value: int | float | Decimal | Fraction) -> Interval:
        """Return the interval of a number that is known exactly."""
        exact = Fraction(value)
        ends = [context.divide(Decimal(exact.numerator), Decimal(exact.denominator)) for context in (DOWN, UP)]
        return Interval(*ends)

    def __add__(self, other: Interval) -> Interval:
        return Interval(DOWN.add(self.lower, other.lower), UP.add(self.upper, other.upper))

    def __neg__(self) -> Interval:
        return Interval(self.upper.copy_negate(), self.lower.copy_negate())

    def __sub__(self, other: Interval) -> Interval:
        return self + -other

    def __mul__(self, other: Interval) -> Interval:
        ends = [(a, b) for a in (self.lower, self.upper) for b in (other.lower, other.upper)]
        return Interval(min(DOWN.multiply(*pair) for pair in ends), max(UP.multiply(*pair) for pair in ends))

    def __truediv__(self, other: Interval) -> Interval:
        if other.lower <= 0 <= other.upper:
            raise ZeroDivisionError("The divisor may be 0.")
        one = Decimal(1)
        return self * Interval(DOWN.divide(one, other.upper), UP.divide(one, other.lower))


def exponential(x: Interval) -> Interval:
    """Return e^x; decimal's own function is right to the last digit, so that the neighbours of its results enclose.

    Example:
        >>> float(exponential(Interval.of(1)).lower)
        2.718281828459045
    """
    return Interval(DOWN.next_minus(DOWN.exp(x.lower)), UP.next_plus(UP.exp(x.upper)))


def normal_distribution(x: Interval) -> Interval:
    r"""Return :math:`\Phi(x)`, the standard normal distribution function.

    It rises, so its values at the ends enclose it. With :math:`\phi(x) = e^{-x^2/2} / \sqrt{2 \pi}` and :math:`x > 0`

    .. math:: \Phi(x) - \tfrac12 = \phi(x) \sum_{n \ge 0} \frac{x^{2 n + 1}}{1 \cdot 3 \cdots (2 n + 1)}
              \quad (x \le 4), \qquad
              1 - \Phi(x) = \phi(x) \cfrac{1}{x + \cfrac{1}{x + \cfrac{2}{x + \cdots}}} \quad (x > 4).

    All terms of the series are positive; what follows 120 of them is below a geometric series of the ratio :math:`x^2 /
    241 \le 1/15`, so twice the last term covers it. The tail of the continued fraction lies between 0 and
    infinity, so two evaluations that cut it off one level apart enclose it.

    References:
        Abramowitz, Stegun: Handbook of mathematical functions, 1964, formulas 26.2.11 and 26.2.14.

    Example:
        >>> round(float(normal_distribution(Interval.of(-2)).lower), 12)
        0.022750131948
    """
    return Interval(_at(x.lower).lower, _at(x.upper).upper)


def _at(x: Decimal) -> Interval:
    one, half = Interval.of(1), Interval.of(Fraction(1, 2))
    size = Interval(x.copy_abs(), x.copy_abs())
    two_pi = Interval(DOWN.multiply(PI, Decimal(2)), UP.multiply(UP.next_plus(PI), Decimal(2)))
    root = Interval(DOWN.next_minus(DOWN.sqrt(two_pi.lower)), UP.next_plus(UP.sqrt(two_pi.upper)))
    density = exponential(-(size * size) * half) / root
    if size.upper <= SERIES_UP_TO:
        inside = half + density * _series(size)
        return inside if x >= 0 else one - inside
    beyond = density * _mills_ratio(size)
    return one - beyond if x > 0 else beyond


def _series(x: Interval) -> Interval:
    square = x * x
    term, total = x, x
    for n in range(1, SERIES_TERMS):
        term = term * square / Interval.of(2 * n + 1)
        total = total + term
    return total + Interval(Decimal(0), UP.multiply(Decimal(2), term.upper))


def _mills_ratio(x: Interval) -> Interval:
    found = []
    for terms in (FRACTION_TERMS, FRACTION_TERMS + 1):
        value = x
        for n in range(terms, 0, -1):
            value = x + Interval.of(n) / value
        found.append(Interval.of(1) / value)
    return Interval(min(one.lower for one in found), max(one.upper for one in found))
