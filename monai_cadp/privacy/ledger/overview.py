# SPDX-License-Identifier: Apache-2.0
"""What may be told of a ledger: numbers, codes and guarantees."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from monai_cadp.privacy.ledger.tables import entries, guarantees

__all__ = ["numbers", "plain_entries"]


def numbers(connection: Connection) -> dict[str, int]:
    """Return how many subjects, reservations and releases there are."""
    kinds = select(entries.c.kind, func.count(), func.count(entries.c.subject.distinct())).group_by(entries.c.kind)
    counts = {kind: (count, subjects) for kind, count, subjects in connection.execute(kinds)}
    reserved, subjects = counts.get("reserved", (0, 0))
    return {"subjects": subjects, "reserved": reserved, "released": counts.get("released", (0, 0))[0]}


def plain_entries(connection: Connection) -> list[dict[str, Any]]:
    """Return all entries in order as plain data, with the guarantees of what was reserved and no content."""
    documents = {code: json.loads(document) for code, document in connection.execute(select(guarantees))}
    rows = connection.execute(select(entries).order_by(entries.c.sequence)).mappings()
    return [dict(row) | ({"guarantee": documents[row["body"]]} if row["kind"] == "reserved" else {}) for row in rows]
