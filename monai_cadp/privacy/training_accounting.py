# SPDX-License-Identifier: Apache-2.0
"""What noisy sums, over everybody or over random batches, promise together, counted by dp_accounting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from monai_cadp.privacy.checks import checked_delta, checked_epsilon, checked_positive

__all__ = [
    "LEAST_DELTA",
    "NoisySums",
    "noise_multiplier_for",
    "noise_scale_for",
    "sgd_epsilon",
    "training_deltas",
    "training_epsilon",
]

# A hundred times the absolute error of the accountant's Fourier transforms, in units of delta.
ROUNDING = 1e-12
LEAST_DELTA = 1e-10
# Privacy losses are rounded up to multiples of a hundredth of the sampling rate within these limits: finer than that
# takes seconds, and makes epsilon smaller by less than a hundredth.
INTERVALS = 1e-4, 1e-3
# Below this amount of noise the accountant needs minutes, and the promise is empty.
LEAST_MULTIPLIER = 0.25
LARGEST_MULTIPLIER = 1e6


class NoisySums(NamedTuple):
    """A number of sums of clipped contributions, each with Gaussian noise; later ones may depend on what came out.

    Args:
        noise_multiplier: s, the deviation of the noise over the norm to which contributions are clipped.
        sampling_rate: q, the probability with which somebody enters a sum, public.
        steps: number of sums, public.
        replacement: largest distance of two contributions, over the norm to which they are clipped.
    """

    noise_multiplier: float
    sampling_rate: float = 1.0
    steps: int = 1
    replacement: float = 2.0

    def scaled(self, factor: float) -> NoisySums:
        """Return the same sums with so many times the noise."""
        return self._replace(noise_multiplier=factor * self.noise_multiplier)


def training_epsilon(parts: Sequence[NoisySums], delta: float, *, add_or_remove_one: bool = False) -> float:
    r"""Return the epsilon of several kinds of noisy sums over the same people, one after the other.

    Proof. :func:`sgd_epsilon` gives the pair of distributions that dominates a sum over a random batch. A sum over
    everybody (q = 1) is a Gaussian mechanism: two sets that differ in one contribution give sums that are r C apart at
    most, r being ``replacement``, so :math:`N(0, s^2)` and :math:`N(r, s^2)` dominate it, the pair of the multiplier
    2 s / r and contributions that are 2 apart, under which name dp_accounting composes it. Where one comes or goes,
    they are 1 apart, and the multiplier is s. Pairs that dominate each step dominate all steps together when composed,
    also where later steps depend on what came out of earlier ones (Zhu, Dong, Wang 2022, theorem 10).

    r is 2 for vectors of norm C. It is :math:`\sqrt 2` for convex combinations A, B of matrices :math:`u u^T` with
    :math:`\lVert u \rVert^2 \le C`: both are positive semidefinite, so :math:`\langle A, B \rangle \ge 0` and
    :math:`\lVert A - B \rVert_F^2 \le \lVert A \rVert_F^2 + \lVert B \rVert_F^2 \le 2 C^2`.

    Args:
        parts: what was, or will be, done.
        delta: from 1e-10, and below 1.
        add_or_remove_one: as for :func:`sgd_epsilon`.

    Returns:
        The epsilon, rounded up.

    Raises:
        ValueError: if a number is out of its range.

    Example:
        >>> moments, steps = NoisySums(4.0, replacement=2**0.5), NoisySums(2.0, 0.04, 300)
        >>> round(training_epsilon([moments, steps], 1e-5), 1)
        3.3
    """
    for part in parts:
        _check_sums(part)
    _check_delta(delta)
    return math.nextafter(_epsilon(tuple(parts), delta - ROUNDING, add_or_remove_one), math.inf)


# Trainers with equal settings ask again, and so does everything that states their guarantee.
@lru_cache(maxsize=256)
def _epsilon(parts: tuple[NoisySums, ...], delta: float, add_or_remove_one: bool) -> float:
    composed = _accountant(parts, add_or_remove_one).compose(_event(parts, 1.0, add_or_remove_one))
    return float(composed.get_epsilon(delta))


def training_deltas(parts: Sequence[NoisySums], epsilons: Sequence[float]) -> list[float]:
    """Return the delta at each of these epsilons, rounded up; otherwise as :func:`training_epsilon`.

    Example:
        >>> high, low = training_deltas([NoisySums(2.0, 0.04, 300)], [1.0, 2.88])
        >>> low < 1.1e-5 < high
        True
    """
    for part in parts:
        _check_sums(part)
    composed = _accountant(parts, False).compose(_event(parts, 1.0, False))
    return [float(delta) + ROUNDING for delta in composed.get_delta(list(epsilons))]


def sgd_epsilon(
    noise_multiplier: float, sampling_rate: float, steps: int, delta: float, *, add_or_remove_one: bool = False
) -> float:
    r"""Return the epsilon of a number of steps with clipped gradients, Gaussian noise and Poisson-sampled batches.

    One step adds up the gradients, of norm C at most, of a batch that each image enters independently with
    probability q, and adds noise :math:`N(0, s^2 C^2 I)`; the next may depend on what came out. The promise is about
    two sets of the same size that differ in one image, x or x'.

    Proof. Show the attacker which other images are in the batch, which only helps them (hockey-stick divergences are
    jointly convex), and subtract their gradients. In units of s C, with gradients u and v of x and x', they compare
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

    The noise that is drawn is discrete, on a lattice; it promises what the continuous noise of this proof does
    (:class:`~monai_cadp.privacy.noisy_sum.SumLattice`), up to :math:`2^{-386}` of epsilon, which the float above
    epsilon pays for, and :math:`(1 + e^\epsilon) \, 2^{-127}` of delta. That and what the accountant rounds in
    floating-point numbers is covered by :math:`10^{-12}` of delta, for epsilons up to 50.

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
    return training_epsilon(
        [NoisySums(noise_multiplier, sampling_rate, steps)], delta, add_or_remove_one=add_or_remove_one
    )


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
    return noise_scale_for(epsilon, delta, [NoisySums(1.0, sampling_rate, steps)])


def noise_scale_for(
    epsilon: float, delta: float, parts: Sequence[NoisySums], *, add_or_remove_one: bool = False
) -> float:
    """Return how many times the noise of these sums is needed for (epsilon, delta) privacy of all together.

    Args:
        epsilon: above 0.
        delta: from 1e-10, and below 1.
        parts: sums whose multipliers say how the noise is shared out.
        add_or_remove_one: as for :func:`sgd_epsilon`.

    Returns:
        The factor of all multipliers, rounded up by less than a thousandth.

    Raises:
        ValueError: if a number is out of its range, or no multipliers from 0.25 to 1e6 give the epsilon.

    Example:
        >>> round(noise_scale_for(3.3, 1e-5, [NoisySums(4.0, replacement=2**0.5), NoisySums(2.0, 0.04, 300)]), 1)
        1.0
    """
    epsilon = checked_epsilon(epsilon)
    for part in parts:
        _check_sums(part)
    _check_delta(delta)
    return _noise_scale(epsilon, delta, tuple(parts), add_or_remove_one)


@lru_cache(maxsize=256)
def _noise_scale(epsilon: float, delta: float, parts: tuple[NoisySums, ...], add_or_remove_one: bool) -> float:
    from dp_accounting import ExplicitBracketInterval, calibrate_dp_mechanism

    multipliers = [part.noise_multiplier for part in parts]
    least, largest = LEAST_MULTIPLIER / min(multipliers), LARGEST_MULTIPLIER / max(multipliers)

    def enough(factor: float) -> bool:
        scaled = [part.scaled(factor) for part in parts]
        return training_epsilon(scaled, delta, add_or_remove_one=add_or_remove_one) <= epsilon

    # Doubled from a little, and never near 0, where the accountant's distributions grow without end.
    high = max(least, 1.0)
    while high <= largest and not enough(high):
        high *= 2
    while high / 2 >= least and enough(high / 2):
        high /= 2
    if high > largest:
        raise ValueError(f"epsilon {epsilon} with delta {delta} needs too much noise; use larger ones, or fewer steps.")
    if high / 2 < least:
        return high
    found: float = calibrate_dp_mechanism(
        lambda: _accountant(parts, add_or_remove_one),
        lambda factor: _event(parts, factor, add_or_remove_one),
        # A slight slack for the float above that `training_epsilon` returns.
        math.nextafter(epsilon, 0.0),
        delta - ROUNDING,
        ExplicitBracketInterval(high / 2, high),
        tol=high / 4096,
    )
    return found


def _event(parts: Sequence[NoisySums], factor: float, add_or_remove_one: bool) -> Any:
    from dp_accounting import ComposedDpEvent, GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent

    events = []
    for part in parts:
        # The accountant's contributions are 2 apart when one is replaced.
        distance = 1.0 if add_or_remove_one else part.replacement / 2
        event: Any = GaussianDpEvent(factor * part.noise_multiplier / distance)
        if part.sampling_rate < 1:
            event = PoissonSampledDpEvent(part.sampling_rate, event)
        events.append(SelfComposedDpEvent(event, part.steps))
    return ComposedDpEvent(events)


def _accountant(parts: Sequence[NoisySums], add_or_remove_one: bool) -> Any:
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import PLDAccountant

    relation = NeighboringRelation.ADD_OR_REMOVE_ONE if add_or_remove_one else NeighboringRelation.REPLACE_ONE
    interval = min(max(min(part.sampling_rate for part in parts) / 100, INTERVALS[0]), INTERVALS[1])
    return PLDAccountant(relation, value_discretization_interval=interval)


def _check_sums(part: NoisySums) -> None:
    if checked_positive("noise_multiplier", part.noise_multiplier) < LEAST_MULTIPLIER:
        raise ValueError(f"noise_multiplier is {part.noise_multiplier}; expected {LEAST_MULTIPLIER} or more.")
    if checked_positive("sampling_rate", part.sampling_rate) > 1:
        raise ValueError(f"sampling_rate is {part.sampling_rate}; expected a probability.")
    if isinstance(part.steps, bool) or not isinstance(part.steps, int) or part.steps < 1:
        raise ValueError(f"steps is {part.steps!r}; expected an integer of 1 or more.")
    if not 0 < part.replacement <= 2:
        raise ValueError(f"replacement is {part.replacement}; expected a number above 0, and 2 at most.")
    if part.sampling_rate < 1 and part.replacement != 2.0:
        raise ValueError("A sum over a random batch came with another replacement than 2, which is proved for it.")


def _check_delta(delta: float) -> None:
    if checked_delta(delta) < LEAST_DELTA:
        raise ValueError(f"delta is {delta}; expected {LEAST_DELTA:g} or more, which the accountant can tell from 0.")
