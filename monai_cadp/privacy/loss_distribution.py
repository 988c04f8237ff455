# SPDX-License-Identifier: Apache-2.0
"""Composition by distributions of the privacy loss, through dp_accounting."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from monai_cadp.privacy.checks import checked_delta
from monai_cadp.privacy.guarantee import PrivacyGuarantee
from monai_cadp.privacy.lattice import MAX_DIRECTIONS, Lattice

__all__ = ["composed_epsilon"]

# A hundred times the absolute error of the accountant's Fourier transforms, in units of delta.
ROUNDING = 1e-12


def composed_epsilon(guarantees: Iterable[PrivacyGuarantee], delta: float) -> float:
    r"""Return an epsilon for which releases by fixed mechanisms are (epsilon, delta) private together.

    Every mechanism is dominated by a pair of distributions of known privacy loss: a Gaussian mechanism by two normal
    distributions 2 C apart, everything else, whatever it is, by the worst pair that its own (epsilon, delta) admits
    (Kairouz, Oh, Viswanath 2015). Losses add as independent random numbers; dp_accounting rounds their distributions
    up. Composed guarantees are taken apart first.

    The discrete Gaussian D on a lattice is compared with the rounded continuous one, R, for which the normal
    distributions stand. By the bounds in :class:`~monai_cadp.privacy.gaussian.GaussianMechanism`, with :math:`\kappa =
    k / 8 s^2`, pointwise :math:`D_x \le e^\kappa R_x`, and but for a set of :math:`R_{x'}`-probability :math:`e^{-t^2 /
    2}` also :math:`R_{x'} \le e^{\eta - \kappa} D_{x'}`. Densities of adaptive compositions are products of those of
    their steps, so for n Gaussian releases among others, with :math:`\epsilon'` the epsilon of the composed losses at
    :math:`\delta'`,

    .. math:: \Pr_x[S] \le e^{\epsilon' + \sum \eta_i} \Pr_{x'}[S]
              + e^{\sum \kappa_i} (\delta' + n e^{\epsilon' - t^2 / 2}).

    With :math:`t^2 = 2 (\epsilon' + \ln n - \ln \delta + 30 \ln 2)` and :math:`\delta' = \delta (1 - \sum \kappa_i -
    2^{-20})` the last term is delta at most, as there. A further :math:`10^{-12}` of delta is left to the rounding
    errors of the accountant, which are absolute.

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
    gaussians = {step: count for step, count in counts.items() if step[0] == "gaussian"}
    # Of each Gaussian release: the scale s in steps of the lattice.
    scales = [(step[1] / Lattice(step[2], norm=2).step, count) for step, count in gaussians.items()]
    kappa = sum(count * MAX_DIRECTIONS / (8 * scale**2) for scale, count in scales)
    # Without Gaussian releases too: the accountant's own floating-point numbers round as they will.
    share = 1 - kappa - 2.0**-20 - ROUNDING / delta
    if share <= 0:
        return math.inf
    total = None
    for step, count in sorted(counts.items()):
        distribution = _distribution(*step).self_compose(count)
        total = distribution if total is None else total.compose(distribution)
    if total is None:
        return 0.0
    # The next float is not below it in the decimal reading either.
    epsilon = math.nextafter(total.get_epsilon_for_delta(delta * share), math.inf)
    num = sum(count for _, count in scales)
    if num == 0 or math.isinf(epsilon):
        return epsilon
    tail = math.sqrt(2 * (epsilon + math.log(num) - math.log(delta) + 30 * math.log(2)))
    length = (2 * math.sqrt(MAX_DIRECTIONS) + tail) ** 2
    return epsilon + sum(count * (2 * MAX_DIRECTIONS + length) / (8 * scale**2) for scale, count in scales)


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
        return privacy_loss_distribution.from_gaussian_mechanism(first * (1 - 2.0**-40), sensitivity=2 * second)
    return privacy_loss_distribution.from_privacy_parameters(common.DifferentialPrivacyParameters(first, second))
