# SPDX-License-Identifier: Apache-2.0
"""Intervals hold the real numbers that they stand for."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_cadp.privacy.interval import Interval, exponential, normal_distribution

NUMBERS = st.fractions(min_value=-50, max_value=50, max_denominator=10**9)


def holds(interval: Interval, value: Fraction) -> bool:
    return Fraction(interval.lower) <= value <= Fraction(interval.upper)


@given(NUMBERS, NUMBERS)
def test_sums_products_and_quotients_hold_the_exact_ones(a, b):
    x, y = Interval.of(a), Interval.of(b)
    assert holds(x + y, a + b) and holds(x - y, a - b) and holds(x * y, a * b)
    if b:
        assert holds(x / y, a / b)


def test_a_divisor_that_may_be_zero_is_refused():
    with pytest.raises(ZeroDivisionError):
        Interval.of(1) / Interval(Decimal(-1), Decimal(1))
    for low, high in (("-0.5", "0.5"), ("0", "0.5"), ("-0.5", "0")):
        with pytest.raises(ZeroDivisionError):
            Interval.of(1) / Interval(Decimal(low), Decimal(high))


def taylor(x: Fraction) -> Fraction:
    """The normal distribution function by another series, in exact fractions but for pi, for |x| up to 6."""
    term, total, n = x, x, 0
    while abs(term) > Fraction(1, 10**75):
        n += 1
        term = Fraction(round(-term * x * x / (2 * n) * 10**90), 10**90)
        total += term / (2 * n + 1)
    with localcontext() as context:
        context.prec = 90
        pi = Decimal("3.1415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253421")
        return Fraction(1, 2) + total / Fraction((2 * pi).sqrt())


@pytest.mark.parametrize("x", [-5.9, -4.0, -3.9999, -1 / 3, -1e-3, 0.0, 0.1, 0.3, 2.7, 4.0, 4.0001, 5.5])
def test_the_normal_distribution_is_held_and_known_to_many_digits(x):
    found = normal_distribution(Interval.of(x))
    assert holds(found, taylor(Fraction(x)))
    assert found.upper - found.lower < Decimal("1e-38")


@pytest.mark.parametrize("x", [-200.7, -37.5, -10.1, 12.3])
def test_far_tails_are_held(x):
    """Between the bounds of Mills' ratio, x / (1 + x^2) and 1 / x, and above 0."""
    found, size = normal_distribution(Interval.of(-abs(x))), Fraction(abs(x))
    with localcontext() as context:
        context.prec = 60
        density = Fraction((-Decimal(x) * Decimal(x) / 2).exp() / (2 * Decimal("3.14159265358979323846")).sqrt())
    assert density * size / (1 + size**2) < Fraction(found.lower) <= Fraction(found.upper) < density / size


def test_the_exponential_is_held():
    assert float(exponential(Interval.of(Fraction(1, 3))).lower) == math.exp(1 / 3)
    assert exponential(Interval.of(0)).lower < 1 < exponential(Interval.of(0)).upper
