# SPDX-License-Identifier: Apache-2.0
"""What several releases about the same person promise together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

from monai_cadp.privacy.guarantee import TRAININGS, PrivacyGuarantee

__all__ = ["compose"]


def compose(guarantees: Iterable[PrivacyGuarantee]) -> PrivacyGuarantee:
    r"""Return the guarantee of several releases about the same person: epsilons and deltas add.

    Proof. Let :math:`M_1, M_2` be :math:`(\epsilon_i, \delta_i)` private, the second for every output y of the first.
    Write a(y) for the probability that :math:`M_2(x, y)` falls into the section :math:`S_y` of a set S, and a'(y) for
    x'. Then :math:`a(y) \le \min(1, e^{\epsilon_2} a'(y)) + \delta_2`, and for any function f with values in [0, 1]
    :math:`E f(M_1(x)) \le e^{\epsilon_1} E f(M_1(x')) + \delta_1` (integrate over the level sets of f). With :math:`f
    = \min(1, e^{\epsilon_2} a')`: :math:`\Pr[S] \le e^{\epsilon_1 + \epsilon_2} \Pr'[S] + \delta_1 + \delta_2`. Later
    releases may therefore depend on earlier ones. The sums are formed exactly and rounded up.

    The weakest training is stated: private before dp-sgd before public. Several dp-sgd trainings whose guarantees
    differ count as private, because no single one of them covers everybody. Public facts are united.

    Args:
        guarantees: one or more, with the same unit and relation.

    Returns:
        The guarantee of all of them together; ``parameters["parts"]`` lists the parts.

    Raises:
        ValueError: if there is none, if units or relations differ, or if the deltas reach 1.

    References:
        Dwork, Roth: The algorithmic foundations of differential privacy, 2014, theorem 3.16 and appendix B.

    Example:
        >>> image = PrivacyGuarantee(epsilon=4.0, mechanism="SubsetSelection")
        >>> label = PrivacyGuarantee(epsilon=1.0, mechanism="RandomizedResponse")
        >>> compose([image, label]).epsilon
        5.0
    """
    parts = list(guarantees)
    if not parts:
        raise ValueError("No guarantee was given to compose; expected one or more.")
    for name in ("unit", "relation"):
        found = sorted({getattr(part, name) for part in parts})
        if len(found) > 1:
            raise ValueError(f"The guarantees have different {name}s ({', '.join(found)}); compose one {name} only.")
    if len(parts) == 1:
        return parts[0]
    epsilon, delta = (_sum_rounded_up([getattr(part, name) for part in parts]) for name in ("epsilon", "delta"))
    if not delta < 1:
        raise ValueError(f"The deltas add up to {delta}, which promises nothing; compose fewer releases.")
    if math.isinf(epsilon):
        raise ValueError("The epsilons add up to more than a number can hold, which promises nothing.")
    training = min((part.training for part in parts), key=TRAININGS.index)
    covers = [part.training_guarantee for part in parts if part.training == "dp-sgd"]
    if training == "dp-sgd" and any(cover != covers[0] for cover in covers):
        training = "private"
    fingerprints = {part.fingerprint for part in parts if part.fingerprint is not None}
    return PrivacyGuarantee(
        unit=parts[0].unit,
        relation=parts[0].relation,
        epsilon=epsilon,
        delta=delta,
        mechanism="composition",
        parameters={"parts": [part.to_dict() for part in parts]},
        public=tuple(dict.fromkeys(fact for part in parts for fact in part.public)),
        training=training,
        training_guarantee=covers[0] if training == "dp-sgd" else None,
        fingerprint=fingerprints.pop() if len(fingerprints) == 1 else None,
    )


def _sum_rounded_up(values: list[float]) -> float:
    exact = sum(map(Fraction, values), Fraction(0))
    try:
        total = float(exact)
    except OverflowError:
        return math.inf
    return total if Fraction(total) >= exact else math.nextafter(total, math.inf)
