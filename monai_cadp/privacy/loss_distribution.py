# SPDX-License-Identifier: Apache-2.0
"""Composition by distributions of the privacy loss, through dp_accounting."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from monai_cadp.privacy.checks import checked_delta
from monai_cadp.privacy.discrete_gaussian import continuous_deviation
from monai_cadp.privacy.guarantee import PrivacyGuarantee
from monai_cadp.privacy.lattice import Lattice

__all__ = ["composed_epsilon"]

# A hundred times the absolute error of the accountant's Fourier transforms, in units of delta.
ROUNDING = 1e-12
# Of epsilon, for all lattices together: far more than the 2^-386 that is proved.
LATTICES = 2.0**-300


def composed_epsilon(guarantees: Iterable[PrivacyGuarantee], delta: float) -> float:
    r"""Return an epsilon for which releases by fixed mechanisms are (epsilon, delta) private together.

    Every mechanism is dominated by a pair of distributions of known privacy loss: a Gaussian mechanism by two normal
    distributions 2 C apart, everything else, whatever it is, by the worst pair that its own (epsilon, delta) admits
    (Kairouz, Oh, Viswanath 2015). Losses add as independent random numbers; dp_accounting rounds their distributions
    up. Composed guarantees are taken apart first.

    A discrete Gaussian of scale s, in steps of its lattice, stands for the continuous one of the deviation
    :math:`\sqrt{s^2 - 16}`, rounded down (:func:`~monai_cadp.privacy.discrete_gaussian.continuous_deviation`, which
    also proves it for many releases: :math:`2^{-386}` of epsilon and of delta's factor pay for all of them). A share of
    :math:`2^{-20}` of delta, and a further :math:`10^{-12}`, is left to the rounding errors of the accountant, which
    are absolute.

    Args:
        guarantees: one or more.
        delta: between 0 and 1.

    Returns:
        The epsilon; infinite where delta is too small.

    Raises:
        ValueError: if delta is out of its range.

    References:
        Koskela, Jaelkoe, Honkela: Computing tight differential privacy guarantees using FFT, AISTATS 2020. Kairouz, Oh,
        Viswanath: The composition theorem for differential privacy, ICML 2015.

    Example:
        >>> one = PrivacyGuarantee(epsilon=0.1, mechanism="SubsetSelection")
        >>> composed_epsilon([one] * 100, delta=1e-5) < 5
        True
    """
    delta = checked_delta(delta)
    counts = Counter(_steps(guarantees))
    share = 1 - 2.0**-20 - ROUNDING / delta
    if share <= 0:
        return math.inf
    total = None
    for step, count in sorted(counts.items()):
        distribution = _distribution(*step).self_compose(count)
        total = distribution if total is None else total.compose(distribution)
    if total is None:
        return 0.0
    epsilon = total.get_epsilon_for_delta(delta * share)
    # The next float is not below it in the decimal reading either, and above it by more than lattices cost.
    return math.nextafter(epsilon + LATTICES, math.inf)


Step = tuple[str, float, float]


def _steps(guarantees: Iterable[PrivacyGuarantee]) -> Iterator[Step]:
    for guarantee in guarantees:
        if guarantee.mechanism == "composition":
            yield from _steps(PrivacyGuarantee.from_dict(part) for part in guarantee.parameters["parts"])
        elif guarantee.mechanism == "GaussianMechanism":
            yield "gaussian", guarantee.parameters["noise_deviation"], guarantee.parameters["clipping_bound"]
        elif guarantee.epsilon > 0 or guarantee.delta > 0:
            yield "stated", guarantee.epsilon, guarantee.delta


def _distribution(kind: str, first: float, second: float) -> Any:
    from dp_accounting.pld import common, privacy_loss_distribution

    if kind == "gaussian":
        step = Lattice(second, norm=2).step
        deviation = continuous_deviation(Fraction(first) ** 2 / Fraction(step) ** 2) * Fraction(step)
        # The factor is for the roundings in `noise_deviation` and here.
        return privacy_loss_distribution.from_gaussian_mechanism(
            float(deviation) * (1 - 2.0**-40), sensitivity=2 * second
        )
    return privacy_loss_distribution.from_privacy_parameters(common.DifferentialPrivacyParameters(first, second))
