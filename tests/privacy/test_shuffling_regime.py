# SPDX-License-Identifier: Apache-2.0
"""Shuffling counts where its theorem holds and nowhere else, and is as sharp as its numbers allow."""

from __future__ import annotations

import math
import re

import pytest

from monai_cadp.privacy.shuffling import shuffled_delta, shuffled_epsilon


@pytest.mark.parametrize(("num", "delta"), [(500, 1e-3), (10_000, 1e-6), (10**6, 1e-9)])
def test_the_condition_of_the_theorem_is_kept_on_both_sides_of_its_edge(refused, num, delta):
    largest = math.log(num / (8 * math.log(2 / delta)) - 1)
    assert 0 < shuffled_epsilon(largest * (1 - 1e-9), num, delta) < largest
    with refused(ValueError, "too few to count as shuffled"):
        shuffled_epsilon(largest * (1 + 1e-9), num, delta)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.01, 1e-2), (1.0, 1e-5), (5.0, 1e-8)])
def test_the_number_that_a_refusal_asks_for_is_enough_and_hardly_more(epsilon, delta):
    with pytest.raises(ValueError, match="too few") as caught:
        shuffled_epsilon(epsilon, 2, delta)
    asked = float(re.search(r"about (\S+) or more", str(caught.value)).group(1))
    # It is stated in three digits.
    assert shuffled_epsilon(epsilon, math.ceil(asked * 1.006), delta) < epsilon
    with pytest.raises(ValueError, match="too few"):
        shuffled_epsilon(epsilon, math.floor(asked * 0.994), delta)


@pytest.mark.parametrize(("epsilon", "num", "delta"), [(0.5, 1_000, 1e-5), (2.0, 5_000, 1e-6), (4.0, 10_000, 1e-6)])
def test_the_epsilon_is_the_smallest_that_the_numbers_prove(epsilon, num, delta):
    found = shuffled_epsilon(epsilon, num, delta)
    assert shuffled_delta(found, epsilon, num) <= delta < shuffled_delta(found * (1 - 2e-4), epsilon, num)


def test_at_the_local_epsilon_nothing_is_left_to_delta_and_below_it_something():
    assert shuffled_delta(1.0, 1.0, 100) == 0.0 == shuffled_delta(1.1, 1.0, 100)
    assert shuffled_delta(0.9, 1.0, 2) > 0


def test_of_two_people_delta_is_what_can_be_counted_by_hand():
    """One other person, a clone with probability q: (1 - q) TV of one answer, q of one among two."""
    local = 1.0
    p, q = 1 / (1 + math.exp(-local)), 2 / (math.exp(local) + 1)
    expected = (1 - q) * (2 * p - 1) + q * (2 * p - 1) / 2
    assert expected <= shuffled_delta(0.0, local, 2) <= expected * (1 + 1e-9)
