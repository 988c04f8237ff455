# SPDX-License-Identifier: Apache-2.0
"""What a network has learnt from, and how those people are protected: computed from a record that only grows."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

from monai_cadp.privacy.exact_numbers import as_written, rounded_up
from monai_cadp.privacy.interval import Interval, exponential

__all__ = ["DP", "PUBLIC", "UNPROTECTED", "TrainingData"]

PUBLIC, DP, UNPROTECTED = "public", "dp", "unprotected"
# Weakest last.
PROTECTIONS = (PUBLIC, DP, UNPROTECTED)
# e to this, times the smallest float, is above 1.
LARGEST_EXPONENT = Fraction(1000)
# Of a stated number, by which it may differ from the one that is computed anew and counts.
STATED = 1e-12
FIELDS = ("identity", "segment", "resumes", "kind", "protection", "guarantee")


@dataclass(frozen=True)
class TrainingData:
    r"""The set of all trainings that a network, or a release, goes back to.

    Every training is an event with an identity of its own, drawn from the operating system when it begins. Records are
    merged as sets: the same training twice is one, two trainings with equal settings are two. What the set means is
    computed from it and never taken from anybody's word:

    - one unprotected event makes everything UNPROTECTED, for ever;
    - else, with events under differential privacy, everything is DP, with the guarantee of them all together
      (:attr:`guarantee`);
    - else it is PUBLIC, as is a network that was never trained.

    A training that goes on after an interruption keeps its identity and begins a new segment. If its parts were
    declared differently, the least safe declaration holds for the whole. A segment that was resumed twice, by two
    processes that went on separately, is a training that was run twice, and counts once more for every such fork.

    Proof that nothing is ever lowered. Let the order be public < dp < unprotected, and let guarantees of one unit be
    ordered by epsilon and delta. The protection of an identity is the largest of its entries, and its guarantee has the
    largest epsilon and delta among them. It counts :math:`1 + \sum_r \max(0, c_r - 1)` times, where :math:`c_r` is the
    number of segments that resume the segment r; none of these falls when entries are added. The protection of a set is
    the largest of its identities, and sums of numbers that are 0 or more grow with their terms. What cannot be summed
    up (units that differ, a total that promises nothing) is unprotected, and stays so with more events. So every
    quantity is monotonic in the set, and sets only grow.

    Composition. A guarantee for adding or removing one unit holds for its replacement with :math:`2 \epsilon` and
    :math:`(1 + e^\epsilon) \delta`, for to replace is to remove and to add: :math:`\Pr[S] \le e^\epsilon (e^\epsilon
    \Pr''[S] + \delta) + \delta`. Epsilons and deltas then add (:func:`~monai_cadp.privacy.compose`), also where the
    trainings share people; sums are formed exactly and rounded up.

    Args:
        entries: the events as JSON texts; use the class methods instead.

    Raises:
        ValueError: if an entry is not usable.

    Example:
        >>> first, second = (TrainingData.dp(epsilon=2.0, delta=1e-6, unit="image") for _ in range(2))
        >>> (first | second).guarantee["epsilon"], (first | first).guarantee["epsilon"]
        (4.0, 2.0)
        >>> (first | TrainingData.unprotected()).protection
        'unprotected'
        >>> TrainingData().protection
        'public'
    """

    entries: frozenset[str] = frozenset()

    UNDECLARED: ClassVar[TrainingData]

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", frozenset(_checked(json.loads(entry)) for entry in self.entries))

    @classmethod
    def of(cls, source: Any) -> TrainingData:
        """Return the record that a network carries, or of a list of such events.

        Args:
            source: something with ``training_events``, or the events as plain data.

        Raises:
            ValueError: if an event is not usable.
        """
        events = getattr(source, "training_events", source)
        if not isinstance(events, Iterable) or isinstance(events, str | Mapping):
            raise ValueError("The record of trainings is not usable; expected a list of events.")
        return cls(frozenset(_checked(event) for event in events))

    @classmethod
    def public(cls, kind: str = "training") -> TrainingData:
        """Return the record of one training on data that anybody may see."""
        return cls.of([_event(kind, PUBLIC)])

    @classmethod
    def unprotected(cls, kind: str = "training") -> TrainingData:
        """Return the record of one training on people's data without protection."""
        return cls.of([_event(kind, UNPROTECTED)])

    @classmethod
    def dp(
        cls, epsilon: float, delta: float, unit: str, relation: str = "replace-one", kind: str = "training", **more: Any
    ) -> TrainingData:
        """Return the record of one training with differential privacy.

        Args:
            epsilon: of the training, 0 or more.
            delta: of the training, below 1.
            unit: what is protected: image, volume, patient or row.
            relation: "replace-one", or "add-or-remove-one".
            kind: what was done, in a word.
            more: what else defines the guarantee, as plain data.
        """
        guarantee = {"epsilon": epsilon, "delta": delta, "unit": unit, "relation": relation, **more}
        return cls.of([_event(kind, DP, guarantee)])

    def __or__(self, other: TrainingData) -> TrainingData:
        """Return the union of both records."""
        return TrainingData(self.entries | other.entries)

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events as plain data, in a fixed order."""
        return [json.loads(entry) for entry in sorted(self.entries)]

    @property
    def protection(self) -> str:
        """How everybody in the training data is protected: PUBLIC, DP or UNPROTECTED."""
        return self._meaning[0]

    @property
    def guarantee(self) -> dict[str, Any] | None:
        """Epsilon, delta and unit of all trainings together, for a replacement; exactly where the protection is DP."""
        meaning = self._meaning[1]
        return None if meaning is None else dict(meaning)

    @cached_property
    def _meaning(self) -> tuple[str, dict[str, Any] | None]:
        runs: dict[str, list[dict[str, Any]]] = {}
        for event in self.events:
            runs.setdefault(event["identity"], []).append(event)
        weakest = max((event["protection"] for event in self.events), key=PROTECTIONS.index, default=PUBLIC)
        if weakest != DP:
            return weakest, None
        epsilon, delta, units = Fraction(0), Fraction(0), set()
        for run in runs.values():
            guarantees = [event["guarantee"] for event in run if event["protection"] == DP]
            if guarantees:
                pairs = [_for_replacement(guarantee) for guarantee in guarantees]
                resumed: dict[str | None, set[str]] = {}
                for event in run:
                    resumed.setdefault(event["resumes"], set()).add(event["segment"])
                count = 1 + sum(len(segments) - 1 for segments in resumed.values())
                epsilon += count * max(pair[0] for pair in pairs)
                delta += count * max(pair[1] for pair in pairs)
                units |= {guarantee["unit"] for guarantee in guarantees}
        total = {"epsilon": rounded_up(epsilon), "delta": rounded_up(delta)}
        if len(units) > 1 or math.isinf(total["epsilon"]) or not total["delta"] < 1:
            return UNPROTECTED, None
        return DP, {**total, "unit": units.pop(), "relation": "replace-one"}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: what the record means, and all its events."""
        return {"protection": self.protection, "guarantee": self.guarantee, "events": self.events}

    @classmethod
    def from_dict(cls, plain: Any) -> TrainingData:
        """Return the record that :meth:`to_dict` has written; what it means is computed anew.

        A guarantee that is None and an empty list of events may be left out.

        Raises:
            ValueError: if this is no such record, or it states something else than its events mean.
        """
        if not isinstance(plain, Mapping) or not {"protection"} <= set(plain) <= {"protection", "guarantee", "events"}:
            raise ValueError("The training data are not usable; expected the plain data that to_dict writes.")
        record = cls.of(plain.get("events") or [])
        if plain["protection"] != record.protection or not _is_stated(plain.get("guarantee"), record.guarantee):
            raise ValueError(
                "The training data state another protection than their events have; restore the document as it was "
                "written."
            )
        return record

    def explain(self) -> str:
        """Return in plain words who in the training data is protected, and how."""
        if not self.entries:
            return "The network was never trained, so its training puts nobody at risk."
        if self.protection == PUBLIC:
            return "The network was trained on public data, so its training puts nobody at risk."
        if self.protection == DP:
            guarantee = self.guarantee or {}
            stated = ", ".join(f"{name} = {guarantee[name]}" for name in ("epsilon", "delta", "unit"))
            return (
                "The people in the training set of the network are covered by a separate guarantee of its "
                f"differentially private training: {stated}."
            )
        kinds = sorted({event["kind"] for event in self.events if event["protection"] == UNPROTECTED})
        found = f" ({', '.join(kinds)})" if kinds else ""
        return (
            f"The network learned from unprotected data{found}: this guarantee does not cover the people in its "
            "training set."
        )


def _event(kind: str, protection: str, guarantee: dict[str, Any] | None = None) -> dict[str, Any]:
    event = {"identity": secrets.token_hex(16), "segment": secrets.token_hex(16), "resumes": None}
    return {**event, "kind": kind, "protection": protection, "guarantee": guarantee}


def _checked(event: Any) -> str:
    """Return an event as a JSON text."""
    if not isinstance(event, Mapping) or set(event) != set(FIELDS):
        raise ValueError(f"A training is not usable; expected a dictionary with {', '.join(FIELDS)}.")
    for name in ("identity", "segment", "kind"):
        if not isinstance(event[name], str) or not event[name]:
            raise ValueError(f"The {name} of a training is not usable; expected a text.")
    if event["resumes"] is not None and not isinstance(event["resumes"], str):
        raise ValueError("What a training resumes is not usable; expected the segment of a training, or None.")
    if event["protection"] not in PROTECTIONS:
        raise ValueError(f"The training data are {event['protection']!r}; expected {PUBLIC}, {DP} or {UNPROTECTED}.")
    guarantee = event["guarantee"]
    if (guarantee is not None) != (event["protection"] == DP):
        raise ValueError("A training has a guarantee exactly when its data are protected by it; give both or neither.")
    if guarantee is not None:
        _check_guarantee(guarantee)
    try:
        return json.dumps({name: event[name] for name in FIELDS}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("The guarantee of a training is not plain data; give finite numbers, texts, lists.") from None


def _check_guarantee(guarantee: Any) -> None:
    if not isinstance(guarantee, Mapping) or not {"epsilon", "delta", "unit"} <= set(guarantee):
        raise ValueError("The guarantee of a training is not usable; expected epsilon, delta and unit.")
    for name, limit in (("epsilon", math.inf), ("delta", 1.0)):
        value = guarantee[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < limit:
            raise ValueError(f"The {name} of a training is {value!r}; expected a number of 0 or more, below {limit:g}.")
    if not isinstance(guarantee["unit"], str) or not guarantee["unit"].strip():
        raise ValueError("The unit of a training is not usable; expected a word.")


def _is_stated(stated: Any, meant: Mapping[str, Any] | None) -> bool:
    """Whether a document states a guarantee, up to the last digits, which older versions rounded otherwise."""
    if stated is None or meant is None:
        return stated is meant
    if not isinstance(stated, Mapping) or stated.keys() != meant.keys():
        return False
    numbers = ("epsilon", "delta")
    return all(stated[name] == meant[name] for name in meant if name not in numbers) and all(
        isinstance(stated[name], int | float) and math.isclose(stated[name], meant[name], rel_tol=STATED)
        for name in numbers
    )


def _for_replacement(guarantee: Mapping[str, Any]) -> tuple[Fraction, Fraction]:
    """Return epsilon and delta for the replacement of one unit, of the numbers as they are written; not below them."""
    epsilon, delta = as_written(guarantee["epsilon"]), as_written(guarantee["delta"])
    if guarantee.get("relation") == "replace-one":
        return epsilon, delta
    # Beyond, any delta but 0 is above 1, and promises nothing.
    growth = exponential(Interval.of(min(epsilon, LARGEST_EXPONENT))).upper
    return 2 * epsilon, (1 + Fraction(growth)) * delta


# Of whatever nobody has said anything about.
TrainingData.UNDECLARED = TrainingData.of(
    [
        {
            "identity": "undeclared",
            "segment": "undeclared",
            "resumes": None,
            "kind": "undeclared",
            "protection": UNPROTECTED,
            "guarantee": None,
        }
    ]
)
