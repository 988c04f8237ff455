# SPDX-License-Identifier: Apache-2.0
"""What the record of a network's trainings means, derived anew from its events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from typing import Any

from monai_cadp.certificate.document import UNITS, CertificateError, integer, number
from monai_cadp.certificate.enclosure import exp_enclosure
from monai_cadp.certificate.noise import AGREEMENT, sums_epsilon

__all__ = ["derived_training"]

EVENT = {"identity", "segment", "resumes", "kind", "protection", "guarantee"}
PROTECTIONS = ("public", "dp", "unprotected")
# Epsilons and deltas of trainings are added in floating-point numbers; those of the record are rounded up.
ROUNDING = Fraction(1, 10**12)


def derived_training(training: Any, name: str) -> str:
    """Check a record of trainings, and say what was found.

    Args:
        training: the record, as :func:`~monai_cadp.certificate.document.parsed` reads it.
        name: of the record, for errors.

    Returns:
        A sentence about protection, epsilon, and how these were found.

    Raises:
        CertificateError: if the record is not usable, states another protection than its events have, or a training
            states less than dp_accounting finds.

    Example:
        >>> derived_training({"protection": "public", "guarantee": None, "events": []}, "the record")
        'public: nobody unprotected is in the record (by the word of whoever declared each training)'
    """
    if not isinstance(training, Mapping) or set(training) != {"protection", "guarantee", "events"}:
        raise CertificateError(f"{name} is not a record of trainings; release again with this version.")
    events = training["events"]
    if not isinstance(events, list) or not all(isinstance(event, Mapping) and set(event) == EVENT for event in events):
        raise CertificateError(f"{name}.events is not a list of trainings; release again with this version.")
    for index, event in enumerate(events):
        _check_event(event, f"{name}.events.{index}")
    weakest = max((event["protection"] for event in events), key=PROTECTIONS.index, default="public")
    stated = training["guarantee"]
    if training["protection"] == "unprotected":
        if stated is not None:
            raise CertificateError(f"{name}.guarantee is given for unprotected data; expected none.")
        # Also where guarantees cannot be added up; nothing is promised then.
        return "unprotected: no guarantee covers the people from whom the network has learned"
    if training["protection"] != weakest:
        raise CertificateError(f"{name}.protection is {training['protection']!r}, but its events are {weakest!r}.")
    if weakest == "public":
        if stated is not None:
            raise CertificateError(f"{name}.guarantee is given for public data; expected none.")
        return "public: nobody unprotected is in the record (by the word of whoever declared each training)"
    if not isinstance(stated, Mapping) or set(stated) != {"epsilon", "delta", "unit", "relation"}:
        raise CertificateError(f"{name}.guarantee is not usable; expected epsilon, delta, unit and relation.")
    units = {event["guarantee"]["unit"] for event in events if event["guarantee"] is not None}
    if [stated["unit"]] != list(units) or stated["relation"] != "replace-one":
        raise CertificateError(f"{name}.guarantee has another unit or relation than its trainings.")
    epsilon, delta = _total(events)
    if delta >= 1:
        raise CertificateError(f"{name}.guarantee has a delta of 1 or more, which protects nobody; release again.")
    for part, total in (("epsilon", epsilon), ("delta", delta)):
        if total > number(stated[part], f"{name}.guarantee.{part}") * (1 + ROUNDING):
            raise CertificateError(
                f"{name}.guarantee.{part} is {stated[part]}, but its trainings have {float(total):.9g}."
            )
    found = [
        _derive_event(event["guarantee"], f"{name}.events.{index}")
        for index, event in enumerate(events)
        if event["guarantee"]
    ]
    how = (
        "derived by dp_accounting, to a thousandth" if all(found) else "stated, not derived: a training lacks its sums"
    )
    return f"dp: epsilon {_as_read(epsilon)}, delta {_as_read(delta)} for one {stated['unit']} ({how})"


def _as_read(value: Fraction) -> str:
    """Return a number as people read it: of six digits at most, and not below what it is."""
    up = Context(6, ROUND_CEILING).divide(Decimal(value.numerator), Decimal(value.denominator))
    return f"{float(up):.6g}"


def _check_event(event: Mapping[str, Any], name: str) -> None:
    if event["protection"] not in PROTECTIONS or (event["guarantee"] is not None) != (event["protection"] == "dp"):
        raise CertificateError(f"{name} has an unknown protection, or a guarantee that does not fit it.")
    texts = [
        event["identity"],
        event["segment"],
        event["kind"],
        *([event["resumes"]] if event["resumes"] is not None else []),
    ]
    if not all(isinstance(text, str) and text for text in texts):
        raise CertificateError(f"{name} lacks the texts by which it is known; expected them as they were written.")
    if event["guarantee"] is not None:
        guarantee = event["guarantee"]
        if not isinstance(guarantee, Mapping) or not {"epsilon", "delta", "unit"} <= set(guarantee):
            raise CertificateError(f"{name}.guarantee is not usable; expected epsilon, delta and unit.")
        if guarantee["unit"] not in UNITS:
            raise CertificateError(f"{name}.guarantee.unit is unknown; expected one of {', '.join(UNITS)}.")
        number(guarantee["epsilon"], f"{name}.guarantee.epsilon")
        if number(guarantee["delta"], f"{name}.guarantee.delta") >= 1:
            raise CertificateError(f"{name}.guarantee.delta is 1 or more, which promises nothing; expected less.")


def _total(events: list[Mapping[str, Any]]) -> tuple[Fraction, Fraction]:
    """Return the sums over all trainings; one that was resumed from the same point several times counts as often."""
    epsilon, delta = Fraction(0), Fraction(0)
    for identity in {event["identity"] for event in events}:
        run = [event for event in events if event["identity"] == identity]
        pairs = [_for_replacement(event["guarantee"]) for event in run if event["guarantee"] is not None]
        if pairs:
            starts = {event["resumes"] for event in run}
            ends = {start: len({event["segment"] for event in run if event["resumes"] == start}) for start in starts}
            count = 1 + sum(end - 1 for end in ends.values())
            epsilon += count * max(pair[0] for pair in pairs)
            delta += count * max(pair[1] for pair in pairs)
    return epsilon, delta


def _for_replacement(guarantee: Mapping[str, Any]) -> tuple[Fraction, Fraction]:
    """Return epsilon and delta for a replacement, which is to remove one and to add another."""
    epsilon, delta = number(guarantee["epsilon"], "epsilon"), number(guarantee["delta"], "delta")
    if guarantee.get("relation") == "replace-one":
        return epsilon, delta
    return 2 * epsilon, (1 + exp_enclosure(epsilon)[0]) * delta


def _derive_event(guarantee: Mapping[str, Any], name: str) -> bool:
    """Refuse a training that states less than its sums give; return whether it has any."""
    sums = guarantee.get("sums")
    if sums is None:
        return False
    if not isinstance(sums, list) or not all(isinstance(part, list) and len(part) == 4 for part in sums) or not sums:
        raise CertificateError(f"{name}.guarantee.sums are not usable; expected lists of four numbers.")
    parts = []
    for part in sums:
        multiplier, rate, distance = (float(number(part[place], f"{name}.guarantee.sums")) for place in (0, 1, 3))
        steps = integer(part[2], f"{name}.guarantee.sums", 1, 10**9)
        if not (multiplier >= 0.25 and 0 < rate <= 1 and 0 < distance <= 2 and (rate == 1 or distance == 2)):
            raise CertificateError(f"{name}.guarantee.sums are out of range; expected noise of 0.25 and rates up to 1.")
        parts.append((multiplier, rate, steps, distance))
    replaced = guarantee.get("relation") == "replace-one"
    epsilon, delta = (float(number(guarantee[part], name)) for part in ("epsilon", "delta"))
    found = sums_epsilon(tuple(parts), delta, add_or_remove_one=not replaced) if delta > 0 else math.inf
    if found > AGREEMENT * epsilon:
        raise CertificateError(f"{name}.guarantee states epsilon {epsilon:.9g}, but its sums give {found:.9g}.")
    return True
