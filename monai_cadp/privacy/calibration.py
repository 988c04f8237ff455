# SPDX-License-Identifier: Apache-2.0
"""How much Gaussian noise a guarantee needs."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from monai_cadp.privacy.checks import checked_delta, checked_epsilon, checked_positive
from monai_cadp.privacy.exact_numbers import proved_value
from monai_cadp.privacy.interval import Interval, exponential, normal_distribution

__all__ = ["gaussian_delta", "gaussian_delta_interval", "gaussian_sigma"]

# A few hundred thousand times the rounding unit; the special functions below are right to a few units.
SLACK = 2.0**-40
MAX_EPSILON = 1e4


def gaussian_delta_interval(epsilon: Decimal | Fraction | float, sigma: Fraction | float) -> Interval:
    r"""Return an interval that holds the delta of continuous Gaussian noise for sensitivity 1, for certain.

    It evaluates :math:`\delta = \Phi(1 / 2 \sigma - \epsilon \sigma) - e^\epsilon \, \Phi(-1 / 2 \sigma - \epsilon
    \sigma)` (Balle, Wang, theorem 8) in decimal intervals, whose ends are rounded outwards at every step.

    Args:
        epsilon: 0 or more, exact.
        sigma: standard deviation of the noise, above 0, exact.

    Returns:
        The interval; its ends agree in some 40 digits after the point.

    References:
        Balle, Wang: Improving the Gaussian mechanism for differential privacy, ICML 2018, theorem 8.

    Example:
        >>> float(gaussian_delta_interval(1.0, 3.730632).upper) < 1.0001e-5
        True
    """
    eps, deviation = Fraction(epsilon), Fraction(sigma)
    middle, half = -eps * deviation, 1 / (2 * deviation)
    above, below = (normal_distribution(Interval.of(end)) for end in (middle + half, middle - half))
    return above - exponential(Interval.of(eps)) * below


def gaussian_delta(epsilon: float, sigma: float) -> float:
    r"""Return a tight upper bound of the delta of continuous Gaussian noise for sensitivity 1, quickly.

    No promise rests on it: :func:`gaussian_sigma` proves what it returns by :func:`gaussian_delta_interval`.

    With :math:`a = 1 / (2 \sigma) - \epsilon \sigma` and :math:`b = a - 1 / \sigma` it is (Balle, Wang, theorem 8)

    .. math:: \delta = \Phi(a) - e^\epsilon \Phi(b)
              = e^{-a^2 / 2} \tfrac{1}{2} [\operatorname{erfcx}(-a / \sqrt 2) - \operatorname{erfcx}(-b / \sqrt 2)],

    because :math:`e^\epsilon e^{-b^2 / 2} = e^{-a^2 / 2}` and :math:`\Phi(x) = \tfrac12 e^{-x^2/2}
    \operatorname{erfcx}(-x / \sqrt 2)`. The second form is used for a below 0, where nothing overflows; the first
    otherwise. To the difference we add :math:`2^{-40} (1 + a^2)` of its larger term, far more than all
    rounding errors together.

    Args:
        epsilon: above 0.
        sigma: standard deviation of the noise, for sensitivity 1.

    Returns:
        A number not below delta.

    Raises:
        ValueError: if a number is not positive.

    References:
        Balle, Wang: Improving the Gaussian mechanism for differential privacy, ICML 2018, theorem 8.

    Example:
        >>> round(gaussian_delta(1.0, 3.730632), 9)
        1e-05
    """
    from scipy.special import erfcx, log_ndtr, ndtr

    epsilon, sigma = checked_epsilon(epsilon), checked_positive("sigma", sigma)
    a = 0.5 / sigma - epsilon * sigma
    b = -0.5 / sigma - epsilon * sigma
    if a < 0:
        scale = 0.5 * math.exp(-a * a / 2)
        larger = scale * float(erfcx(-a / math.sqrt(2)))
        smaller = scale * float(erfcx(-b / math.sqrt(2)))
    else:
        larger, smaller = float(ndtr(a)), math.exp(epsilon + float(log_ndtr(b)))
    return larger - smaller + SLACK * (1 + a * a) * larger


def gaussian_sigma(epsilon: float, delta: float) -> float:
    r"""Return the standard deviation of continuous Gaussian noise that makes sensitivity 1 (epsilon, delta) private.

    Bisection in floating-point numbers, on ``gaussian_delta``, only proposes a sigma. What is returned is a sigma for
    which :func:`gaussian_delta_interval` has shown :math:`\delta(\sigma) \le \delta`, in intervals that are rounded
    outwards; the proposal is raised until it does. Delta falls in sigma, so this and every larger amount of noise is
    enough. Epsilon and delta are proved in both readings, as binary numbers and as the decimals they are written as.

    Args:
        epsilon: above 0, at most 1e4.
        delta: between 0 and 1.

    Returns:
        sigma, rounded up.

    Raises:
        ValueError: if a number is out of its range, or no representable amount of noise is enough.

    References:
        Balle, Wang: Improving the Gaussian mechanism for differential privacy, ICML 2018, algorithm 1.

    Example:
        >>> round(gaussian_sigma(1.0, 1e-5), 5)
        3.73063
    """
    epsilon, delta = checked_epsilon(epsilon), checked_delta(delta)
    if epsilon > MAX_EPSILON:
        raise ValueError(f"epsilon is {epsilon}; expected {MAX_EPSILON:g} at most for Gaussian noise.")
    return _proved_sigma(epsilon, delta)


@lru_cache(maxsize=256)
def _proved_sigma(epsilon: float, delta: float) -> float:
    low, high = 2.0**-10, 2.0**30
    if not gaussian_delta(epsilon, high) <= delta:
        raise ValueError(f"epsilon {epsilon} with delta {delta} needs too much noise; use larger ones.")
    while high / low > 1 + 1e-12:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if gaussian_delta(epsilon, middle) <= delta else (middle, high)
    smallest, step = proved_value(delta), 2.0**-44
    while not gaussian_delta_interval(proved_value(epsilon), high).upper <= smallest:
        high, step = high * (1 + step), 2 * step
    return high
