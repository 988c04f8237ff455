# SPDX-License-Identifier: Apache-2.0
"""The tables of a ledger, and how both databases are made to lose nothing and to let one writer in at a time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, Text, UniqueConstraint
from sqlalchemy.engine import Connection, Engine

from monai_cadp.privacy.ledger.request import LedgerError
from monai_cadp.privacy.private_files import check_folder, check_private, create_private

__all__ = [
    "METADATA",
    "contents",
    "entries",
    "guarantees",
    "head",
    "open_engine",
    "prepare",
    "readable_errors",
    "writing",
]

# A writer waits this long for those before it; it never fails because others write.
SECONDS_TO_WAIT = 3600
# Any number that nothing else in a PostgreSQL database locks.
LOCK = 0x6D6F6E6169
METADATA = MetaData()

_number = BigInteger().with_variant(Integer, "sqlite")

# What happened, in order; rows are added and never changed.
entries = Table(
    "entries",
    METADATA,
    Column("sequence", _number, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("subject", String(64), index=True),
    Column("key", String(64)),
    Column("body", Text, nullable=False),
    Column("code", String(64), nullable=False),
    # One reservation, image and release for every key, and one note for every set; other kinds have none.
    UniqueConstraint("key", "kind"),
)
# The guarantee documents that entries name by their SHA-256.
guarantees = Table("guarantees", METADATA, Column("digest", String(64), primary_key=True), Column("document", Text))
# The content of every release, by the number of its entry: rows are added at the end, where a code would scatter them.
contents = Table(
    "contents",
    METADATA,
    Column("sequence", _number, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)
# One row: the last entry, signed.
head = Table(
    "head",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", _number, nullable=False),
    Column("code", String(64), nullable=False),
    Column("signature", String(64), nullable=False),
)


def open_engine(location: str, *, new: bool = False) -> Engine:
    """Return an engine whose commits are on the disk when they return.

    Args:
        location: path of an SQLite file, or URL of an SQLite or PostgreSQL database.
        new: whether an SQLite file may be made.

    Raises:
        ValueError: if the database is of another kind, there is no such file, others than its owner may read or write
            it, everybody may write into its folder, or the driver is not installed.
    """
    try:
        url = sqlalchemy.make_url(location) if "://" in location else sqlalchemy.URL.create("sqlite", database=location)
        kind = url.get_backend_name()
    except sqlalchemy.exc.ArgumentError:
        kind = ""
    if kind not in ("sqlite", "postgresql"):
        raise ValueError("The ledger's place is of no known kind; expected a file, or a URL of SQLite or PostgreSQL.")
    if kind == "sqlite":
        _check_file(url.database or "", new)
    options: dict[str, Any] = {"isolation_level": "READ COMMITTED"}
    if kind == "sqlite":
        options = {"connect_args": {"timeout": SECONDS_TO_WAIT}}
    try:
        engine = sqlalchemy.create_engine(url, **options)
    except ImportError:
        raise ValueError("The driver of the ledger's database is missing; install monai_cadp[postgres].") from None
    if kind == "sqlite":
        sqlalchemy.event.listen(engine, "connect", _prepare_connection)
        sqlalchemy.event.listen(engine, "begin", _begin)
    return engine


def _check_file(path: str, new: bool) -> None:
    """Make the file where it is new: SQLite would let everybody read it, and the files beside it have its mode."""
    if new and path and not path.startswith(":"):
        try:
            os.close(create_private(path))
        except FileExistsError:
            # Of an earlier attempt that was stopped, or a ledger, which the caller will find in it.
            pass
        except OSError:
            path = ""
    if not os.path.isfile(path):
        raise ValueError(
            "The ledger's file could not be made; give a path in a folder that is there and may be written to."
            if new
            else "There is no ledger at this place; make one with 'python -m monai_cadp ledger init'."
        )
    check_folder(path, "The ledger's database")
    check_private(os.stat(path), "The ledger's database")


def prepare(engine: Engine) -> None:
    """Let readers and a writer into a new SQLite file at the same time, in pages for large contents; both last."""
    if engine.dialect.name == "sqlite":
        connection = engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("PRAGMA page_size=16384")
            cursor.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that is alone in writing; it is on the disk when the context ends, or gone after an error."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            # Where SQLite locks the file; what is read from here on is the newest state.
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            # Whatever the server's default is: a commit that returns is on the disk.
            connection.execute(sqlalchemy.text("SET LOCAL synchronous_commit = on"))
        yield connection


def _prepare_connection(connection: Any, _: object) -> None:
    # The driver's own transactions begin too late: two processes could read the same budget and both spend it.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=FULL")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn what a database says, which may hold codes, contents and its place, into one sentence."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error):
        error = LedgerError(
            "The ledger's database could not be read or written; check that it is there, undamaged and within reach."
        )
        try:
            raise error from None
        finally:
            # A suppressed inner error still holds what was written.
            error.__context__ = None
