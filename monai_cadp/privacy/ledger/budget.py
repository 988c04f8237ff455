# SPDX-License-Identifier: Apache-2.0
"""How much of a subject's privacy may be spent, and what has been."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from monai_cadp.privacy.checks import checked_epsilon
from monai_cadp.privacy.exact_numbers import as_written, rounded_up
from monai_cadp.privacy.guarantee import PrivacyGuarantee
from monai_cadp.privacy.loss_distribution import composed_epsilon

__all__ = ["ACCOUNTINGS", "Budget"]

ACCOUNTINGS = ("sum", "identical")


@dataclass(frozen=True)
class Budget:
    r"""What all releases of one subject together may cost.

    With accounting "sum", epsilons and deltas add up, and neither sum may pass its cap. Which mechanism comes next, and
    with how much, may be decided in sight of all earlier releases: by the proof of
    :func:`~monai_cadp.privacy.composition.compose`, a stop before either sum would be passed makes the whole sequence
    (epsilon, delta) private (Rogers, Roth, Ullman, Vadhan: for sums such a filter is free).

    With accounting "identical", the losses are composed as distributions
    (:func:`~monai_cadp.privacy.loss_distribution.composed_epsilon`), which allows more releases for a positive delta.
    That accountant takes the mechanisms as fixed beforehand, and a budget that is spent in sight of earlier releases
    fixes nothing; so all releases of a subject must be by one mechanism with one set of parameters. Proof. Let K be
    the largest number of releases whose composed epsilon at the cap of delta fits. The K releases together are
    (epsilon, delta) private, whatever the inputs of later ones are chosen by; a subject with T of them, T decided on
    the way, shows the first T of K, which is post-processing.

    Args:
        epsilon: cap of the composed epsilon, above 0.
        delta: cap of the composed delta, 0 or more, below 1.
        accounting: "sum" or "identical".

    Raises:
        ValueError: if a number is out of its range, or the word is unknown.

    References:
        Rogers, Roth, Ullman, Vadhan: Privacy odometers and filters, NeurIPS 2016. Feldman, Zrnic: Individual privacy
        accounting via a Renyi filter, NeurIPS 2021 (why fixed-order accountants need more care).

    Example:
        >>> one = PrivacyGuarantee(epsilon=0.1, mechanism="SubsetSelection")
        >>> budget = Budget(epsilon=1.0)
        >>> budget.allows({one: 10}), budget.allows({one: 11})
        (True, False)
    """

    epsilon: float
    delta: float = 0.0
    accounting: str = "sum"

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", checked_epsilon(self.epsilon))
        if isinstance(self.delta, bool) or not isinstance(self.delta, int | float) or not 0 <= self.delta < 1:
            raise ValueError(f"The cap of delta is {self.delta!r}; expected a number from 0 to below 1.")
        object.__setattr__(self, "delta", float(self.delta))
        if self.accounting not in ACCOUNTINGS:
            raise ValueError(f"The accounting is {self.accounting!r}; expected one of {', '.join(ACCOUNTINGS)}.")

    def spent(self, releases: Mapping[PrivacyGuarantee, int]) -> tuple[float, float]:
        """Return the epsilon and delta of releases, each with its number, by this budget's accounting, rounded up.

        Raises:
            ValueError: if they are not identical where they have to be.
        """
        epsilon, delta = _totals(self, tuple(releases.items()))
        return rounded_up(epsilon), rounded_up(delta)

    def allows(self, releases: Mapping[PrivacyGuarantee, int]) -> bool:
        """Return whether releases, each with its number, stay within both caps; raises as :meth:`spent`."""
        epsilon, delta = _totals(self, tuple(releases.items()))
        return epsilon <= as_written(self.epsilon) and delta <= as_written(self.delta)


# Most subjects of a batch have the same account.
@lru_cache(maxsize=4096)
def _totals(budget: Budget, releases: tuple[tuple[PrivacyGuarantee, int], ...]) -> tuple[Fraction, Fraction]:
    epsilon = sum((as_written(one.epsilon) * number for one, number in releases), Fraction(0))
    delta = sum((as_written(one.delta) * number for one, number in releases), Fraction(0))
    if budget.accounting == "sum" or not releases:
        return epsilon, delta
    if len(releases) > 1:
        raise ValueError(
            f"The releases of a subject are by {len(releases)} different mechanisms; this ledger's accounting "
            "expects the same one with the same parameters every time."
        )
    ((one, number),) = releases
    cap = as_written(budget.delta)
    # Whichever of the two accounts fits; the sum is known without effort.
    if budget.delta == 0 or (epsilon <= as_written(budget.epsilon) and delta <= cap):
        return epsilon, delta
    composed = composed_epsilon([one] * number, budget.delta)
    return (as_written(composed), cap) if math.isfinite(composed) else (epsilon, delta)
