# SPDX-License-Identifier: Apache-2.0
"""The rows of a ledger, read and added inside one transaction."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, insert, select, update
from sqlalchemy.engine import Connection, Row

from monai_cadp.privacy.guarantee import PrivacyGuarantee
from monai_cadp.privacy.ledger.budget import Budget
from monai_cadp.privacy.ledger.keys import LedgerKeys, digest
from monai_cadp.privacy.ledger.request import LedgerError
from monai_cadp.privacy.ledger.tables import contents, entries, guarantees, head

__all__ = [
    "Account",
    "Entry",
    "Reserved",
    "accounts",
    "append",
    "is_noted",
    "keep_documents",
    "made_before",
    "store_contents",
]

# Built once: building a statement takes longer than running it.
_previous = entries.alias()
# What the code of an entry is made of, and the code.
_WRITTEN = (
    _previous.c.code.label("previous"),
    entries.c.sequence,
    entries.c.kind,
    entries.c.subject,
    entries.c.key,
    entries.c.body,
    entries.c.code,
)
OF_KEYS = (
    select(*_WRITTEN, contents.c.content)
    .join(_previous, _previous.c.sequence == entries.c.sequence - 1, isouter=True)
    .join(contents, contents.c.sequence == entries.c.sequence, isouter=True)
    .where(entries.c.key.in_(bindparam("keys", expanding=True)))
)
OF_SUBJECTS = (
    select(*_WRITTEN)
    .join(_previous, _previous.c.sequence == entries.c.sequence - 1, isouter=True)
    .where(entries.c.subject.in_(bindparam("subjects", expanding=True)))
    .order_by(entries.c.sequence)
)
DOCUMENTS = select(guarantees).where(guarantees.c.digest.in_(bindparam("digests", expanding=True)))
LAST = select(head, entries.c.code.label("entry")).join(entries, entries.c.sequence == head.c.sequence, isouter=True)
CHANGED = "An entry of the ledger is not as it was written; nothing is spent or released by it, see 'ledger verify'."


class Entry(NamedTuple):
    """What happened: the ledger was opened, a budget was set, a set was noted, a release was reserved, of which image,
    within which set, or recorded.

    ``body`` is the digest of the guarantee of what was reserved, the code of the image or of the set it was reserved
    for or of the content of what was released, and plain data in JSON otherwise.
    """

    kind: str
    subject: str | None
    key: str | None
    body: str


class Reserved(NamedTuple):
    """A reservation: for whom, the digest of its cost, the code of the image where the key does not cover it, and that
    of the set it is part of."""

    subject: str | None = None
    cost: str | None = None
    image: str | None = None
    set_code: str | None = None


class Account(NamedTuple):
    """A subject's releases, each with its number, and what they may cost together."""

    releases: Counter[PrivacyGuarantee]
    budget: Budget


def append(connection: Connection, keys: LedgerKeys, new: Sequence[Entry]) -> range:
    """Add entries to the chain, sign the last one, and return their numbers.

    Raises:
        LedgerError: if the last entry of before is not the signed one.
    """
    if not new:
        return range(0)
    last = connection.execute(LAST).one_or_none()
    if last and (last.signature != keys.entry(last.code, ["head", last.sequence]) or last.entry != last.code):
        raise LedgerError(CHANGED)
    sequence, code = (last.sequence, last.code) if last else (0, "")
    rows = []
    for entry in new:
        sequence += 1
        code = keys.entry(code, [sequence, *entry])
        rows.append({"sequence": sequence, **entry._asdict(), "code": code})
    connection.execute(insert(entries), rows)
    values = {"sequence": sequence, "code": code, "signature": keys.entry(code, ["head", sequence])}
    connection.execute(update(head).values(values) if last else insert(head).values(id=1, **values))
    return range(sequence - len(new) + 1, sequence + 1)


def accounts(connection: Connection, keys: LedgerKeys, subjects: Iterable[str], budget: Budget) -> dict[str, Account]:
    """Return the accounts of subjects; ``budget`` is that of a subject without one of its own.

    Raises:
        LedgerError: if an entry or a guarantee is not what was written.
    """
    found = {subject: Account(Counter(), budget) for subject in subjects}
    rows = _as_written(connection, keys, OF_SUBJECTS, {"subjects": list(found)})
    costs = _documents(connection, {row.body for row in rows if row.kind == "reserved"})
    for row in rows:
        if row.kind == "reserved":
            found[row.subject].releases[costs[row.body]] += 1
        else:
            # In the order of time, so that the last one holds.
            own = Budget(**json.loads(row.body), accounting=budget.accounting)
            found[row.subject] = found[row.subject]._replace(budget=own)
    return found


def _as_written(
    connection: Connection, keys: LedgerKeys, statement: Select[Any], values: Mapping[str, Any]
) -> Sequence[Row[Any]]:
    """Return entries that are what was written, one by one: none was changed, or moved to another place.

    That none is missing is what ``verify`` sees, which reads them all.
    """
    rows = connection.execute(statement, values).all()
    for row in rows:
        if row.code != keys.entry(row.previous or "", [row.sequence, row.kind, row.subject, row.key, row.body]):
            raise LedgerError(CHANGED)
    return rows


def _documents(connection: Connection, digests: Iterable[str]) -> dict[str, PrivacyGuarantee]:
    documents = {row.digest: row.document for row in connection.execute(DOCUMENTS, {"digests": list(digests)})}
    if documents.keys() != set(digests) or any(digest(text.encode()) != code for code, text in documents.items()):
        raise LedgerError("A guarantee in the ledger is not the written one; look at it with 'ledger verify'.")
    return {code: PrivacyGuarantee.from_json(text) for code, text in documents.items()}


def made_before(
    connection: Connection, keys: LedgerKeys, release_keys: Iterable[str]
) -> tuple[dict[str, Reserved], dict[str, bytes]]:
    """Return what is known of these keys.

    Returns:
        Those that were reserved, and the contents of those that were recorded.

    Raises:
        LedgerError: if an entry is not what was written, or a content not what was recorded.
    """
    reserved: dict[str, Reserved] = {}
    recorded = {}
    for row in _as_written(connection, keys, OF_KEYS, {"keys": list(release_keys)}):
        if row.kind == "reserved":
            reserved[row.key] = reserved.get(row.key, Reserved())._replace(subject=row.subject, cost=row.body)
        elif row.kind == "image":
            reserved[row.key] = reserved.get(row.key, Reserved())._replace(image=row.body)
        elif row.kind == "within":
            reserved[row.key] = reserved.get(row.key, Reserved())._replace(set_code=row.body)
        elif row.content is None or keys.content(bytes(row.content)) != row.body:
            raise LedgerError("A stored release is not the recorded one; look at the ledger with 'ledger verify'.")
        else:
            recorded[row.key] = bytes(row.content)
    return reserved, recorded


def is_noted(connection: Connection, keys: LedgerKeys, code: str) -> bool:
    """Return whether a set, by its code, was noted; raises LedgerError if its entry is not what was written."""
    return any(row.kind == "set" for row in _as_written(connection, keys, OF_KEYS, {"keys": [code]}))


def store_contents(connection: Connection, keys: LedgerKeys, released: Mapping[str, bytes]) -> None:
    """Record releases and keep their contents."""
    numbers = append(connection, keys, [Entry("released", None, key, keys.content(c)) for key, c in released.items()])
    if numbers:
        rows = [{"sequence": n, "content": content} for n, content in zip(numbers, released.values(), strict=True)]
        connection.execute(insert(contents), rows)


def keep_documents(connection: Connection, costs: Iterable[PrivacyGuarantee]) -> dict[PrivacyGuarantee, str]:
    """Store guarantees that are new to the ledger, and return the digests of all of them."""
    documents = {cost: cost.to_json() for cost in costs}
    codes = {cost: digest(document.encode()) for cost, document in documents.items()}
    known = set(connection.scalars(select(guarantees.c.digest).where(guarantees.c.digest.in_(codes.values()))))
    new = {codes[cost]: documents[cost] for cost in documents if codes[cost] not in known}
    if new:
        connection.execute(insert(guarantees), [{"digest": code, "document": text} for code, text in new.items()])
    return codes
