# SPDX-License-Identifier: Apache-2.0
"""At the ends of what may be asked for, Gaussian noise is enough, and a hair less would not be."""

from __future__ import annotations

import math

import pytest
from scipy.special import log_ndtr, ndtr

from monai_cadp.privacy import GaussianMechanism
from monai_cadp.privacy.calibration import gaussian_sigma


def curve(epsilon, sigma):
    """Delta of the continuous mechanism (Balle, Wang, theorem 8), in floating-point numbers."""
    a, b = 0.5 / sigma - epsilon * sigma, -0.5 / sigma - epsilon * sigma
    return float(ndtr(a)) - math.exp(epsilon + float(log_ndtr(b)))


EXTREMES = [(1e4, 0.5), (1e4, 1e-12), (3e3, 1e-5), (40.0, 0.9), (1e-3, 0.9), (1e-4, 1e-7), (1e-6, 1e-4), (5.0, 1e-30)]


@pytest.mark.parametrize(("epsilon", "delta"), EXTREMES)
def test_the_noise_is_enough_and_a_hair_less_would_not_be(epsilon, delta):
    sigma = gaussian_sigma(epsilon, delta)
    assert curve(epsilon, sigma * (1 + 1e-6)) <= delta * (1 + 1e-6) < curve(epsilon, sigma * (1 - 1e-4))


def test_noise_falls_with_epsilon_and_with_delta():
    by_epsilon = [gaussian_sigma(epsilon, 1e-6) for epsilon in (1e-2, 0.1, 1.0, 10.0, 1e2, 1e3, 1e4)]
    by_delta = [gaussian_sigma(1.0, delta) for delta in (1e-12, 1e-6, 1e-3, 0.1, 0.9)]
    for values in (by_epsilon, by_delta):
        assert values == sorted(values, reverse=True) and len(set(values)) == len(values)


def test_the_largest_epsilon_is_taken_and_a_larger_one_refused(refused):
    assert gaussian_sigma(1e4, 1e-5) > 0
    with refused(ValueError, "expected 10000 at most"):
        gaussian_sigma(math.nextafter(1e4, math.inf), 1e-5)


@pytest.mark.parametrize(("epsilon", "delta", "bound"), [(0.1, 1e-6, 0.7), (1.0, 1e-5, 2.0), (8.0, 1e-5, 31.0)])
def test_a_mechanism_adds_the_noise_of_twice_its_clipping_bound_and_hardly_more(epsilon, delta, bound):
    """Two clipped rows are 2 C apart; the lattice costs a hundred-thousandth, and shortens C by a millionth."""
    tight = 2 * bound * gaussian_sigma(epsilon, delta)
    noise = GaussianMechanism(epsilon, delta, clipping_bound=bound).noise_deviation
    assert tight * (1 - 2e-6) <= noise <= tight * (1 + 2e-5)
