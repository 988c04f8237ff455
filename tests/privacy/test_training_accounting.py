# SPDX-License-Identifier: Apache-2.0
"""The epsilon of noisy steps is what dp_accounting says, and what the worst pair of images gives away."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from scipy.stats import norm

from monai_cadp.privacy.training_accounting import LEAST_MULTIPLIER, noise_multiplier_for, sgd_epsilon

RUNS = [(8.0, 0.04, 200), (2.0, 0.04, 300), (1.0, 0.001, 2000), (1.5, 1.0, 3), (0.6, 0.5, 2)]


def accounted(multiplier, rate, steps, delta, relation):
    event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(multiplier))
    accountant = PLDAccountant(dp_accounting.NeighboringRelation[relation])
    return accountant.compose(dp_accounting.SelfComposedDpEvent(event, steps)).get_epsilon(delta)


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS, ids=str)
def test_epsilon_is_that_of_the_accountant_and_never_below(run):
    for other, relation in ((False, "REPLACE_ONE"), (True, "ADD_OR_REMOVE_ONE")):
        finer = accounted(*run, 1e-5, relation)
        assert finer <= sgd_epsilon(*run, 1e-5, add_or_remove_one=other) <= 1.005 * finer
    assert sgd_epsilon(*run, 1e-5, add_or_remove_one=True) < sgd_epsilon(*run, 1e-5)


def divergence(epsilon, rate, u, v, axis):
    """What a step gives away at this epsilon, of gradients u and v in the plane, in units of the noise."""
    x, y = np.meshgrid(axis, axis, indexing="ij")

    def density(centre):
        return norm.pdf(x - centre[0]) * norm.pdf(y - centre[1])

    first, second = ((1 - rate) * density((0, 0)) + rate * density(centre) for centre in (u, v))
    return float(np.clip(first - math.exp(epsilon) * second, 0, None).sum()) * (axis[1] - axis[0]) ** 2


def test_no_two_gradients_give_more_away_than_opposite_ones():
    axis, rate, length = np.linspace(-8, 9, 256), 0.3, 1.25
    for epsilon in (-0.3, 0.1, 0.5, 1.0):
        worst = divergence(epsilon, rate, (-length, 0), (length, 0), axis)
        for size in (0.0, 0.6, length):
            for angle in np.linspace(0, math.pi, 7):
                other = (size * math.cos(angle), size * math.sin(angle))
                assert divergence(epsilon, rate, (-length, 0), other, axis) <= worst + 1e-9
                assert divergence(epsilon, rate, other, (length, 0), axis) <= worst + 1e-9


def test_one_step_gives_away_exactly_what_opposite_gradients_do():
    multiplier, rate, delta = 0.8, 0.3, 1e-3
    axis = np.linspace(-11, 11, 100_001)
    one, other = ((1 - rate) * norm.pdf(axis) + rate * norm.pdf(axis + sign / multiplier) for sign in (1, -1))

    def given_away(epsilon):
        return float(np.clip(one - math.exp(epsilon) * other, 0, None).sum()) * (axis[1] - axis[0])

    epsilon = sgd_epsilon(multiplier, rate, 1, delta)
    assert given_away(epsilon) <= delta < given_away(epsilon - 0.001)


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_the_noise_is_enough_and_a_thousandth_less_is_not(epsilon):
    multiplier = noise_multiplier_for(epsilon, 1e-5, sampling_rate=0.04, steps=200)
    assert sgd_epsilon(multiplier, 0.04, 200, 1e-5) <= epsilon < sgd_epsilon(0.999 * multiplier, 0.04, 200, 1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sgd_epsilon(0.1, 0.04, 200, 1e-5),
        lambda: sgd_epsilon(math.nan, 0.04, 200, 1e-5),
        lambda: sgd_epsilon(1.0, 1.1, 200, 1e-5),
        lambda: sgd_epsilon(1.0, 0.0, 200, 1e-5),
        lambda: sgd_epsilon(1.0, 0.04, 0, 1e-5),
        lambda: sgd_epsilon(1.0, 0.04, 200, 0.0),
        lambda: sgd_epsilon(1.0, 0.04, 200, 1e-13),
        lambda: noise_multiplier_for(0.0, 1e-5, 0.04, 200),
        lambda: noise_multiplier_for(math.inf, 1e-5, 0.04, 200),
        lambda: noise_multiplier_for(1.0, 1.0, 0.04, 200),
    ],
)
def test_impossible_numbers_are_refused(make, refused):
    with refused(ValueError, "expected"):
        make()


def test_an_epsilon_that_hardly_needs_noise_gets_the_least_that_is_accounted_for():
    multiplier = noise_multiplier_for(5_000.0, 1e-5, sampling_rate=0.04, steps=20)
    assert LEAST_MULTIPLIER <= multiplier < 2 * LEAST_MULTIPLIER
    assert sgd_epsilon(multiplier, 0.04, 20, 1e-5) <= 5_000.0


@pytest.mark.slow
def test_too_small_an_epsilon_is_refused(refused):
    with refused(ValueError, "too much noise"):
        noise_multiplier_for(1e-9, 1e-10, 1.0, 1000)
