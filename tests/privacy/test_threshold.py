# SPDX-License-Identifier: Apache-2.0
"""The threshold keeps the promise in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_cadp.privacy.threshold import acceptance_threshold, equal_share, exp_lower_bound

WORDS = 2**64


def exp_bounds(epsilon: float | Fraction) -> tuple[Fraction, Fraction]:
    """Enclose e^epsilon by the Taylor series of e^(epsilon / 2^10), in exact fractions."""
    x = Fraction(epsilon) / 2**10
    term, total = Fraction(1), Fraction(0)
    for n in range(1, 24):
        total += term
        term = term * x / n
    remainder = 2 * term  # x < 1/2, so the tail is below twice its first term
    low, high = total, total + remainder
    scale = 2**400
    for _ in range(10):
        low = Fraction(int(low * low * scale), scale)
        high = Fraction(int(high * high * scale) + 1, scale)
    return low, high


def both_readings(epsilon: float) -> Fraction:
    """The smaller of the binary float and the decimal number that it is written as."""
    return min(Fraction(epsilon), Fraction(repr(epsilon)))


@st.composite
def choices(draw):
    num = draw(st.integers(2, 2**20))
    return num, draw(st.integers(1, num - 1)), draw(st.floats(1e-4, 40.0))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(choices())
def test_neither_ratio_ever_exceeds_e_to_the_epsilon(choice):
    num, size, epsilon = choice
    threshold = acceptance_threshold(epsilon, num, size)
    inside = Fraction(threshold, WORDS) / size
    outside = Fraction(WORDS - threshold, WORDS) / (num - size)
    bound = exp_bounds(both_readings(epsilon))[0]
    assert inside <= bound * outside
    assert outside <= bound * inside


@settings(derandomize=True, deadline=None, max_examples=150)
@given(choices())
def test_the_threshold_is_the_largest_that_keeps_the_promise(choice):
    num, size, epsilon = choice
    threshold = acceptance_threshold(epsilon, num, size) + 1
    inside = Fraction(threshold, WORDS) / size
    outside = Fraction(WORDS - threshold, WORDS) / (num - size)
    assert inside > exp_bounds(both_readings(epsilon))[1] * outside


def test_a_threshold_rounded_to_the_nearest_float_would_break_the_promise():
    broken = 0
    for size in range(1, 50):
        exact = acceptance_threshold(1.0, 100, size)
        broken += round(float(Fraction(exact, WORDS)) * WORDS) > exact
    assert broken > 0


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.floats(0.0, 40.0))
def test_the_exponential_is_never_overstated_and_tight(epsilon):
    low, high = exp_bounds(epsilon)
    bound = exp_lower_bound(epsilon)
    assert bound <= high
    assert bound >= low * (1 - Fraction(1, 10**40))


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf"), True, "1", 40.1, None])
def test_an_epsilon_out_of_range_is_refused_in_one_sentence(epsilon):
    with pytest.raises(ValueError, match=r"^[^.]*epsilon is .*\.$"):
        acceptance_threshold(epsilon, 10, 2)


@pytest.mark.parametrize("size", [0, 10, 11, -1])
def test_a_subset_of_none_or_all_is_refused(size):
    with pytest.raises(ValueError, match="subset size"):
        acceptance_threshold(1.0, 10, size)


def test_an_epsilon_that_64_bits_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="too small for 64-bit draws"):
        acceptance_threshold(1e-19, 2**20 - 1, 1)


@pytest.mark.parametrize("epsilon", [0.1, 3.3, 16.1, 20.1, 33.3, 40.0])
def test_one_block_has_all_of_epsilon(epsilon):
    """What a set is counted by is the threshold of a mechanism with blocks, of declared content and of labels alike."""
    assert equal_share(epsilon, 1) == epsilon


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.floats(1e-4, 400.0), st.integers(1, 1000))
def test_shares_together_are_proved_for_no_more_than_epsilon(epsilon, blocks):
    share = equal_share(epsilon, blocks)
    assert blocks * both_readings(share) <= both_readings(epsilon)
    assert share == pytest.approx(epsilon / blocks, rel=1e-15)
