# SPDX-License-Identifier: Apache-2.0
"""A number for the whole set gives the mechanism of one release that keeps it, with as much content as it can."""

from __future__ import annotations

import math
from bisect import bisect

import pytest
import torch

from monai_cadp.privacy import SubsetSelection
from monai_cadp.privacy.set_calibration import expected_fidelity, fit_to_set
from monai_cadp.privacy.shuffling import Subset, shuffled_epsilon


@pytest.mark.slow
@pytest.mark.parametrize(("set_epsilon", "num"), [(1.0, 1_000), (0.5, 1_000), (1.0, 10_000), (1.0, 100), (0.2, 50)])
def test_the_set_has_the_epsilon_that_was_asked_for_and_hardly_less(set_epsilon, num):
    epsilon, size = fit_to_set(set_epsilon, num, 1e-6)
    assert epsilon >= set_epsilon
    found = shuffled_epsilon(epsilon, num, 1e-6, Subset(2**14, size))
    assert 0.99 * set_epsilon < found <= set_epsilon
    # The next steps of the local epsilon are too large: the search stops where it must.
    assert shuffled_epsilon(epsilon + 0.01, num, 1e-6, Subset(2**14, size)) > set_epsilon


def test_more_people_allow_more_content():
    fits = [fit_to_set(1.0, num, 1e-6) for num in (30, 1_000, 30_000)]
    kept = [expected_fidelity(local, Subset(2**14, size)) for local, size in fits]
    assert kept[0] * 1.5 < kept[1] < kept[2] / 1.5


def test_the_size_keeps_more_than_the_one_that_a_ratio_suggests():
    """N / (e^epsilon + 1) gives a larger local epsilon for the same set, and less of the content."""
    epsilon, size = fit_to_set(1.0, 1_000, 1e-6)
    other = 4.107
    suggested = Subset(2**14, round(2**14 / (math.exp(other) + 1)))
    assert shuffled_epsilon(other + 0.01, 1_000, 1e-6, suggested) > 1.0
    assert expected_fidelity(epsilon, Subset(2**14, size)) > 1.1 * expected_fidelity(other, suggested)


@pytest.mark.parametrize("num_candidates", [12, 24])
def test_no_other_size_keeps_a_hundredth_more(num_candidates):
    """Every other size would need a local epsilon for it with which the set gives away too much."""
    local, size = fit_to_set(1.0, 20, 1e-6, num_candidates=num_candidates)
    kept = expected_fidelity(local, Subset(num_candidates, size))
    for other in range(1, num_candidates):
        subset = Subset(num_candidates, other)
        needed = bisect(range(10_000), 1.01 * kept, key=lambda k, subset=subset: expected_fidelity(k / 1000, subset))
        assert shuffled_epsilon(needed / 1000, 20, 1e-6, subset) > 1.0


def test_the_expected_fidelity_is_the_mean_of_what_the_mechanism_releases():
    torch.manual_seed(0)
    epsilon, subset = 3.0, Subset(2_000, 120)
    scores = torch.randn(200_000 // 100, 2_000).sort(descending=True).values.mean(0)
    chance = 120 * math.exp(epsilon) / (120 * math.exp(epsilon) + 1_880)
    mean = chance * scores[:120].mean() + (1 - chance) * scores[120:].mean()
    assert expected_fidelity(epsilon, subset) == pytest.approx(float(mean), rel=0.01)


def test_a_set_of_two_has_the_epsilon_of_its_members():
    epsilon, _ = fit_to_set(1.0, 2, 1e-9)
    assert epsilon == pytest.approx(1.0, abs=0.002)


def test_the_mechanism_for_a_set_says_so_in_its_guarantee():
    mechanism = SubsetSelection.for_set(set_epsilon=1.0, num_releases=1_000, delta=1e-6).configured(16)
    local = mechanism.guarantee(unit="patient")
    whole = local.shuffled(1_000, 1e-6)
    assert local.epsilon > 3 and 0.99 < whole.epsilon <= 1.0 and whole.unit == "patient"
    # One person fewer, and the set is not what was asked for: the number of people is a part of the promise.
    assert local.shuffled(900, 1e-6).epsilon > 1.0
    assert mechanism(torch.randn(4, 16)).shape == (4, 16)


@pytest.mark.parametrize("wrong", [{"set_epsilon": 0.0}, {"num_releases": 1}, {"delta": 1.0}, {"num_candidates": 1}])
def test_numbers_that_promise_nothing_are_refused(refused, wrong):
    with refused(ValueError, "expected"):
        SubsetSelection.for_set(**{"set_epsilon": 1.0, "num_releases": 1_000, "delta": 1e-6} | wrong)


def test_one_epsilon_is_stated_that_of_a_release_or_that_of_a_set(refused):
    assert SubsetSelection.stated(epsilon=4.0).parameters() == SubsetSelection(4.0).parameters()
    fitted = SubsetSelection.stated(set_epsilon=1.0, num_releases=1_000, set_delta=1e-6)
    assert (fitted.epsilon, fitted.subset_size) == fit_to_set(1.0, 1_000, 1e-6)
    with refused(ValueError, "Both epsilon and set_epsilon"):
        SubsetSelection.stated(epsilon=4.0, set_epsilon=1.0, num_releases=1_000, set_delta=1e-6)
    with refused(ValueError, "number of patients and set_delta"):
        SubsetSelection.stated(set_epsilon=1.0, set_delta=1e-6)
    with refused(ValueError, "epsilon"):
        SubsetSelection.stated()


@pytest.mark.parametrize("num_candidates", [2, 3, 5])
def test_among_few_candidates_the_marked_set_has_a_member_still(num_candidates):
    epsilon, size = fit_to_set(6.0, 2, 1e-9, num_candidates=num_candidates)
    assert size == 1 and epsilon >= 6.0
