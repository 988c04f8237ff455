# SPDX-License-Identifier: Apache-2.0
"""A privacy guarantee as a document: for machines to keep, for people to read."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any

from monai_cadp.privacy.checks import stated
from monai_cadp.privacy.exact_numbers import as_read, as_written, rounded_up
from monai_cadp.privacy.interval import Interval, exponential
from monai_cadp.privacy.shuffling import Subset, shuffled_epsilon
from monai_cadp.privacy.training_data import TrainingData
from monai_cadp.privacy.unit import check_unit

__all__ = ["PrivacyGuarantee", "largest_auc"]

# Parameters of mechanisms that follow from epsilon and the other ones.
DERIVED = {
    "AttributeResponse": "threshold",
    "LaplaceMechanism": "lattice_scale",
    "RandomizedResponse": "threshold",
    "SubsetSelection": "thresholds",
}

# From here on, and long before, the largest area rounds up to 1.
LARGEST_EXPONENT = 1000.0

# How version 1 of the schema named what is ``training_data`` now: documents of that version are still read.
OLDER = "training", "training_guarantee"


def largest_auc(epsilon: float, delta: float = 0.0) -> float:
    r"""Return the largest area under the ROC curve with which any attacker tells two candidate inputs apart.

    Proof. A test with false-positive rate x and true-positive rate y obeys the promise for its set of outputs and
    for the complement, so :math:`y \le \min(\delta + e^\epsilon x,\; 1 - e^{-\epsilon}(1 - \delta - x),\; 1)`.
    The first two lines meet at :math:`x = a,\; y = 1 - a` with :math:`a = (1 - \delta) / (1 + e^\epsilon)`; the
    second reaches 1 at :math:`x = 1 - \delta`. The area below is the sum of two trapezoids and a rectangle,

    .. math:: \frac{a (\delta + 1 - a)}{2} + \frac{(1 - \delta - a)(2 - a)}{2} + \delta = 1 - a (1 - \delta)
              = 1 - \frac{(1 - \delta)^2}{1 + e^\epsilon}.

    With delta 0 this is :math:`e^\epsilon / (1 + e^\epsilon)`, which binary randomized response attains: the
    bound is tight. (It also bounds the accuracy of guessing between the two.)

    Args:
        epsilon: promised; infinity for no promise.
        delta: promised.

    Returns:
        An area, from 0.5 where nothing is spent to 1, rounded up.

    Example:
        >>> [round(largest_auc(epsilon), 2) for epsilon in (0.0, 1.0, 4.0, math.inf)]
        [0.5, 0.73, 0.98, 1.0]
    """
    exponent = as_written(min(epsilon, LARGEST_EXPONENT))
    growth = Fraction(exponential(Interval.of(exponent)).upper) if exponent else Fraction(1)
    return rounded_up(1 - (1 - as_written(delta)) ** 2 / (1 + growth))


class _PlainData:
    """An attribute of plain data that nobody can change: it is kept as text, and everybody reads a copy."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, guarantee: Any, owner: type) -> Any:
        # Of the class: the default.
        return None if guarantee is None else json.loads(guarantee.__dict__[self.name])

    def __set__(self, guarantee: Any, value: Any) -> None:
        guarantee.__dict__[self.name] = json.dumps(_plain(self.name, {} if value is None else value))


@dataclass(frozen=True)
class PrivacyGuarantee:
    r"""What a release promises to the person whom it is about: local differential privacy.

    For any two images x, x' of the same public facts, and any set S of outputs,

    .. math:: \Pr[M(x) \in S] \le e^\epsilon \Pr[M(x') \in S] + \delta.

    Args:
        epsilon: 0 or more, finite.
        mechanism: name of the mechanism.
        unit: what is protected as a whole: image, volume, row or patient.
        relation: which two inputs are compared; always replace-one.
        delta: 0 or more, below 1.
        parameters: plain data (numbers, strings, lists, dictionaries) that define the mechanism; public. What is read
            is a copy.
        public: names of the facts that are released as they are.
        training_data: all that the network has learnt from; unprotected unless somebody knows better.
        fingerprint: of the network.

    Raises:
        ValueError: if a part is not usable.

    Example:
        >>> guarantee = PrivacyGuarantee(epsilon=1.0, mechanism="SubsetSelection", public=("diagnosis",))
        >>> round(guarantee.attacker_auc_bound, 3)
        0.731
        >>> PrivacyGuarantee.from_json(guarantee.to_json()) == guarantee
        True
    """

    epsilon: float
    mechanism: str
    unit: str = "image"
    relation: str = "replace-one"
    delta: float = 0.0
    parameters: dict[str, Any] = _PlainData()  # type: ignore[assignment]
    public: tuple[str, ...] = ()
    training_data: TrainingData = field(default_factory=lambda: TrainingData.UNDECLARED)
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        keep = object.__setattr__
        keep(self, "epsilon", _number("epsilon", self.epsilon, math.inf))
        keep(self, "delta", _number("delta", self.delta, 1.0))
        if not isinstance(self.mechanism, str) or not self.mechanism.strip():
            raise ValueError(f"The mechanism of a guarantee is {self.mechanism!r}; expected a word.")
        check_unit(self.unit)
        if self.relation != "replace-one":
            raise ValueError(f"The relation is {self.relation!r}; expected 'replace-one', the only one proved here.")
        if isinstance(self.public, str) or not all(isinstance(fact, str) for fact in self.public):
            raise ValueError("The public facts are not usable; expected a tuple of names.")
        keep(self, "public", tuple(self.public))
        if not isinstance(self.training_data, TrainingData):
            kind = type(self.training_data).__name__
            raise ValueError(f"The training data of a guarantee are of type {kind}; expected TrainingData.")
        if self.fingerprint is not None and not isinstance(self.fingerprint, str):
            raise ValueError(f"The fingerprint is of type {type(self.fingerprint).__name__}; expected text or None.")

    def __hash__(self) -> int:
        # Without the parameters, of which 1 and 1.0 are equal.
        parts = (self.epsilon, self.delta, self.mechanism, self.unit, self.relation, self.public)
        return hash((*parts, self.training_data, self.fingerprint))

    @property
    def attacker_auc_bound(self) -> float:
        """The largest area under the ROC curve with which any attacker tells two candidate inputs apart.

        It is :func:`largest_auc` of epsilon and delta.
        """
        return largest_auc(self.epsilon, self.delta)

    def shuffled(self, num_releases: int, delta: float) -> PrivacyGuarantee:
        """Return what a set of such releases promises where nothing but the set is seen, in random order and nameless.

        Where a release is one choice among N candidates, N and the number m of the likelier ones make the epsilon
        smaller (:func:`~monai_cadp.privacy.shuffling.shuffled_epsilon`). A set that is too small to hide anybody has
        the epsilon of a single release. Every release must be drawn for this set: whoever sees the same recorded
        release in two sets knows that it is of somebody who is in both, and it hides among those alone.

        Args:
            num_releases: size of the set, one release of each person; where a fact such as the class is public, of
                the part of the set that shares it.
            delta: of the set, between 0 and 1.

        Returns:
            The guarantee of the whole set for each person in it.

        Raises:
            ValueError: if this guarantee is not pure, or a number is out of its range.

        Example:
            >>> local = PrivacyGuarantee(epsilon=4.0, mechanism="SubsetSelection")
            >>> local.shuffled(10_000, delta=1e-6).epsilon < 1
            True
        """
        if self.delta > 0:
            raise ValueError(
                f"The guarantee has delta {as_read(self.delta)}; only pure releases can be counted as shuffled."
            )
        epsilon = shuffled_epsilon(self.epsilon, num_releases, delta, self._subset()) if self.epsilon > 0 else 0.0
        parameters = {"num_releases": num_releases, "local": self.to_dict()}
        return replace(self, epsilon=epsilon, delta=float(delta), mechanism="shuffle", parameters=parameters)

    def without_derived(self) -> PrivacyGuarantee:
        """Return the guarantee without the integers of its mechanism that follow from the rest.

        A ledger knows releases by this one: versions that state more of the same mechanism find their releases in it.

        Example:
            >>> parameters = {"num_classes": 3, "threshold": "9223372036854775808"}
            >>> guarantee = PrivacyGuarantee(epsilon=0.7, mechanism="RandomizedResponse", parameters=parameters)
            >>> guarantee.without_derived().parameters
            {'num_classes': 3}
        """
        return replace(self, parameters=_without_derived(self.mechanism, self.parameters))

    def to_dict(self) -> dict[str, Any]:
        """Return the guarantee as plain data."""
        plain = {item.name: copy.deepcopy(getattr(self, item.name)) for item in fields(self)}
        return plain | {"public": list(self.public), "training_data": self.training_data.to_dict()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> PrivacyGuarantee:
        """Return the guarantee that ``to_dict`` has written; raises ValueError for anything else.

        A document of an older version, whose ``training`` was a caller's word, counts as one of unprotected training.
        """
        if isinstance(plain, dict) and "training_data" not in plain:
            plain = {name: value for name, value in plain.items() if name not in OLDER}
        known = {item.name for item in fields(cls)}
        if not isinstance(plain, dict) or set(plain) - known or not {"epsilon", "mechanism"} <= set(plain):
            raise ValueError("This is not a guarantee; expected the plain data that to_dict writes.")
        if not isinstance(plain.get("public", []), (list, tuple)):
            raise ValueError("The public facts are not usable; expected a list of names.")
        record = {"training_data": TrainingData.from_dict(plain["training_data"])} if "training_data" in plain else {}
        return cls(**{**plain, **record, "public": tuple(plain.get("public", ()))})

    def to_json(self) -> str:
        """Return the guarantee as JSON text, with sorted keys."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> PrivacyGuarantee:
        """Return the guarantee that ``to_json`` has written; raises ValueError for anything else."""
        try:
            plain = json.loads(text)
        except ValueError:
            raise ValueError("This is not a guarantee; expected the JSON text that to_json writes.") from None
        return cls.from_dict(plain)

    def explain(self) -> str:
        """Return in plain words what is promised, to whom, and what is not."""
        epsilon, delta, bound = as_read(self.epsilon), as_read(self.delta), as_read(self.attacker_auc_bound, digits=4)
        if self.epsilon == 0 and self.delta == 0:
            promise = (
                f"The release does not depend on the content of the {self.unit} at all (epsilon = 0): whatever the "
                f"{self.unit} looks like, every outcome has the same probability."
            )
        else:
            promise = (
                f"The protected unit is one {self.unit}. Replacing it by any other {self.unit} with the same public "
                f"facts changes the probability of any outcome of the release by a factor of at most e^{epsilon}"
                + (f", up to an extra probability of delta = {delta}" if self.delta else "")
                + f" (epsilon = {epsilon}, delta = {delta}, mechanism {self.mechanism}). "
                "No attacker, whatever else they know, tells two candidates apart with an area under the ROC curve "
                f"above {bound}, nor guesses right between them more often (0.5 is guessing, 1 is certainty)."
            )
        if self.mechanism == "shuffle":
            promise += (
                f" This holds where {self.parameters.get('num_releases')} releases or more share their public facts, "
                "and for those who see the set alone: its order is random and its names say nothing. Whoever learns "
                "which release is whose has the guarantee of a single release instead, epsilon = "
                f"{as_read(self._local_epsilon())}."
            )
        if self.public:
            facts = f"Not protected, because declared public and released as it is: {', '.join(self.public)}."
        else:
            facts = "No fact was declared public."
        adding = (
            f"The promise holds for one release of one {self.unit}: if several {self.unit}s show the same person, or "
            "one is released several times, the epsilons and the deltas add up."
        )
        if self.mechanism == "shuffle":
            adding = (
                f"The promise holds for one {self.unit} of the set: if k {self.unit}s of it show the same person, "
                "epsilon is k times as large for them, and delta (e^(k epsilon) - 1) / (e^epsilon - 1) times. For "
                "several sets of fresh releases the epsilons and the deltas add up."
            )
        general = "It does not hide what is true of people in general, nor anything that is published elsewhere."
        return " ".join([promise, facts, self.training_data.explain(), adding, general])

    def _subset(self) -> Subset | None:
        """Return N and m of a single choice by which one release is made; None for anything else."""
        get = self.parameters.get
        if self.mechanism == "RandomizedResponse":
            numbers: list[Any] = [get("num_classes"), 1]
        elif self.mechanism == "SubsetSelection" and get("num_blocks") == 1:
            size = get("subset_size")
            numbers = [get("num_candidates"), *(size if isinstance(size, list) else [size])]
        else:
            return None
        if len(numbers) != 2 or not all(type(number) is int for number in numbers):
            return None
        subset = Subset(*numbers)
        return subset if 1 <= subset.subset_size < subset.num_candidates else None

    def _local_epsilon(self) -> float:
        return float(self.parameters.get("local", {}).get("epsilon", math.inf))


def _without_derived(mechanism: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in parameters.items() if name != DERIVED.get(mechanism)}
    if mechanism == "composition" and "parts" in rest:
        rest["parts"] = [
            {**part, "parameters": _without_derived(part["mechanism"], part["parameters"])} for part in rest["parts"]
        ]
    return rest


def _number(name: str, value: Any, limit: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"The {name} of a guarantee is {stated(value)}; expected a number, 0 or more.")
    if not 0 <= value < limit:
        raise ValueError(f"The {name} of a guarantee is {value}; expected a number of 0 or more, below {limit:g}.")
    return float(value)


def _plain(name: str, value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        raise ValueError(f"The {name} of a guarantee are not plain data; give finite numbers, texts, lists.") from None
