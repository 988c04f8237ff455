# SPDX-License-Identifier: Apache-2.0
"""What a set is worth is as sharp as its numbers allow, at every size."""

from __future__ import annotations

import math

import pytest

from monai_cadp.privacy.shuffling import Subset, attained_epsilon, shuffled_delta, shuffled_epsilon


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epsilon", "num", "delta"),
    [(0.5, 1_000, 1e-5), (2.0, 5_000, 1e-6), (4.0, 10_000, 1e-6), (2.0, 10_000, 1e-30), (1.0, 6_000, 1e-100)],
)
@pytest.mark.parametrize("subset", [None, Subset(1_000, 120)])
def test_the_epsilon_is_the_smallest_that_the_numbers_prove(epsilon, num, delta, subset):
    found = shuffled_epsilon(epsilon, num, delta, subset)
    below = shuffled_delta(found * (1 - 2e-4), epsilon, num, subset)
    assert shuffled_delta(found, epsilon, num, subset, lost=1e-6 * delta) <= delta < below


def test_at_the_local_epsilon_nothing_is_left_to_delta_and_below_it_something():
    assert shuffled_delta(1.0, 1.0, 100) == 0.0 == shuffled_delta(1.1, 1.0, 100)
    assert shuffled_delta(0.9, 1.0, 2) > 0


def test_of_two_people_delta_is_what_can_be_counted_by_hand():
    """One other person, a clone with probability q: (1 - q) TV of one answer, q of one among two."""
    local = 1.0
    p, q = 1 / (1 + math.exp(-local)), 2 / (math.exp(local) + 1)
    expected = (1 - q) * (2 * p - 1) + q * (2 * p - 1) / 2
    assert expected <= shuffled_delta(0.0, local, 2) <= expected * (1 + 1e-9)


def test_sets_of_more_than_ten_million_have_the_closed_form_or_count_as_ten_million():
    spread = 4 * math.sqrt(2 * math.log(4e6)) / math.sqrt((math.exp(9.0) + 1) * 1e12)
    closed = math.log1p(math.expm1(9.0) * (spread + 4e-12))
    assert closed < shuffled_epsilon(9.0, 10**12, 1e-6) <= closed * (1 + 1e-14)
    subset = Subset(2**14, 2)
    assert shuffled_epsilon(9.0, 10**7 + 1, 1e-6, subset) == shuffled_epsilon(9.0, 10**7, 1e-6, subset)


def test_the_closed_form_is_given_up_to_the_epsilon_for_which_it_is_proved_and_not_above():
    """At such a delta nothing else is known of a set."""
    num, delta = 100_000, 1e-300
    largest = math.log(num / (8 * math.log(2 / delta)) - 1)
    assert shuffled_epsilon(largest * (1 - 1e-12), num, delta) < 0.5 * largest
    assert shuffled_epsilon(largest * (1 + 1e-12), num, delta) > largest


@pytest.mark.parametrize("epsilon", [1e-15, 1e-9, 1e-5])
def test_a_tiny_epsilon_is_never_made_larger(epsilon):
    assert 0 <= shuffled_epsilon(epsilon, 10, 1e-12, Subset(100, 3)) <= epsilon


@pytest.mark.parametrize("subset", [None, Subset(64, 6)])
def test_a_delta_that_floats_cannot_hold_hides_nobody(subset):
    assert shuffled_epsilon(2.0, 1_000, 1e-300, subset) == 2.0
    assert attained_epsilon(2.0, 1_000, 1e-300, Subset(64, 6)) == 0.0


def test_below_an_epsilon_of_0_nothing_is_proved(refused):
    with refused(ValueError, "expected 0 or more"):
        shuffled_delta(-0.1, 1.0, 10)


def test_a_delta_above_all_that_can_be_told_needs_no_epsilon():
    assert shuffled_epsilon(0.1, 1_000, 0.1) == 0.0
