# SPDX-License-Identifier: Apache-2.0
"""The rows of a ledger, read and added inside one transaction."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.engine import Connection

from monai_cadp.privacy.guarantee import PrivacyGuarantee
from monai_cadp.privacy.ledger.budget import Budget
from monai_cadp.privacy.ledger.keys import LedgerKeys, digest
from monai_cadp.privacy.ledger.request import LedgerError
from monai_cadp.privacy.ledger.tables import contents, entries, guarantees, head

__all__ = [
    "Account",
    "Entry",
    "accounts",
    "append",
    "keep_documents",
    "made_before",
    "store_contents",
]

# Built once: building a statement takes longer than running it.
OF_KEYS = (
    select(entries.c.kind, entries.c.key, entries.c.subject, entries.c.body, contents.c.content)
    .join(contents, contents.c.sequence == entries.c.sequence, isouter=True)
    .where(entries.c.key.in_(bindparam("keys", expanding=True)))
)
OF_SUBJECTS = (
    select(entries.c.subject, entries.c.kind, entries.c.body, guarantees.c.document, func.count())
    .join(guarantees, guarantees.c.digest == entries.c.body, isouter=True)
    .where(entries.c.subject.in_(bindparam("subjects", expanding=True)), entries.c.kind != "released")
    .group_by(entries.c.subject, entries.c.kind, entries.c.body, guarantees.c.document)
    .order_by(func.max(entries.c.sequence))
)


class Entry(NamedTuple):
    """What happened: the ledger was opened, a budget was set, a release was reserved or recorded.

    ``body`` is the digest of the guarantee of what was reserved, the code of the content of what was released, and
    plain data in JSON otherwise.
    """

    kind: str
    subject: str | None
    key: str | None
    body: str


class Account(NamedTuple):
    """A subject's releases, each with its number, and what they may cost together."""

    releases: Counter[PrivacyGuarantee]
    budget: Budget


def append(connection: Connection, keys: LedgerKeys, new: Sequence[Entry]) -> range:
    """Add entries to the chain, sign the last one, and return their numbers."""
    if not new:
        return range(0)
    last = connection.execute(select(head)).one_or_none()
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


def accounts(connection: Connection, subjects: Iterable[str], budget: Budget) -> dict[str, Account]:
    """Return the accounts of subjects; ``budget`` is that of a subject without one of its own."""
    found = {subject: Account(Counter(), budget) for subject in subjects}
    parsed: dict[str, PrivacyGuarantee] = {}
    for subject, kind, body, document, number in connection.execute(OF_SUBJECTS, {"subjects": list(found)}):
        if kind == "reserved":
            if body not in parsed:
                parsed[body] = PrivacyGuarantee.from_json(document)
            found[subject].releases[parsed[body]] += number
        else:
            # In the order of time, so that the last one holds.
            found[subject] = found[subject]._replace(budget=Budget(**json.loads(body), accounting=budget.accounting))
    return found


def made_before(
    connection: Connection, keys: LedgerKeys, release_keys: Iterable[str]
) -> tuple[dict[str, tuple[str, str]], dict[str, bytes]]:
    """Return what is known of these keys.

    Returns:
        For whom those that were reserved are, with the digest of what they cost; and the contents of those that were
        recorded.

    Raises:
        LedgerError: if a content is not what was recorded.
    """
    reserved, recorded = {}, {}
    for kind, key, subject, body, content in connection.execute(OF_KEYS, {"keys": list(release_keys)}):
        if kind == "reserved":
            reserved[key] = (subject, body)
        elif content is None or keys.content(bytes(content)) != body:
            raise LedgerError("A stored release is not the recorded one; look at the ledger with 'ledger verify'.")
        else:
            recorded[key] = bytes(content)
    return reserved, recorded


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
