# SPDX-License-Identifier: Apache-2.0
"""The ledger: reserve the budget, draw, record the release."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection, Engine

from monai_cadp.privacy.guarantee import PrivacyGuarantee
from monai_cadp.privacy.ledger.budget import Budget
from monai_cadp.privacy.ledger.forks import closed_at_forks, in_use
from monai_cadp.privacy.ledger.keys import LedgerKeys, read_secret
from monai_cadp.privacy.ledger.overview import numbers, plain_entries
from monai_cadp.privacy.ledger.records import (
    Account,
    Entry,
    Reserved,
    accounts,
    append,
    is_noted,
    keep_documents,
    made_before,
    store_contents,
)
from monai_cadp.privacy.ledger.request import BudgetExceededError, LedgerError, ReleaseRequest
from monai_cadp.privacy.ledger.tables import (
    METADATA,
    entries,
    head,
    open_engine,
    prepare,
    readable_errors,
    writing,
)
from monai_cadp.privacy.ledger.verification import findings
from monai_cadp.privacy.unit import check_unit

__all__ = ["PrivacyLedger"]

# Of the rules by which subjects and items become codes; another number stands for other codes of the same people.
FORMAT = 3


class PrivacyLedger:
    r"""Every subject's budget is spent once, and every release is made once.

    A release goes through three steps. *Reserve*: in one transaction, which is alone in writing, the budget of all
    requests of a batch is compared with the caps and spent, or nothing is. *Draw*: the mechanism runs.
    *Record*: the content is stored, unless another process has stored one under the same key before; what is stored
    is returned, and alone may leave the process. So

    * no subject is ever over its cap: nothing is drawn without a committed reservation;
    * a process that dies after reserving leaves the reservation; the same request finds it and draws again, and no
      budget is spent twice. Nothing of the first draw was seen;
    * no release answers for another image: what is reserved under a name is reserved for one image, and another one
      under this name is refused;
    * no release is made twice: the first recorded content is the only one that is ever returned. Whichever process
      wins, its content was drawn with the same law, independently of the race.

    Subjects and images appear as codes under a secret (:class:`~monai_cadp.privacy.ledger.keys.LedgerKeys`). Every
    entry holds the code of the entry before, and the last one is signed, so that :meth:`verify` finds what was changed;
    an older copy of the whole database is told by a head that was kept elsewhere.

    An instance may be used by many processes and threads at once, forked or spawned; each opens its own connections.

    Args:
        location: path of an SQLite file, or URL of a PostgreSQL database. SQLite needs a local disk.
        secret: of the ledger, from :func:`~monai_cadp.privacy.ledger.keys.read_secret`.

    Raises:
        LedgerError: if there is no ledger, or the secret belongs to another one.
        ValueError: if the location or the secret is unusable.

    Example:
        >>> import tempfile
        >>> from monai_cadp.privacy import PrivacyGuarantee
        >>> folder = tempfile.TemporaryDirectory()
        >>> ledger = PrivacyLedger.create(f"{folder.name}/ledger.db", bytes(32), Budget(epsilon=8.0))
        >>> cost = PrivacyGuarantee(epsilon=8.0, mechanism="SubsetSelection")
        >>> request = ReleaseRequest(ledger.subject("patient 7"), ledger.release_key([b"image"]), cost)
        >>> ledger.reserve([request])
        {}
        >>> ledger.record({request.key: b"released"}) == ledger.reserve([request])
        True
        >>> ledger.spent("patient 7"), ledger.verify()
        ((8.0, 0.0), [])
    """

    def __init__(self, location: str | os.PathLike[str], secret: bytes) -> None:
        self._location, self._keys = os.fspath(location), LedgerKeys(secret)
        self._engine: Engine | None = None
        with self._reading() as connection:
            first = connection.execute(select(entries).where(entries.c.sequence == 1)).one_or_none()
        if first is None:
            raise LedgerError("There is no ledger at this place; make one with 'python -m monai_cadp ledger init'.")
        if first.code != self._keys.entry("", [1, first.kind, first.subject, first.key, first.body]):
            raise LedgerError("The secret is not that of this ledger, or the ledger's first entry was changed.")
        opened = json.loads(first.body)
        if opened.get("format") != FORMAT:
            raise LedgerError(
                "The ledger was made by another version, which told subjects and items apart by other rules, so that "
                "what they spent would not be found; go on with that version, or make a new ledger whose caps leave "
                "out what was spent."
            )
        self.unit: str = opened["unit"]
        self.budget = Budget(**opened["budget"])

    @classmethod
    def open(
        cls, location: str | os.PathLike[str] | None, secret_file: str | os.PathLike[str] | None
    ) -> PrivacyLedger | None:
        """Open a ledger by the file of its secret, as configurations do; no location opens none.

        Raises:
            ValueError: if one of the two is missing, or unusable.
            LedgerError: if there is no ledger, or the secret belongs to another one.
        """
        if location is None and secret_file is None:
            return None
        if location is None or secret_file is None:
            raise ValueError("A ledger and the file of its secret belong together; give both, or neither.")
        return cls(location, read_secret(secret_file))

    @classmethod
    def create(
        cls, location: str | os.PathLike[str], secret: bytes, budget: Budget, *, unit: str = "patient"
    ) -> PrivacyLedger:
        """Make a new ledger.

        Args:
            location: path of a new SQLite file, or URL of a PostgreSQL database without a ledger.
            secret: from :func:`~monai_cadp.privacy.ledger.keys.write_secret`.
            budget: of every subject.
            unit: what a subject is, one of :data:`~monai_cadp.privacy.UNITS`.

        Returns:
            The ledger.

        Raises:
            LedgerError: if there is one already, or the database cannot be used.
            ValueError: if the location or the secret is unusable, or the unit is no such word.
        """
        check_unit(unit)
        keys, engine = LedgerKeys(secret), open_engine(os.fspath(location), new=True)
        body = json.dumps({"format": FORMAT, "unit": unit, "budget": asdict(budget)}, sort_keys=True)
        try:
            with readable_errors(), in_use():
                prepare(engine)
                with writing(engine) as connection:
                    METADATA.create_all(connection)
                    if connection.execute(select(head)).first():
                        raise LedgerError("There is a ledger at this place already; give a new place, or use that one.")
                    append(connection, keys, [Entry("opened", None, None, body)])
        finally:
            engine.dispose()
        return cls(location, secret)

    def subject(self, subject: str) -> str:
        """Return the code of a subject; raises ValueError if there is none, or it is no text."""
        return self._keys.subject(subject)

    def release_key(self, parts: Sequence[bytes]) -> str:
        """Return the code of a release: of its subject, its image, its condition, and all that defines its making."""
        return self._keys.release(parts)

    def image_code(self, key: str, image: bytes) -> str:
        """Return the code of the image that a release is made of, for a release whose key does not cover it."""
        return self._keys.image(key, image)

    def reserve(self, requests: Sequence[ReleaseRequest], set_code: str | None = None) -> dict[str, bytes]:
        """Spend what releases cost, all of them or none, and return the contents of those that exist already.

        Args:
            requests: a batch; a key may come several times.
            set_code: of the shuffled set that they are part of, from :meth:`begin_set`; None for releases of none.

        Returns:
            Stored contents by key. The other requests are paid for, and may be drawn and recorded.

        Raises:
            BudgetExceededError: if a subject would be over its cap.
            LedgerError: if a key was reserved for another subject, at another cost or for another image, or not as part
                of the set, or the ledger cannot be read or written.
        """
        wanted = {request.key: request for request in requests}
        with self._reading() as connection:
            paid, found = made_before(connection, self._keys, wanted)
        _check_images(requests, paid)
        _check_set(paid, set_code)
        if len(found) == len(wanted):
            return found
        with self._writing() as connection:
            costs = keep_documents(connection, {request.guarantee for request in wanted.values()})
            # Others may have been here since the first look.
            paid, found = made_before(connection, self._keys, wanted)
            _check_images(requests, paid)
            _check_set(paid, set_code)
            if any((wanted[key].subject, costs[wanted[key].guarantee]) != old[:2] for key, old in paid.items()):
                raise LedgerError(
                    "A release was reserved for another subject or at another cost before; give it a key of its own."
                )
            new = [request for key, request in wanted.items() if key not in paid]
            self._check_budgets(connection, new)
            rows = [Entry("reserved", r.subject, r.key, costs[r.guarantee]) for r in new]
            rows += [Entry("image", None, r.key, r.image) for r in new if r.image is not None]
            rows += [Entry("within", None, r.key, set_code) for r in new if set_code is not None]
            append(connection, self._keys, rows)
        return found

    def begin_set(self, keys: Collection[str], guarantee: PrivacyGuarantee) -> str:
        r"""Note which releases are one shuffled set, before the first of them is drawn.

        What is promised of a shuffled set as a whole rests on independent draws, and so on a choice of its members that
        does not look at them. Proof that a set that is noted here was chosen so: the note is made in one transaction
        that sees none of its releases reserved, and nothing is drawn that is not reserved; so who is in it was settled
        before any of its random draws was made. A release that was kept before is refused, for the set might have been
        chosen in sight of it, or hold it a second time. A set that was noted before is the same choice: its releases,
        the ones that are kept and those that are still to be drawn, are the same draws, whenever they are made. They
        are reserved under its code. One that was reserved otherwise after the note, by itself or in another set, may be
        known by name to whoever sees the set, or tell it from the others: from then on the set is refused.

        Args:
            keys: codes of the releases, from :meth:`release_key`, each once. They must not depend on pixels.
            guarantee: of the set, which stands in the note.

        Returns:
            The code of the set, under which its releases are reserved.

        Raises:
            LedgerError: if a release was reserved before the set was noted, or not as part of it since, or the ledger
                cannot be read or written.
        """
        code = self._keys.set(keys)
        with self._writing() as connection:
            reserved, _ = made_before(connection, self._keys, keys)
            if is_noted(connection, self._keys, code):
                _check_set(reserved, code)
                return code
            if reserved:
                raise LedgerError(
                    f"{len(reserved)} of {len(keys)} images have a release in the ledger that another folder may hold, "
                    "so that nothing can be said of this set as a whole; leave them out, or the delta of the set."
                )
            append(connection, self._keys, [Entry("set", None, code, guarantee.to_json())])
        return code

    def record(self, released: Mapping[str, bytes]) -> dict[str, bytes]:
        """Store the contents of reserved releases, and return what may leave the process: the first that was stored.

        Args:
            released: contents by key.

        Returns:
            The stored contents of all these keys.

        Raises:
            LedgerError: if a key was not reserved, or the ledger cannot be read or written; nothing may be released.
        """
        if not released:
            return {}
        with self._writing() as connection:
            reserved, stored = made_before(connection, self._keys, released)
            if len(reserved) < len(released):
                raise LedgerError("A release was to be recorded that was never reserved; reserve its budget first.")
            new = {key: content for key, content in released.items() if key not in stored}
            store_contents(connection, self._keys, new)
        return new | stored

    def set_budget(self, subject: str, epsilon: float, delta: float = 0.0) -> None:
        """Give one subject caps of its own from now on; what is spent stays spent.

        Raises:
            ValueError: if a number is out of its range.
            LedgerError: if the ledger cannot be written.
        """
        own = Budget(epsilon, delta, self.budget.accounting)
        body = json.dumps({"epsilon": own.epsilon, "delta": own.delta}, sort_keys=True)
        with self._writing() as connection:
            append(connection, self._keys, [Entry("budget", self.subject(subject), None, body)])

    def spent(self, subject: str) -> tuple[float, float]:
        """Return the epsilon and delta that all releases of a subject have cost together.

        With accounting "identical" this holds for a number of releases that was fixed beforehand; where it was decided
        in sight of releases, the caps of the budget are what holds.
        """
        account = self._account(subject)
        return account.budget.spent(account.releases)

    def budget_of(self, subject: str) -> Budget:
        """Return what the releases of a subject may cost together."""
        return self._account(subject).budget

    def summary(self) -> dict[str, Any]:
        """Return numbers that say nothing about anybody: the budget, subjects, reservations and releases."""
        budget = {f"budget_{name}": value for name, value in asdict(self.budget).items()}
        with self._reading() as connection:
            return {"unit": self.unit, **budget, **numbers(connection)}

    def export(self) -> list[dict[str, Any]]:
        """Return all entries in order as plain data: codes, digests and guarantees, no content."""
        with self._reading() as connection:
            return plain_entries(connection)

    def head(self) -> dict[str, Any]:
        """Return the signed last entry, to be kept elsewhere: it tells an older copy of the ledger from this one."""
        with self._reading() as connection:
            row = connection.execute(select(head)).one()
        return {"sequence": row.sequence, "code": row.code, "signature": row.signature}

    def verify(self, kept_head: Mapping[str, Any] | None = None) -> list[str]:
        """Return what is wrong with the ledger, in words; an empty list if nothing is.

        Args:
            kept_head: an earlier result of :meth:`head`.

        Returns:
            One sentence for every finding: a changed, missing, moved or added row, a content that is not the recorded
            one, a subject over its cap, an older copy than the kept head.
        """
        try:
            # Alone, so that what is read is one state.
            with self._writing() as connection:
                return findings(connection, self._keys, self.budget, kept_head)
        except Exception:
            # A damaged file may hold anything in the place of anything.
            return ["The database is damaged and cannot be read."]

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        self._connect().dispose()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_location", "_keys", "unit", "budget")
        return {name: self.__dict__[name] for name in kept} | {"_engine": None}

    def _connect(self) -> Engine:
        if self._engine is None:
            self._engine = closed_at_forks(open_engine(self._location))
        return self._engine

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with readable_errors(), in_use(), self._connect().connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with readable_errors(), in_use(), writing(self._connect()) as connection:
            yield connection

    def _account(self, subject: str) -> Account:
        with self._reading() as connection:
            code = self.subject(subject)
            return accounts(connection, self._keys, [code], self.budget)[code]

    def _check_budgets(self, connection: Connection, requests: Sequence[ReleaseRequest]) -> None:
        found = accounts(connection, self._keys, {request.subject for request in requests}, self.budget)
        for request in requests:
            found[request.subject].releases[request.guarantee] += 1
        try:
            over = [code for code, account in found.items() if not account.budget.allows(account.releases)]
        except ValueError as error:
            raise BudgetExceededError(str(error)) from None
        if over:
            raise BudgetExceededError(
                f"The releases would put {len(over)} of {len(found)} subjects over the cap of their budgets (epsilon "
                f"{self.budget.epsilon:g}, delta {self.budget.delta:g} unless set otherwise); leave those subjects "
                "out.",
                over,
            )


def _check_set(paid: Mapping[str, Reserved], set_code: str | None) -> None:
    """Refuse releases of a set that were reserved otherwise."""
    others = sum(reserved.set_code != set_code for reserved in paid.values()) if set_code is not None else 0
    if others:
        raise LedgerError(
            f"{others} images of the set were released by themselves or in another set since it was begun, so that "
            "nothing can be said of this set as a whole; leave them out, or the delta of the set."
        )


def _check_images(requests: Sequence[ReleaseRequest], paid: Mapping[str, Reserved]) -> None:
    """Refuse a request for another image than the one that its key was reserved for, now or before."""
    first = {key: reserved.image for key, reserved in paid.items()}
    others = {request.key for request in requests if first.setdefault(request.key, request.image) != request.image}
    if others:
        raise LedgerError(
            f"{len(others)} of the items were given for another image before, with other pixels; nothing was spent, so "
            "give every image an item of its own (rename a folder where two data sets have the same names), and "
            "prepare an image in the same way each time, with nothing random before its release."
        )
