# SPDX-License-Identifier: Apache-2.0
"""What noisy gradients of random batches promise, counted by dp_accounting."""

from __future__ import annotations

import math
from typing import Any

from monai_cadp.privacy.checks import checked_delta, checked_epsilon, checked_positive

__all__ = ["LEAST_DELTA", "noise_multiplier_for", "sgd_epsilon"]

# A hundred times the absolute error of the accountant's Fourier transforms, in units of delta.
ROUNDING = 1e-12
LEAST_DELTA = 1e-10
# Privacy losses are rounded up to multiples of a hundredth of the sampling rate within these limits: finer than that
# takes seconds, and makes epsilon smaller by less than a hundredth.
INTERVALS = 1e-4, 1e-3
# Below this amount of noise the accountant needs minutes, and the promise is empty.
LEAST_MULTIPLIER = 0.25
LARGEST_MULTIPLIER = 1e6


def sgd_epsilon(
    noise_multiplier: float, sampling_rate: float, steps: int, delta: float, *, add_or_remove_one: bool = False
) -> float:
    r"""Return the epsilon of a number of steps with clipped gradients, Gaussian noise and Poisson-sampled batches.

    One step adds up the gradients, of norm C at most, of a batch that each image enters by an independent coin of
    probability q, and adds noise :math:`N(0, s^2 C^2 I)`; the next may depend on what came out. The promise is about
    two sets of the same size that differ in one image, x or x'.

    Proof. Show the attacker which other images are in the batch, which only helps him (hockey-stick divergences are
    jointly convex), and subtract their gradients. In units of s C, with gradients u and v of x and x', he compares
    :math:`P = (1 - q) N_0 + q N_u` to :math:`Q = (1 - q) N_0 + q N_v`; u and v are no longer than :math:`r = 1 / s`, so
    u is no further than r from 0 and than 2 r from v. For :math:`\alpha \ge 1`, with :math:`b = (1 - q) (\alpha - 1)`,
    :math:`c = \alpha q` and the likelihood ratios :math:`l = d N_0 / d N_u` and :math:`m = d N_v / d N_u`,

    .. math:: H_\alpha(P \| Q) = E_u (q - b l - c m)_+ = q - b - c + E_u (b l + c m - q)_+ ,

    because both ratios have the mean 1. Let :math:`L(z) = e^{r z - r^2 / 2}` and :math:`M(z) = e^{2 r z - 2 r^2}`, the
    ratios of one-dimensional Gaussians 0, r and 2 r apart, both rising in the same standard normal z, and take the
    z* at which :math:`b L + c M = q`. Then

    .. math:: E_u (b l + c m - q)_+ \le b \, E_u (l - L(z^*))_+ + c \, E_u (m - M(z^*))_+
              \le b \, E (L - L(z^*))_+ + c \, E (M - M(z^*))_+ = E (b L + c M - q)_+ ,

    as two Gaussians differ the more the further apart they are, and as L and M pass their thresholds at the same z. So
    the worst pair is u = -r, v = r in one dimension. It is its own mirror image, therefore also the worst for
    :math:`\alpha < 1` (exchange P and Q). One pair dominates every step, so its composition with itself dominates them
    all (Zhu, Dong, Wang 2022, theorem 10). dp_accounting composes this pair under the name REPLACE_ONE. A rate below q,
    such as q rounded down to a fraction of :math:`2^{64}`, promises no less: mix both P and Q with :math:`N_0`.

    What the accountant rounds in floating-point numbers is covered by :math:`10^{-12}` of delta.

    Args:
        noise_multiplier: s, the deviation of the noise over the norm to which gradients are clipped.
        sampling_rate: q, public.
        steps: number of steps, public.
        delta: from 1e-10, and below 1.
        add_or_remove_one: give the epsilon of the other relation, under which one image more or less is in the set;
            published results mostly use it. The rate and the divisor of the sum then count as public, although the size
            of the set is what differs. It is about half as large.

    Returns:
        The epsilon, rounded up.

    Raises:
        ValueError: if a number is out of its range.

    References:
        Abadi et al.: Deep learning with differential privacy, CCS 2016. Zhu, Dong, Wang: Optimal accounting of
        differential privacy via characteristic function, AISTATS 2022. Lebeda, Regehr, Kamath, Steinke: Avoiding
        pitfalls for privacy accounting of subsampled mechanisms under composition, SaTML 2025.

    Example:
        >>> replace, add = (sgd_epsilon(2.0, 0.04, 300, 1e-5, add_or_remove_one=either) for either in (False, True))
        >>> round(replace, 2), round(add, 2)
        (2.88, 1.51)
    """
    checked_positive("noise_multiplier", noise_multiplier)
    if noise_multiplier < LEAST_MULTIPLIER:
        raise ValueError(f"noise_multiplier is {noise_multiplier}; expected {LEAST_MULTIPLIER} or more.")
    _check(sampling_rate, steps, delta)
    accountant = _accountant(sampling_rate, add_or_remove_one).compose(_event(noise_multiplier, sampling_rate, steps))
    return math.nextafter(accountant.get_epsilon(delta - ROUNDING), math.inf)


def noise_multiplier_for(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """Return the noise multiplier at which replacing one image in all steps together is (epsilon, delta) private.

    Args:
        epsilon: above 0.
        delta: from 1e-10, and below 1.
        sampling_rate: probability with which an image enters a batch.
        steps: number of steps.

    Returns:
        The multiplier, rounded up by less than a thousandth.

    Raises:
        ValueError: if a number is out of its range, or no multiplier from 0.25 to 1e6 gives the epsilon.

    Example:
        >>> round(noise_multiplier_for(2.88, 1e-5, sampling_rate=0.04, steps=300), 1)
        2.0
    """
    from dp_accounting import ExplicitBracketInterval, calibrate_dp_mechanism

    epsilon = checked_epsilon(epsilon)
    _check(sampling_rate, steps, delta)

    def enough(multiplier: float) -> bool:
        return sgd_epsilon(multiplier, sampling_rate, steps, delta) <= epsilon

    # Doubled from a little, and never near 0, where the accountant's distributions grow without end.
    high = 1.0
    while high <= LARGEST_MULTIPLIER and not enough(high):
        high *= 2
    while high > LEAST_MULTIPLIER and enough(high / 2):
        high /= 2
    if high > LARGEST_MULTIPLIER:
        raise ValueError(f"epsilon {epsilon} with delta {delta} needs too much noise; use larger ones, or fewer steps.")
    if high == LEAST_MULTIPLIER:
        return high
    return calibrate_dp_mechanism(
        lambda: _accountant(sampling_rate),
        lambda multiplier: _event(multiplier, sampling_rate, steps),
        # A slight slack for the float above that `sgd_epsilon` returns.
        math.nextafter(epsilon, 0.0),
        delta - ROUNDING,
        ExplicitBracketInterval(high / 2, high),
        tol=high / 4096,
    )


def _event(noise_multiplier: float, sampling_rate: float, steps: int) -> Any:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent

    return SelfComposedDpEvent(PoissonSampledDpEvent(sampling_rate, GaussianDpEvent(noise_multiplier)), steps)


def _accountant(sampling_rate: float, add_or_remove_one: bool = False) -> Any:
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import PLDAccountant

    relation = NeighboringRelation.ADD_OR_REMOVE_ONE if add_or_remove_one else NeighboringRelation.REPLACE_ONE
    interval = min(max(sampling_rate / 100, INTERVALS[0]), INTERVALS[1])
    return PLDAccountant(relation, value_discretization_interval=interval)


def _check(sampling_rate: float, steps: int, delta: float) -> None:
    if checked_delta(delta) < LEAST_DELTA:
        raise ValueError(f"delta is {delta}; expected {LEAST_DELTA:g} or more, which the accountant can tell from 0.")
    if checked_positive("sampling_rate", sampling_rate) > 1:
        raise ValueError(f"sampling_rate is {sampling_rate}; expected a probability.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps is {steps!r}; expected an integer of 1 or more.")
