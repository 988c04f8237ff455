# SPDX-License-Identifier: Apache-2.0
"""A bound from counts is right as often as it says, and bounds that are made carelessly are not."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from monai_cadp.privacy import RandomizedResponse
from monai_cadp.privacy.auditing import (
    counts_needed,
    epsilon_lower_bound,
    gaussian_epsilon,
    gaussian_epsilon_lower_bound,
    one_run_epsilon_lower_bound,
    training_epsilon_lower_bound,
)
from monai_cadp.privacy.calibration import gaussian_sigma
from monai_cadp.privacy.training_accounting import NoisySums, training_epsilon

COUNT = 40
FAILURE_RATE = 0.05


def chance_of_too_much(bound, epsilon, p, q):
    """The exact probability that a bound from COUNT releases of each input is above epsilon; nothing is drawn."""
    hits, alarms = binom.pmf(range(COUNT + 1), COUNT, p), binom.pmf(range(COUNT + 1), COUNT, q)
    return sum(
        hits[k] * alarms[alarm]
        for k in range(COUNT + 1)
        for alarm in range(COUNT + 1)
        if bound(k, COUNT, alarm, COUNT) > epsilon
    )


def tight_rates(epsilon, delta):
    """Rates of the best distinguisher of randomized response that tells the truth outright with probability delta."""
    q = (1 - delta) / (1 + math.exp(epsilon))
    return math.exp(epsilon) * q + delta, q


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("delta", [0.0, 0.1])
def test_the_bound_is_above_the_truth_as_rarely_as_it_says(epsilon, delta):
    def bound(*counts):
        return epsilon_lower_bound(*counts, delta=delta, failure_rate=FAILURE_RATE)

    assert chance_of_too_much(bound, epsilon, *tight_rates(epsilon, delta)) <= FAILURE_RATE


def without_confidence(hits, positives, alarms, negatives):
    return math.log(hits / positives / (alarms / negatives)) if hits and alarms else 0.0


def with_normal_intervals(hits, positives, alarms, negatives):
    """A usual approximation, which is wrong where few are counted."""
    z, p, q = norm.ppf(1 - FAILURE_RATE / 2), hits / positives, alarms / negatives
    low, high = p - z * math.sqrt(p * (1 - p) / positives), q + z * math.sqrt(q * (1 - q) / negatives)
    return math.inf if high <= 0 < low else math.log(low / high) if low > 0 else 0.0


@pytest.mark.parametrize(("control", "epsilon"), [(without_confidence, 1.0), (with_normal_intervals, 4.0)])
def test_a_control_without_a_true_confidence_is_above_the_truth_too_often(control, epsilon):
    assert chance_of_too_much(control, epsilon, *tight_rates(epsilon, 0.0)) > 4 * FAILURE_RATE


def test_a_control_that_ignores_delta_is_above_the_truth_too_often():
    def control(*counts):
        return epsilon_lower_bound(*counts, failure_rate=FAILURE_RATE)

    assert chance_of_too_much(control, 0.0, *tight_rates(0.0, 0.5)) > 4 * FAILURE_RATE


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
def test_many_counts_come_close_to_the_truth(epsilon):
    p, q = tight_rates(epsilon, 0.0)
    count = 10**8
    assert epsilon - 0.05 < epsilon_lower_bound(round(p * count), count, round(q * count), count) < epsilon


def test_randomized_response_is_measured_below_its_epsilon_and_close_to_it():
    # Flake rate: the bound is too large with probability 1e-6 at most, and too small with less.
    count = 200_000
    mechanism = RandomizedResponse(1.0, 2)
    ones = [int(mechanism(torch.full((count,), label)).sum()) for label in (1, 0)]
    assert 0.95 < epsilon_lower_bound(ones[0], count, ones[1], count) <= 1.0


@pytest.mark.parametrize("delta", [0.0, 0.01])
def test_the_complement_of_a_set_of_outputs_proves_as_much_as_the_set(delta):
    # The set is rare for neither input, but what is outside is almost impossible for the first.
    inside = epsilon_lower_bound(1000, 1000, 400, 1000, delta)
    outside = epsilon_lower_bound(600, 1000, 0, 1000, delta)
    assert inside == outside > 3.0


def test_guesses_that_prove_nothing_give_zero():
    for counts in ((500, 1000, 500, 1000), (0, 1000, 0, 1000), (1000, 1000, 1000, 1000), (0, 10, 10, 10), (1, 1, 0, 1)):
        assert epsilon_lower_bound(*counts) == 0.0
        assert gaussian_epsilon_lower_bound(*counts, delta=1e-5) == 0.0


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(1, 60), st.data())
def test_both_rates_are_rounded_down_in_exact_fractions(count, data):
    """The upper rate of a set that was never seen is known; divided out, the lower rate of the other is left."""
    hits = data.draw(st.integers(1, count))
    tail, negatives = Fraction(1, 2000), 10**6
    highest = -math.expm1(math.log(tail) / negatives)
    bound = epsilon_lower_bound(hits, count, 0, negatives, failure_rate=1e-3)
    if bound == 0:
        return
    lowest = Fraction(math.exp(bound) * highest)
    above = sum(math.comb(count, k) * lowest**k * (1 - lowest) ** (count - k) for k in range(hits, count + 1))
    assert above <= tail
    # And it is not far down: within the slack of 2^-20 that epsilon is rounded by.
    slightly_more = lowest * (1 + Fraction(1, 10**5))
    assert (
        sum(math.comb(count, k) * slightly_more**k * (1 - slightly_more) ** (count - k) for k in range(hits, count + 1))
        > tail
    )


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 4.0, 8.0])
@pytest.mark.parametrize("failure_rate", [1e-3, 1e-8])
def test_fewer_counts_than_needed_could_not_contradict_a_promise(epsilon, failure_rate):
    count = counts_needed(epsilon, failure_rate)
    assert epsilon + 0.2 < epsilon_lower_bound(count, count, 0, count, failure_rate=failure_rate) < epsilon + 0.35
    fewer = math.ceil(0.7 * count)
    assert epsilon_lower_bound(fewer, fewer, 0, fewer, failure_rate=failure_rate) <= epsilon


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("offset", [0.0, 0.7])
def test_the_gaussian_bound_is_above_the_truth_as_rarely_as_it_says(mu, offset):
    def bound(*counts):
        return gaussian_epsilon_lower_bound(*counts, delta=1e-5, failure_rate=FAILURE_RATE)

    p, q = norm.cdf(mu / 2 - offset), norm.cdf(-mu / 2 - offset)
    # The truth is rounded down by 2^-20; add it again.
    assert chance_of_too_much(bound, gaussian_epsilon(mu, 1e-5) + 2**-20, p, q) <= FAILURE_RATE


def test_a_gaussian_control_without_confidence_is_above_the_truth_too_often():
    def control(hits, positives, alarms, negatives):
        mu = norm.ppf(min(hits / positives, 0.99)) - norm.ppf(max(alarms / negatives, 0.01))
        return gaussian_epsilon(mu, 1e-5) if mu > 0 else 0.0

    mu = 1.0
    assert chance_of_too_much(control, gaussian_epsilon(mu, 1e-5), norm.cdf(mu / 2), norm.cdf(-mu / 2)) > 0.2


@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 1.0, 4.0, 10.0, 40.0])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.1])
def test_gaussian_epsilon_undoes_the_calibration_and_never_says_more(epsilon, delta):
    # The sigma that was calibrated is never below the true one, so the true epsilon is never above.
    found = gaussian_epsilon(1 / gaussian_sigma(epsilon, delta), delta)
    assert epsilon * (1 - 1e-5) - 2e-6 < found < epsilon


def test_the_shape_of_gaussian_noise_saves_counts():
    mu, count = 1 / 0.600229, 2000  # epsilon is 8 for delta 1e-5
    counts = (round(norm.cdf(mu / 2) * count), count, round(norm.cdf(-mu / 2) * count), count)
    assert epsilon_lower_bound(*counts, delta=1e-5) < 1.5
    assert 5.0 < gaussian_epsilon_lower_bound(*counts, delta=1e-5) < 8.0


@pytest.mark.parametrize("bound", [epsilon_lower_bound, gaussian_epsilon_lower_bound])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"true_positives": 11}, "11 of 10 positives"),
        ({"true_positives": -1}, "-1 of 10 positives"),
        ({"false_positives": 11}, "11 of 10 negatives"),
        ({"false_positives": 0, "negatives": 0}, "0 of 0 negatives"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"delta": math.nan}, "delta is nan"),
        ({"failure_rate": 0.0}, "failure_rate is 0.0"),
        ({"failure_rate": 1.0}, "failure_rate is 1.0"),
    ],
)
def test_a_number_out_of_range_is_refused_in_one_sentence(refused, bound, changed, message):
    counts = {"true_positives": 9, "positives": 10, "false_positives": 1, "negatives": 10, "delta": 1e-5}
    with refused(ValueError, message):
        bound(**{**counts, **changed})


@pytest.mark.parametrize("delta", [0.0, 0.3])
def test_a_gaussian_mechanism_has_no_epsilon_at_such_a_delta(refused, delta):
    with refused(ValueError, "delta is"):
        gaussian_epsilon(1.0, delta)


@pytest.mark.parametrize("mu", [0.0, -1.0, math.nan, 31.0])
def test_a_distance_out_of_range_is_refused(refused, mu):
    with refused(ValueError, "mu is"):
        gaussian_epsilon(mu, 1e-5)


def test_guesses_of_one_run_are_worth_what_randomized_response_says():
    """Of canaries that are answered by randomized response as much is shown as is true, and not more."""
    guesses = 2000
    for epsilon, low, high in ((2.0, 1.5, 2.0), (4.0, 3.0, 4.0)):
        right = round(guesses / (1 + math.exp(-epsilon)))
        assert low < one_run_epsilon_lower_bound(right, guesses, guesses) < high


@pytest.mark.parametrize("guesses", [1, 40, 1000])
@pytest.mark.parametrize("failure_rate", [0.05, 0.5, 1 - 1e-7])
def test_guesses_that_are_all_right_show_what_can_be_written_down(guesses, failure_rate):
    """They are all right with probability (1 + exp(-epsilon))^-guesses, however large epsilon is."""
    expected = max(0.0, -math.log(math.expm1(-math.log(failure_rate) / guesses)))
    found = one_run_epsilon_lower_bound(guesses, guesses, guesses, failure_rate=failure_rate)
    assert found == pytest.approx(expected, rel=1e-3) and found <= expected


def test_one_run_contradicts_a_kept_promise_as_rarely_as_it_says():
    """Summed over all counts of right guesses of randomized response."""
    epsilon, guesses, rate = 1.0, 300, 0.05
    numbers = np.arange(guesses + 1)
    above = [one_run_epsilon_lower_bound(int(n), guesses, guesses, failure_rate=rate) > epsilon for n in numbers]
    assert 0 < binom.pmf(numbers, guesses, 1 / (1 + math.exp(-epsilon)))[above].sum() <= rate


def test_a_delta_of_one_run_costs_a_little_and_a_large_one_everything():
    exact = one_run_epsilon_lower_bound(950, 1000, 1000, failure_rate=0.01)
    assert 0.8 * exact < one_run_epsilon_lower_bound(950, 1000, 1000, 1e-6, 0.01) < exact
    assert one_run_epsilon_lower_bound(950, 1000, 1000, 1e-2, 0.01) == 0.0


@pytest.mark.parametrize(
    ("counts", "message"), [((3, 2, 5), "3 of 2 guesses"), ((1, 6, 5), "1 of 6 guesses"), ((0, 0, 5), "0 of 0")]
)
def test_more_right_guesses_than_guesses_are_refused(refused, counts, message):
    with refused(ValueError, message):
        one_run_epsilon_lower_bound(*counts)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_counts_of_a_training_show_its_epsilon_and_that_of_a_control_of_half_the_noise_exceeds_it(factor):
    """One Gaussian sum, whose best rates are known."""
    claim = NoisySums(noise_multiplier=2.0)
    mu, count = 2 / (factor * claim.noise_multiplier), 20_000
    counts = round(norm.cdf(mu / 2) * count), count, round(norm.cdf(-mu / 2) * count), count
    true = training_epsilon([claim.scaled(factor)], 1e-5)
    assert 0.88 * true < training_epsilon_lower_bound(*counts, [claim], 1e-5) <= true
    assert (training_epsilon_lower_bound(*counts, [claim], 1e-5) > training_epsilon([claim], 1e-5)) == (factor < 1)


def test_counts_that_say_nothing_bound_nothing():
    assert training_epsilon_lower_bound(500, 1000, 500, 1000, [NoisySums(2.0)], 1e-5) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("hits", [(9_950, 8_000), (2_000, 50), (9_000, 1_000)])
def test_it_does_not_matter_which_kind_of_canary_is_called_the_first(hits):
    """Two kinds that could replace each other: exchanging them, and guesses with them, says the same."""
    claim = [NoisySums(noise_multiplier=1.0)]
    one = training_epsilon_lower_bound(hits[0], 10_000, hits[1], 10_000, claim, 1e-5)
    other = training_epsilon_lower_bound(10_000 - hits[1], 10_000, 10_000 - hits[0], 10_000, claim, 1e-5)
    assert one == pytest.approx(other, rel=1e-9) and one > 0.5
