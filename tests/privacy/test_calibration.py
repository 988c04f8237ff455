# SPDX-License-Identifier: Apache-2.0
"""The noise is enough, and hardly more than enough."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext, localcontext

import pytest

from monai_cadp.privacy.calibration import gaussian_delta, gaussian_sigma

TABLE = {0.5: 7.031827, 1.0: 3.730632, 2.0: 1.993812, 4.0: 1.081162, 8.0: 0.600229, 10.0: 0.499889}


def normal_cdf(x: Decimal) -> Decimal:
    """Return the normal distribution function by its Taylor series, in 100 digits; good for |x| < 12."""
    with localcontext() as context:
        context.prec = 100
        term, total, n = x, x, 0
        while abs(term) > Decimal(10) ** -90:
            n += 1
            term = -term * x * x / (2 * n)
            total += term / (2 * n + 1)
        pi = Decimal("3.1415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253421")
        return Decimal(1) / 2 + total / (2 * pi).sqrt()


def exact_delta(epsilon: float, sigma: float) -> Decimal:
    getcontext().prec = 100
    e, s = Decimal(epsilon), Decimal(sigma)
    return normal_cdf(1 / (2 * s) - e * s) - e.exp() * normal_cdf(-1 / (2 * s) - e * s)


@pytest.mark.parametrize(("epsilon", "sigma"), TABLE.items())
def test_sigma_agrees_with_the_published_table(epsilon, sigma):
    assert gaussian_sigma(epsilon, 1e-5) == pytest.approx(sigma, abs=1e-5)


@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 1.0, 4.0, 10.0, 40.0])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.1])
def test_sigma_is_never_below_the_true_one_and_hardly_above(epsilon, delta):
    sigma = gaussian_sigma(epsilon, delta)
    assert exact_delta(epsilon, sigma) <= Decimal(delta)
    assert exact_delta(epsilon, sigma * (1 - 1e-5)) > Decimal(delta)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 3.0])
def test_delta_is_an_upper_bound_and_tight(sigma):
    exact = exact_delta(2.0, sigma)
    assert exact <= Decimal(gaussian_delta(2.0, sigma)) <= exact + Decimal("1e-9")


def test_the_classical_formula_would_fail_above_epsilon_one():
    classical = math.sqrt(2 * math.log(1.25e5)) / 10
    assert exact_delta(10.0, classical) > Decimal("1e-5")


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, float("nan"), True, "x"])
def test_a_delta_out_of_range_is_refused_in_one_sentence(delta):
    with pytest.raises(ValueError, match=r"^delta is [^\n]*\.$"):
        gaussian_sigma(1.0, delta)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_a_deviation_that_is_not_positive_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma is"):
        gaussian_delta(1.0, sigma)


def test_a_guarantee_beyond_calculation_is_refused():
    with pytest.raises(ValueError, match="needs too much noise"):
        gaussian_sigma(1e-12, 1e-14)
