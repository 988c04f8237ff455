# SPDX-License-Identifier: Apache-2.0
"""What several releases about the same person promise together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from monai_cadp.privacy.checks import checked_delta
from monai_cadp.privacy.exact_numbers import as_written, rounded_up
from monai_cadp.privacy.guarantee import PrivacyGuarantee
from monai_cadp.privacy.loss_distribution import composed_epsilon
from monai_cadp.privacy.training_data import UNPROTECTED, TrainingData

__all__ = ["compose", "include_training"]

WORTHWHILE = 0.01


def compose(
    guarantees: Iterable[PrivacyGuarantee], delta: float | None = None, *, unit: str | None = None
) -> PrivacyGuarantee:
    r"""Return the guarantee of several releases about the same person.

    Epsilons and deltas add. Proof. Let :math:`M_1, M_2` be :math:`(\epsilon_i, \delta_i)` private, the second for every
    output y of the first. Write a(y) for the probability that :math:`M_2(x, y)` falls into the section :math:`S_y` of
    a set S, and a'(y) for x'. Then :math:`a(y) \le \min(1, e^{\epsilon_2} a'(y)) + \delta_2`, and for any function f
    with values in [0, 1] :math:`E f(M_1(x)) \le e^{\epsilon_1} E f(M_1(x')) + \delta_1` (integrate over the level sets
    of f). With :math:`f = \min(1, e^{\epsilon_2} a')`: :math:`\Pr[S] \le e^{\epsilon_1 + \epsilon_2} \Pr'[S] +
    \delta_1 + \delta_2`. Later releases may therefore depend on earlier ones, and so may their mechanisms. The sums are
    formed exactly, of the decimal numbers as which the parts are written, and rounded up.

    With a ``delta``, the privacy losses are composed as distributions besides (:func:`composed_epsilon`), and the
    smaller epsilon counts, unless the sum of deltas is above ``delta``. That accountant needs mechanisms that were
    fixed before the first release; their inputs may depend on earlier outcomes. A plain sum is given up only for an
    epsilon that is at least a hundredth smaller: pure results stay pure where they can.

    What the networks have learnt from is united (:class:`TrainingData`): the same training twice is one, and two
    trainings with equal settings are two. Public facts are united.

    Args:
        guarantees: one or more, with the same relation.
        delta: what the composed guarantee may have as delta; None adds the parts' own.
        unit: what all releases together are about, such as "patient" for all images of a patient; needed where the
            units of the parts differ. To name a larger unit is to state that every release about it is among the parts.

    Returns:
        The guarantee of all of them together; ``parameters["parts"]`` lists the parts.

    Raises:
        ValueError: if there is none, if units differ and none is named, if the deltas reach 1, or if no epsilon can be
            stated for ``delta``.

    References:
        Dwork, Roth: The algorithmic foundations of differential privacy, 2014, theorem 3.16 and appendix B. Rogers,
        Roth, Ullman, Vadhan: Privacy odometers and filters, NeurIPS 2016 (sums of parameters chosen on the way).

    Example:
        >>> image = PrivacyGuarantee(epsilon=4.0, mechanism="SubsetSelection")
        >>> label = PrivacyGuarantee(epsilon=1.0, mechanism="RandomizedResponse")
        >>> compose([image, label]).epsilon
        5.0
        >>> compose([image, label], unit="patient").unit
        'patient'
    """
    parts = list(guarantees)
    if not parts:
        raise ValueError("No guarantee was given to compose; expected one or more.")
    units = sorted({part.unit for part in parts})
    if unit is None and len(units) > 1:
        raise ValueError(f"The guarantees have different units ({', '.join(units)}); name the unit of them all.")
    unit = units[0] if unit is None else unit
    if len(parts) == 1:
        return replace(parts[0], unit=unit)
    epsilon, total_delta = (
        rounded_up(sum((as_written(getattr(part, name)) for part in parts), Fraction(0)))
        for name in ("epsilon", "delta")
    )
    if delta is not None:
        delta = checked_delta(delta)
        sharper = composed_epsilon(parts, delta)
        if sharper < (1 - WORTHWHILE) * epsilon or total_delta > delta:
            epsilon, total_delta = sharper, delta
    if not total_delta < 1:
        raise ValueError(f"The deltas add up to {total_delta}, which promises nothing; compose fewer releases.")
    if math.isinf(epsilon):
        raise ValueError(
            "The epsilon of the releases together has no bound, which promises nothing; compose fewer releases, or "
            "allow a larger delta."
        )
    fingerprints = {part.fingerprint for part in parts if part.fingerprint is not None}
    return PrivacyGuarantee(
        unit=unit,
        relation=parts[0].relation,
        epsilon=epsilon,
        delta=total_delta,
        mechanism="composition",
        parameters={"parts": [part.to_dict() for part in parts]},
        public=tuple(dict.fromkeys(fact for part in parts for fact in part.public)),
        training_data=TrainingData(frozenset().union(*(part.training_data.entries for part in parts))),
        fingerprint=fingerprints.pop() if len(fingerprints) == 1 else None,
    )


def include_training(guarantee: PrivacyGuarantee, *, unit: str | None = None) -> PrivacyGuarantee:
    r"""Return what is promised to a person who is in the network's training set as well as among the released.

    The guarantee of all trainings with differential privacy together, brought to a replacement
    (:attr:`TrainingData.guarantee`), composes with that of the releases.

    Args:
        guarantee: of releases by the network.
        unit: the unit of both, where the training's differs from the releases'; see :func:`compose`.

    Returns:
        The guarantee that covers both; of a network trained on public data, the guarantee itself.

    Raises:
        ValueError: if the network has learnt from unprotected data, which nothing can cover, or the units differ and
            none is named.

    References:
        Dwork, Roth: The algorithmic foundations of differential privacy, 2014, theorem 2.2 (groups).

    Example:
        >>> trained = TrainingData.dp(epsilon=2.0, delta=1e-6, unit="image")
        >>> release = PrivacyGuarantee(4.0, "SubsetSelection", training_data=trained)
        >>> include_training(release).epsilon
        6.0
    """
    trained = guarantee.training_data
    if trained.protection == UNPROTECTED:
        raise ValueError(
            "The network has learned from unprotected data, or from data under guarantees that cannot be added up; no "
            "guarantee covers its people."
        )
    cover = trained.guarantee
    if cover is None:
        return guarantee
    training = PrivacyGuarantee(
        cover["epsilon"],
        "training with differential privacy",
        unit=cover["unit"],
        delta=cover["delta"],
        training_data=trained,
        fingerprint=guarantee.fingerprint,
    )
    return compose([guarantee, training], unit=unit)
