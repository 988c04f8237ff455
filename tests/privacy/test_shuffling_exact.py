# SPDX-License-Identifier: Apache-2.0
"""Of a few people, whatever their inputs are, all outcomes of the shuffled mechanism can be added up."""

from __future__ import annotations

import math
from collections import defaultdict
from fractions import Fraction as F
from itertools import combinations, combinations_with_replacement

import pytest

from monai_cadp.privacy.shuffling import Subset, attained_epsilon, shuffled_delta
from monai_cadp.privacy.threshold import acceptance_threshold

# (N, m, people), with sets that are disjoint, that must overlap, and that fill more than half.
CASES = [(5, 1, 2), (6, 1, 3), (5, 1, 4), (6, 2, 3), (8, 2, 2), (5, 2, 3), (6, 3, 2), (5, 3, 3), (3, 2, 4), (2, 1, 4)]
LOCAL = [0.7, math.log(4.0), 3.0]


def chances(num, size, local):
    """The probabilities of a marked candidate and of another one, as the mechanism has them, and their denominator."""
    threshold = acceptance_threshold(local, num, size)
    return threshold * (num - size), (2**64 - threshold) * size, 2**64 * size * (num - size)


def with_one_more(law, marked, inside, outside):
    """The law of the histogram, in whole numbers, after one more release by somebody with a marked set."""
    longer = defaultdict(int)
    for histogram, weight in law.items():
        for place in range(len(histogram)):
            counts = histogram[:place] + (histogram[place] + 1,) + histogram[place + 1 :]
            longer[counts] += weight * (inside if place in marked else outside)
    return longer


def worst_delta(num, size, people, local, factor):
    """The largest delta over all inputs of all people. By symmetry the person's own set is the first."""
    inside, outside, whole = chances(num, size, local)
    sets = list(combinations(range(num), size))
    worst = 0
    for others in combinations_with_replacement(sets, people - 1):
        law = {(0,) * num: 1}
        for marked in others:
            law = with_one_more(law, marked, inside, outside)
        here, *elsewhere = (with_one_more(law, own, inside, outside) for own in sets)
        for there in elsewhere:
            gained = (factor.denominator * p - factor.numerator * there[outcome] for outcome, p in here.items())
            worst = max(worst, sum(gain for gain in gained if gain > 0))
    return F(worst, factor.denominator * whole**people)


@pytest.mark.parametrize(("num", "size", "people"), CASES)
@pytest.mark.parametrize("local", LOCAL)
def test_the_bound_holds_for_all_inputs_and_is_close_where_the_sets_are_small(num, size, people, local):
    for share in (0.0, 0.3, 0.6):
        epsilon = share * local
        worst = float(worst_delta(num, size, people, local, F(math.exp(epsilon))))
        bound = shuffled_delta(epsilon, local, people, Subset(num, size))
        assert worst <= bound * (1 + 1e-12)
        assert bound <= shuffled_delta(epsilon, local, people) * (1 + 1e-12)
        if 3 * size <= num:
            assert bound <= 1.2 * worst + 1e-15


@pytest.mark.parametrize(("num", "size", "people"), CASES)
def test_what_is_said_to_be_attained_is(num, size, people):
    local, delta = 3.0, 0.02
    epsilon = attained_epsilon(local, people, delta, Subset(num, size))
    assert worst_delta(num, size, people, local, F(math.exp(epsilon))) > delta * (1 - 1e-9)


@pytest.mark.parametrize("fault", ["a fifth more people", "a mechanism of a larger ratio", "counts of both sets only"])
def test_bounds_that_are_too_small_are_found_out(fault):
    """Negative controls: each would be taken for a proof if the comparison with all inputs did not fail."""
    num, size, people, local, epsilon = 5, 1, 5, math.log(4.0), math.log(1.5)
    worst = float(worst_delta(num, size, people, local, F(3, 2)))
    if fault == "a fifth more people":
        bound = shuffled_delta(epsilon, local, people + 1, Subset(num, size))
    elif fault == "a mechanism of a larger ratio":
        worst = float(worst_delta(num, size, people, local + 0.1, F(3, 2)))
        bound = shuffled_delta(epsilon, local, people, Subset(num, size))
    else:
        people = 3
        worst = float(worst_delta(num, size, people, local, F(5, 2)))
        inside, outside, whole = chances(num, size, local)
        bound = delta_of_both_counts(F(inside, whole), F(outside, whole), people, F(5, 2))
        assert (round(bound, 4), round(worst, 4)) == (0.0293, 0.0557)
    assert worst > bound * 1.001


def delta_of_both_counts(inside, outside, people, factor):
    """The pair of laws that knows how many releases lie in both marked sets of one candidate, and nothing else."""
    delta = F(0)
    for first in range(people + 1):
        for second in range(people + 1 - first):

            def before(a, b):
                if a < 0 or b < 0 or a + b > people - 1:
                    return F(0)
                rest = people - 1 - a - b
                ways = math.factorial(people - 1) // (math.factorial(a) * math.factorial(b) * math.factorial(rest))
                return ways * outside ** (a + b) * (1 - 2 * outside) ** rest

            one, two, none = before(first - 1, second), before(first, second - 1), before(first, second)
            same = (1 - inside - outside) * none
            here, there = inside * one + outside * two + same, outside * one + inside * two + same
            delta += max(here - factor * there, F(0))
    return float(delta)
