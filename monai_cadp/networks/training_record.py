# SPDX-License-Identifier: Apache-2.0
"""What a network has learnt from, as plain data that only grows."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["as_events", "as_texts", "checked_event", "derived_event", "new_event"]

PROTECTIONS = ("public", "dp", "unprotected")
FIELDS = ("identity", "segment", "resumes", "kind", "protection", "guarantee")


def new_event(
    kind: str,
    protection: str = "unprotected",
    guarantee: Mapping[str, Any] | None = None,
    resumes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the record of a training that is about to begin, with an identity from the operating system.

    What the record means is said by :class:`monai_cadp.privacy.TrainingData`.

    Args:
        kind: what is done, such as "flow" or "moments".
        protection: how the data of this training are protected: "public" (anybody may see them), "dp" (by this
            training, under ``guarantee``) or "unprotected".
        guarantee: epsilon, delta, unit and what else defines the guarantee, as plain data; with "dp" only.
        resumes: the record of the training that goes on; the identity stays, and only the segment is new.

    Returns:
        The record.

    Raises:
        ValueError: if a part is not usable.

    Example:
        >>> first = new_event("flow", "public")
        >>> later = new_event("flow", "unprotected", resumes=first)
        >>> first["identity"] == later["identity"], first["segment"] == later["resumes"]
        (True, True)
    """
    return checked_event(
        {
            "identity": secrets.token_hex(16) if resumes is None else resumes["identity"],
            "segment": secrets.token_hex(16),
            "resumes": None if resumes is None else resumes["segment"],
            "kind": kind,
            "protection": protection,
            "guarantee": guarantee,
        }
    )


def derived_event(kind: str, source: str) -> dict[str, Any]:
    """Return the record of something unprotected that nobody has recorded; noticed twice, it is the same one.

    Args:
        kind: what was found.
        source: what it was found by, such as the fingerprint of the weights.
    """
    identity = hashlib.sha256(f"{kind}: {source}".encode()).hexdigest()[:32]
    event = {"identity": identity, "segment": identity, "resumes": None, "kind": kind}
    return checked_event({**event, "protection": "unprotected", "guarantee": None})


def checked_event(event: Any) -> dict[str, Any]:
    """Return a record as plain data of its own.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(event, Mapping) or set(event) != set(FIELDS):
        raise ValueError(f"The record of a training is not usable; expected a dictionary with {', '.join(FIELDS)}.")
    if event["protection"] not in PROTECTIONS:
        raise ValueError(f"The training data are {event['protection']!r}; expected one of {', '.join(PROTECTIONS)}.")
    if (event["guarantee"] is not None) != (event["protection"] == "dp"):
        raise ValueError("A training has a guarantee exactly when its data are protected by it, as 'dp'.")
    try:
        return json.loads(json.dumps({name: event[name] for name in FIELDS}, allow_nan=False))
    except (TypeError, ValueError):
        raise ValueError("The guarantee of a training is not plain data; give finite numbers and texts.") from None


def as_texts(events: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Return records as a set of texts, which nobody can change and whose union is that of the records."""
    return frozenset(json.dumps(checked_event(event), sort_keys=True) for event in events)


def as_events(texts: Iterable[str]) -> tuple[dict[str, Any], ...]:
    """Return the records of a set of texts, in an order that depends on nothing else."""
    return tuple(json.loads(text) for text in sorted(texts))
