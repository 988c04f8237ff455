# SPDX-License-Identifier: Apache-2.0
"""Whether a ledger is what was written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from monai_cadp.privacy.guarantee import PrivacyGuarantee
from monai_cadp.privacy.ledger.budget import Budget
from monai_cadp.privacy.ledger.keys import LedgerKeys, digest
from monai_cadp.privacy.ledger.records import Account
from monai_cadp.privacy.ledger.tables import contents, entries, guarantees, head

__all__ = ["findings"]


def findings(
    connection: Connection, keys: LedgerKeys, budget: Budget, kept_head: Mapping[str, Any] | None
) -> list[str]:
    """Return one sentence for everything in a ledger that is not as it was written; see ``PrivacyLedger.verify``."""
    if connection.dialect.name == "sqlite":
        state = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        if state != ["ok"]:
            return ["The database file is damaged."]
    found = list(_chain(connection, keys, kept_head))
    found += _documents(connection)
    found += _contents(connection, keys)
    if not found:
        # Guarantees can be added up only where they are the written ones.
        found += _budgets(connection, budget)
    return found


def _chain(connection: Connection, keys: LedgerKeys, kept_head: Mapping[str, Any] | None) -> Iterator[str]:
    if kept_head is not None and (
        {"sequence", "code", "signature"} - kept_head.keys()
        or kept_head["signature"] != keys.entry(str(kept_head["code"]), ["head", kept_head["sequence"]])
    ):
        yield "The kept head is not one of this ledger."
        kept_head = None
    expected, code = 0, ""
    codes = {}
    for row in connection.execute(select(entries).order_by(entries.c.sequence)):
        expected += 1
        if row.sequence != expected:
            yield f"Entries are missing before number {row.sequence}."
            return
        code = keys.entry(code, [row.sequence, row.kind, row.subject, row.key, row.body])
        if row.code != code:
            yield f"Entry {row.sequence} was changed, added or moved."
            return
        if kept_head is not None and row.sequence == kept_head["sequence"]:
            codes[row.sequence] = code
    last = connection.execute(select(head)).all()
    signature = keys.entry(code, ["head", expected])
    if [tuple(row) for row in last] != [(1, expected, code, signature)]:
        yield "The last entry is not the signed one; entries were removed from the end, or the signature was changed."
    if kept_head is not None and codes.get(kept_head["sequence"]) != kept_head["code"]:
        yield "The ledger does not hold the kept head; it is an older copy, or another history."


def _documents(connection: Connection) -> Iterator[str]:
    named = set(connection.scalars(select(entries.c.body).where(entries.c.kind == "reserved")))
    kept = connection.execute(select(guarantees)).all()
    if any(digest(document.encode()) != code for code, document in kept):
        yield "A guarantee document was changed."
    if named != {code for code, _ in kept}:
        yield "Guarantee documents are missing, or there are some that no entry names."


def _contents(connection: Connection, keys: LedgerKeys) -> Iterator[str]:
    released = connection.execute(select(entries).where(entries.c.kind == "released")).all()
    reserved = set(connection.scalars(select(entries.c.key).where(entries.c.kind == "reserved")))
    if not {row.key for row in released} <= reserved:
        yield "There is a release that was not reserved."
    # A few at a time: together they may be larger than the memory.
    rows = connection.execution_options(yield_per=100).execute(select(contents))
    stored = {sequence: keys.content(bytes(content)) for sequence, content in rows}
    recorded = {row.sequence: row.body for row in released}
    if stored.keys() != recorded.keys():
        yield "Released contents are missing, or there are some that no entry names."
    if any(recorded.get(sequence, code) != code for sequence, code in stored.items()):
        yield "A released content was changed."


def _budgets(connection: Connection, budget: Budget) -> Iterator[str]:
    """Every reservation against the caps that were in force when it was made."""
    documents = connection.execute(select(guarantees))
    costs = {code: PrivacyGuarantee.from_json(document) for code, document in documents}
    found: dict[str, Account] = {}
    over = set()
    for row in connection.execute(select(entries).order_by(entries.c.sequence)):
        account = found.setdefault(row.subject, Account(Counter(), budget))
        if row.kind == "budget":
            own = Budget(**json.loads(row.body), accounting=budget.accounting)
            found[row.subject] = account._replace(budget=own)
        elif row.kind == "reserved":
            account.releases[costs[row.body]] += 1
            if not account.budget.allows(account.releases):
                over.add(row.subject)
    if over:
        yield f"{len(over)} subjects went over the cap of their budgets."
