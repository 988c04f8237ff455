# SPDX-License-Identifier: Apache-2.0
"""A release that hides among others is worth a smaller epsilon, and never a smaller one than is proved."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from monai_cadp.privacy import GaussianMechanism, PriorOnly, PrivacyGuarantee, SubsetSelection
from monai_cadp.privacy.shuffling import shuffled_delta, shuffled_epsilon


def delta_by_enumeration(epsilon, local_epsilon, num):
    """The divergence of the two laws of (clones, count of the first kind), every outcome listed."""
    share, p = 2 / (math.exp(local_epsilon) + 1), 1 / (1 + math.exp(-local_epsilon))
    total = 0.0
    for clones in range(num):
        count = np.arange(clones + 2)
        before, same = binom.pmf(count - 1, clones, 0.5), binom.pmf(count, clones, 0.5)
        here, there = p * before + (1 - p) * same, (1 - p) * before + p * same
        total += binom.pmf(clones, num - 1, share) * np.maximum(here - math.exp(epsilon) * there, 0).sum()
    return total


@pytest.mark.parametrize(
    ("epsilon", "local_epsilon", "num"), [(0.0, 1.0, 20), (0.3, 1.0, 50), (0.8, 2.0, 200), (1.5, 3.0, 300)]
)
def test_the_numerical_bound_is_the_divergence_and_not_below_it(epsilon, local_epsilon, num):
    exact = delta_by_enumeration(epsilon, local_epsilon, num)
    assert exact <= shuffled_delta(epsilon, local_epsilon, num) <= exact * 1.0001 + 1e-15


def test_the_closed_form_of_the_paper_is_never_exceeded():
    for local_epsilon, num, delta in [(4.0, 10_000, 1e-6), (1.0, 1_000, 1e-5), (0.1, 500, 1e-4), (6.0, 10**6, 1e-8)]:
        spread = 4 * math.sqrt(2 * math.log(4 / delta)) / math.sqrt((math.exp(local_epsilon) + 1) * num)
        closed = math.log1p(math.expm1(local_epsilon) * (spread + 4 / num))
        found = shuffled_epsilon(local_epsilon, num, delta)
        assert 0 < found <= closed
        assert shuffled_delta(found, local_epsilon, num) <= delta
    assert closed_form_of_the_design() == pytest.approx(0.96, abs=0.005)


def closed_form_of_the_design():
    spread = 4 * math.sqrt(2 * math.log(4e6)) / math.sqrt((math.exp(4) + 1) * 1e4)
    return math.log1p(math.expm1(4) * (spread + 4e-4))


def test_binary_randomized_responses_reach_the_bound_to_a_tenth():
    """The set of n answers is their count; replacing one person's answer is told apart nearly as well as is allowed."""
    local_epsilon, num, delta = 1.0, 400, 1e-4
    keep = 1 / (1 + math.exp(-local_epsilon))

    def law(ones):
        zeros = num - ones
        return np.convolve(binom.pmf(np.arange(ones + 1), ones, keep), binom.pmf(np.arange(zeros + 1), zeros, 1 - keep))

    here, there = law(num // 2), law(num // 2 - 1)
    epsilon = shuffled_epsilon(local_epsilon, num, delta)
    assert np.maximum(here - math.exp(epsilon) * there, 0).sum() <= delta
    assert np.maximum(here - math.exp(0.3 * epsilon) * there, 0).sum() > delta


def test_more_people_and_larger_deltas_hide_better():
    assert shuffled_epsilon(2.0, 10_000, 1e-6) < shuffled_epsilon(2.0, 2_000, 1e-6)
    assert shuffled_epsilon(2.0, 2_000, 1e-5) < shuffled_epsilon(2.0, 2_000, 1e-7)


@pytest.mark.parametrize(("epsilon", "num"), [(4.0, 1000), (8.0, 10_000), (1.0, 100), (700.0, 10**9)])
def test_sets_that_are_too_small_are_refused(refused, epsilon, num):
    with refused(ValueError, "too few to count as shuffled"):
        shuffled_epsilon(epsilon, num, 1e-6)


@pytest.mark.parametrize("num", [0, 1, 2.5, True, "many"])
def test_a_number_of_releases_that_is_none_is_refused(refused, num):
    with refused(ValueError, "number of releases is"):
        shuffled_epsilon(1.0, num, 1e-6)


def test_a_shuffled_guarantee_is_a_document_like_any_other_and_says_for_whom_it_holds():
    local = SubsetSelection(4.0).guarantee(unit="patient", public=("label",))
    central = local.shuffled(10_000, 1e-6)
    assert central.mechanism == "shuffle" and central.unit == "patient" and central.public == ("label",)
    assert central.epsilon < 0.5 and central.delta == 1e-6
    assert PrivacyGuarantee.from_json(central.to_json()) == central
    assert "those who see the set alone" in central.explain()
    assert "epsilon = 4" in central.explain()


def test_only_pure_guarantees_are_shuffled(refused):
    with refused(ValueError, "only pure releases"):
        GaussianMechanism(1.0, 1e-6, 1.0).guarantee().shuffled(10_000, 1e-6)
    assert PriorOnly().guarantee().shuffled(10, 1e-6).epsilon == 0.0
