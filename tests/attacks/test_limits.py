# SPDX-License-Identifier: Apache-2.0
"""The limits of attackers are the largest that a guarantee allows: no smaller, and no larger."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from monai_cadp.attacks import largest_top_1, success_limit
from monai_cadp.privacy import largest_auc

SHARES = [[1, 1], [3, 1, 1], [5, 4, 1, 1, 1], [10, 1, 1, 1, 1, 1, 1, 1]]


def best_attack(epsilon, delta, shares):
    """The largest chance to name the right one, over all ways in which people may be named that keep the promise.

    One probability for each person and name, and one slack for each person, other person and name.
    """
    count = len(shares)
    place = np.arange(count * count).reshape(count, count)
    pairs = [(p, q, name) for p in range(count) for q in range(count) if p != q for name in range(count)]
    gain = np.zeros(count * count + len(pairs))
    gain[np.diag(place)] = np.array(shares) / sum(shares)
    promises = np.zeros((len(pairs), len(gain)))
    total = np.zeros((count * count, len(gain)))
    for row, (p, q, name) in enumerate(pairs):
        # What is above e^epsilon times the other's is at most delta, over all names together.
        promises[row, [place[p, name], place[q, name], count * count + row]] = 1, -math.exp(epsilon), -1
        total[p * count + q, count * count + row] = 1
    sums = np.zeros((count, len(gain)))
    for p in range(count):
        sums[p, place[p]] = 1
    solved = linprog(
        -gain,
        A_ub=np.concatenate([promises, total]),
        b_ub=np.concatenate([np.zeros(len(pairs)), np.full(count * count, delta)]),
        A_eq=sums,
        b_eq=np.ones(count),
    )
    return -solved.fun


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 3.0])
def test_the_best_attack_of_all_reaches_the_limit_and_no_more(epsilon, shares):
    assert best_attack(epsilon, 0.0, shares) == pytest.approx(largest_top_1(epsilon, torch.tensor(shares)), abs=1e-7)


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.1), (1.0, 0.01), (2.0, 0.2)])
def test_no_attack_passes_the_limit_where_delta_is_spent(epsilon, delta, shares):
    assert best_attack(epsilon, delta, shares) <= largest_top_1(epsilon, torch.tensor(shares), delta) + 1e-7


def test_of_people_who_are_equally_likely_it_is_the_limit_of_candidates():
    for epsilon in (0.0, 1.0, 4.0, math.inf):
        assert largest_top_1(epsilon, torch.ones(10)) == pytest.approx(success_limit(epsilon, 10))


def test_two_people_are_told_apart_as_well_as_the_area_says():
    for epsilon in (0.0, 1.0, 4.0, 2000.0, math.inf):
        assert largest_top_1(epsilon, torch.ones(2)) == pytest.approx(largest_auc(epsilon))


@pytest.mark.parametrize(("epsilon", "delta"), [(-1.0, 0.0), (math.nan, 0.0), (1.0, 1.0), (1.0, -0.1)])
def test_what_is_no_guarantee_has_no_limit(refused, epsilon, delta):
    with refused(ValueError, "expected 0 or more"):
        largest_top_1(epsilon, torch.ones(2), delta)


@pytest.mark.parametrize("shares", [torch.empty(0), torch.tensor([1, 0]), torch.ones(2, 2)])
def test_nobody_has_no_limit(refused, shares):
    with refused(ValueError, "expected positive numbers"):
        largest_top_1(1.0, shares)
