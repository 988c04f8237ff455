# SPDX-License-Identifier: Apache-2.0
"""A release that hides among others is worth a smaller epsilon, and never a smaller one than is proved."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from monai_cadp.privacy import (
    GaussianMechanism,
    PriorOnly,
    PrivacyGuarantee,
    RandomizedResponse,
    SubsetSelection,
    compose,
)
from monai_cadp.privacy.shuffling import Subset, attained_epsilon, shuffled_delta, shuffled_epsilon
from monai_cadp.privacy.threshold import acceptance_threshold


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


@pytest.mark.parametrize(("epsilon", "num"), [(4.0, 2), (8.0, 3), (12.0, 10_000), (700.0, 10**9)])
def test_sets_that_hide_nobody_have_the_epsilon_of_a_single_release(epsilon, num):
    assert 0.999 * epsilon < shuffled_epsilon(epsilon, num, 1e-6) <= epsilon


@pytest.mark.parametrize(
    ("local", "num", "size", "stated"),
    [
        (4.0, 10_000, 1111, 0.37),  # the size that fits an epsilon of 4 best
        (4.0, 10_000, 295, 0.29),  # N / (e^4 + 1)
        (8.0, 10_000, 61, 3.75),
        (8.0, 10_000, 5, 1.84),
        (4.0, 1_000, 1111, 1.41),
        (4.0, 1_000, 295, 0.95),
        (1.0, 1_000, 4406, 0.13),
    ],
)
def test_both_bounds_of_subset_selection_are_small_and_next_to_each_other(local, num, size, stated):
    subset = Subset(2**14, size)
    low, high = attained_epsilon(local, num, 1e-6, subset), shuffled_epsilon(local, num, 1e-6, subset)
    assert 0.9 * stated < low <= high <= stated
    assert high <= 1.002 * low


def test_the_bounds_are_five_hundredths_apart_where_three_marked_sets_overlap_a_little():
    subset = SubsetSelection(1.0).configured(16).guarantee()._subset()
    assert 3 * subset.subset_size > subset.num_candidates
    assert shuffled_epsilon(1.0, 1_000, 1e-6, subset) <= 1.05 * attained_epsilon(1.0, 1_000, 1e-6, subset)


def test_a_game_wins_what_is_said_to_be_attained_and_not_more_than_the_bound():
    """All others mark one set; whose set the person has is guessed from the likelihood of the whole histogram."""
    local, num, subset, epsilon, games = 3.0, 40, Subset(12, 2), 0.8, 200_000
    threshold = acceptance_threshold(local, *subset) / 2**64
    inside, outside = threshold / 2, (1 - threshold) / 10
    one, two, others = (np.full(12, outside) for _ in range(3))
    one[:2] = two[2:4] = others[4:6] = inside
    rng = np.random.default_rng(0)
    counts = rng.multinomial(num - 1, others, games)
    won = []
    for law in (one, two):
        histogram = counts + rng.multinomial(1, law, games)
        score = histogram @ ((one - math.exp(epsilon) * two) / others)
        won.append((score > 0).mean())
    gained = won[0] - math.exp(epsilon) * won[1]
    error = 4 * math.sqrt((won[0] + math.exp(2 * epsilon) * won[1]) / games)
    bound = shuffled_delta(epsilon, local, num, subset)
    assert bound - error < gained * 1.02 and gained < bound + error
    # The negative control: half as many people again would be shown to be wrong.
    assert gained - error > shuffled_delta(epsilon, local, num * 3 // 2, subset)


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(
    st.floats(0.05, 6.0),
    st.integers(2, 2_000),
    st.integers(1, 20),
    st.floats(-8, -1),
    st.integers(1, 2_000),
    st.floats(0.1, 3),
)
def test_more_people_a_larger_delta_and_a_smaller_release_hide_no_worse(local, num, size, exponent, more, factor):
    subset, delta = Subset(64, size), 10**exponent
    low, high = attained_epsilon(local, num, delta, subset), shuffled_epsilon(local, num, delta, subset)
    assert 0 <= low <= high <= local
    assert high <= shuffled_epsilon(local, num, delta) * (1 + 1e-6)
    assert attained_epsilon(local, num + more, delta, subset) <= high
    assert attained_epsilon(local, num, min(delta * (1 + factor), 0.5), subset) <= high


def test_a_guarantee_of_a_single_choice_carries_what_the_sharper_bound_needs():
    sharp = SubsetSelection(4.0, subset_size=295).configured(16).guarantee().shuffled(2_000, 1e-6)
    assert sharp.epsilon == shuffled_epsilon(4.0, 2_000, 1e-6, Subset(2**14, 295))
    label = RandomizedResponse(2.0, 10).guarantee().shuffled(1_000, 1e-6)
    assert label.epsilon == shuffled_epsilon(2.0, 1_000, 1e-6, Subset(10, 1))
    # Several blocks, a size that is not known, and composed releases: what holds of any pure mechanism.
    blocks = SubsetSelection(4.0, num_blocks=2).configured(16).guarantee()
    both = compose([SubsetSelection(3.0).guarantee(), RandomizedResponse(1.0, 10).guarantee()])
    for guarantee in (blocks, both, SubsetSelection(4.0).guarantee()):
        assert guarantee.shuffled(2_000, 1e-6).epsilon == shuffled_epsilon(4.0, 2_000, 1e-6)


def test_fresh_sets_of_the_same_people_add_up():
    one = SubsetSelection(4.0, subset_size=295).configured(16).guarantee().shuffled(10_000, 1e-6)
    both = compose([one, one])
    assert both.epsilon == pytest.approx(2 * one.epsilon) and both.delta == 2e-6
    assert compose([one] * 30, delta=1e-4).epsilon < 0.75 * 30 * one.epsilon


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
    assert "epsilon = 4" in central.explain() and "where 10000 releases or more share" in central.explain()


def test_of_several_images_of_one_person_in_a_set_deltas_do_more_than_add_up():
    text = SubsetSelection(4.0).guarantee().shuffled(10_000, delta=1e-6).explain()
    assert "if k images of it show the same person" in text and "(e^(k epsilon) - 1) / (e^epsilon - 1) times" in text


def test_only_pure_guarantees_are_shuffled(refused):
    with refused(ValueError, "only pure releases"):
        GaussianMechanism(1.0, 1e-6, 1.0).guarantee().shuffled(10_000, 1e-6)
    assert PriorOnly().guarantee().shuffled(10, 1e-6).epsilon == 0.0


@pytest.mark.parametrize("exponent", range(1, 60))
def test_a_delta_that_covers_all_of_it_leaves_an_epsilon_of_nothing(exponent):
    """Where the set gives away less than delta without any epsilon, about a delta that is just enough for that, too."""
    delta = 10 ** (-exponent / 30)
    found = shuffled_epsilon(0.5, 1_000, delta, Subset(64, 6))
    assert 0 <= found <= 0.5
    lower = attained_epsilon(0.5, 1_000, delta, Subset(64, 6))
    assert lower <= found
