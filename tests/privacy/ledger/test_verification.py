# SPDX-License-Identifier: Apache-2.0
"""Whatever is changed in a ledger, verification says so."""

from __future__ import annotations

import shutil
import sqlite3

import pytest

from monai_cadp.privacy import Budget, LedgerError, PrivacyLedger
from monai_cadp.privacy.ledger.keys import LedgerKeys
from monai_cadp.privacy.ledger.records import store_contents
from monai_cadp.privacy.ledger.tables import open_engine, writing


@pytest.fixture
def filled(ledger, ask):
    for number in range(4):
        request = ask.request(ledger, f"subject {number}", b"image", 1.0 + number)
        ledger.reserve([request])
        ledger.record({request.key: bytes([number]) * 50})
    ledger.set_budget("subject 1", 5.0)
    return ledger


def edit(tmp_path, *statements):
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


CHANGES = {
    "a subject": "UPDATE entries SET subject = (SELECT subject FROM entries WHERE sequence = 4) WHERE sequence = 2",
    "a kind": "UPDATE entries SET kind = 'budget' WHERE sequence = 2",
    "a body": "UPDATE entries SET body = 'x' WHERE sequence = 3",
    "a code": "UPDATE entries SET code = 'x' WHERE sequence = 3",
    "a row in the middle": "DELETE FROM entries WHERE sequence = 4",
    "the last row": "DELETE FROM entries WHERE sequence = (SELECT max(sequence) FROM entries)",
    "an added row": "INSERT INTO entries VALUES (99, 'budget', 'x', NULL, '{}', 'x')",
    "the head": "UPDATE head SET sequence = 5",
    "the signature": "UPDATE head SET signature = 'x'",
    "a second head": "INSERT INTO head VALUES (2, 1, 'x', 'x')",
    "a guarantee": "UPDATE guarantees SET document = replace(document, '\"epsilon\": 4.0', '\"epsilon\": 0.4')",
    "a missing guarantee": "DELETE FROM guarantees WHERE digest = (SELECT max(digest) FROM guarantees)",
    "an added guarantee": "INSERT INTO guarantees VALUES ('x', 'y')",
    "a content": "UPDATE contents SET content = x'00' WHERE sequence = (SELECT max(sequence) FROM contents)",
    "a missing content": "DELETE FROM contents WHERE sequence = (SELECT max(sequence) FROM contents)",
    "an added content": "INSERT INTO contents VALUES (99, x'00')",
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_row_is_found(filled, tmp_path, change):
    assert filled.verify() == []
    edit(tmp_path, CHANGES[change])
    assert filled.verify()


# What each change makes of the next spending and the next release of those whom it touches; all of it fails by a word.
SPENT_BY = {
    "a cheaper guarantee": (CHANGES["a guarantee"], 3),
    "a missing guarantee": ("DELETE FROM guarantees", 0),
    "another kind": (CHANGES["a kind"], 0),
    "a hidden reservation": ("UPDATE entries SET kind = 'released', key = NULL WHERE sequence = 2", 0),
    "another subject's reservation": (
        "UPDATE entries SET body = (SELECT body FROM entries WHERE sequence = 2) WHERE sequence = 8",
        3,
    ),
    "a cap of one's own": ("UPDATE entries SET body = replace(body, '5.0', '500.0') WHERE kind = 'budget'", 1),
    "an added cap": (
        "INSERT INTO entries SELECT 99, 'budget', subject, NULL, '{\"epsilon\": 500.0}', 'x' FROM entries "
        "WHERE sequence = 2",
        0,
    ),
    "the last entry removed": (CHANGES["the last row"], 0),
    "the signature": (CHANGES["the signature"], 0),
}


@pytest.mark.parametrize("change", SPENT_BY)
def test_no_budget_is_spent_by_a_record_that_is_not_as_it_was_written(filled, ask, tmp_path, refused, change):
    statement, number = SPENT_BY[change]
    before = filled.summary()["reserved"]
    edit(tmp_path, statement)
    with pytest.raises(LedgerError, match="as it was written|not the written one") as caught:
        filled.reserve([ask.request(filled, f"subject {number}", b"another image", 0.1)])
    assert type(caught.value) is LedgerError
    connection = sqlite3.connect(tmp_path / "ledger.db")
    assert (
        connection.execute("SELECT count(*) FROM entries WHERE key IS NOT NULL AND kind = 'reserved'").fetchone()[0]
        <= before
    )
    connection.close()


@pytest.mark.parametrize("asked", ["spent", "budget_of"])
def test_nothing_is_said_of_a_subject_by_a_record_that_is_not_as_it_was_written(filled, tmp_path, asked):
    edit(tmp_path, CHANGES["a guarantee"])
    with pytest.raises(LedgerError, match="not the written one"):
        getattr(filled, asked)("subject 3")


def test_a_release_that_was_put_in_the_place_of_another_is_not_returned(filled, ask, tmp_path):
    """Content and code are those of a true release, but of another image."""
    first, second = (ask.request(filled, f"subject {number}", b"image", 1.0 + number) for number in (0, 1))
    assert filled.reserve([second]) == {second.key: bytes([1]) * 50}
    edit(
        tmp_path,
        "UPDATE entries SET body = (SELECT body FROM entries WHERE sequence = 3) WHERE sequence = 5",
        "UPDATE contents SET content = (SELECT content FROM contents WHERE sequence = 3) WHERE sequence = 5",
    )
    assert filled.reserve([first]) == {first.key: bytes([0]) * 50}
    for ask_for_it in (lambda: filled.reserve([second]), lambda: filled.record({second.key: b"new"})):
        with pytest.raises(LedgerError, match="as it was written"):
            ask_for_it()


@pytest.mark.parametrize("change", ["a content", "a missing content"])
def test_a_content_that_is_not_the_recorded_one_is_not_returned(filled, ask, tmp_path, change):
    last = ask.request(filled, "subject 3", b"image", 4.0)
    edit(tmp_path, CHANGES[change])
    with pytest.raises(LedgerError, match="not the recorded one"):
        filled.reserve([last])


def test_rows_that_changed_places_are_found(filled, tmp_path):
    swap = "UPDATE entries SET sequence = {} WHERE sequence = {}"
    edit(tmp_path, swap.format(100, 2), swap.format(2, 4), swap.format(4, 100))
    assert filled.verify()


def test_an_older_copy_is_told_by_a_head_that_was_kept(filled, ask, tmp_path):
    filled.close()
    older = tmp_path / "older.db"
    shutil.copy(tmp_path / "ledger.db", older)
    kept_before = filled.head()
    filled.reserve([ask.request(filled, "subject 9", b"image")])
    kept_after = filled.head()
    assert filled.verify(kept_before) == [] and filled.verify(kept_after) == []
    restored = PrivacyLedger(older, ask.secret)
    assert restored.verify() == [] and restored.verify(kept_before) == []
    assert restored.verify(kept_after) == [
        "The ledger does not hold the kept head; it is an older copy, or another history."
    ]


@pytest.mark.parametrize("change", [{"sequence": 3}, {"code": "0" * 64}, {"signature": "0" * 64}])
def test_a_kept_head_that_was_changed_is_no_head_of_this_ledger(filled, change):
    assert filled.verify(filled.head() | change) == ["The kept head is not one of this ledger."]
    assert filled.verify({}) == ["The kept head is not one of this ledger."]


def everything(path):
    """All that any reader of the database can see."""
    connection = sqlite3.connect(path)
    try:
        return [
            sorted(map(repr, connection.execute(f"SELECT * FROM {table}")))
            for table in ("entries", "guarantees", "contents", "head")
        ]
    finally:
        connection.close()


@pytest.mark.slow
def test_every_byte_that_changes_anything_a_reader_sees_is_found(filled, ask, tmp_path):
    """Bytes all over the file, each changed alone; those between the records mean nothing, and change nothing."""
    filled.close()
    original = (tmp_path / "ledger.db").read_bytes()
    before = everything(tmp_path / "ledger.db")
    path = tmp_path / "flipped.db"
    path.touch(mode=0o600)
    found = silent = 0
    for position in range(0, len(original), 13):
        flipped = bytearray(original)
        flipped[position] ^= 0x01
        path.write_bytes(flipped)
        try:
            changes_nothing = everything(path) == before
        except sqlite3.Error:
            changes_nothing = False
        if changes_nothing:
            silent += 1
            continue
        try:
            findings = PrivacyLedger(path, ask.secret).verify()
        except (LedgerError, ValueError):
            findings = ["refused"]
        assert findings, position
        found += 1
    assert found > 300 and silent > 0


def test_a_cap_that_is_lowered_afterwards_makes_nothing_wrong(filled, ask):
    filled.set_budget("subject 3", 1.0)
    assert filled.verify() == [] and filled.spent("subject 3") == (4.0, 0.0)


def test_a_cap_that_was_passed_is_found(filled, ask, monkeypatch):
    """Nobody without the secret can write such an entry; a defect of the program could."""
    with monkeypatch.context() as patch:
        patch.setattr(Budget, "allows", lambda *_: True)
        filled.reserve([ask.request(filled, "subject 3", b"too much", 8.0)])
    assert filled.verify() == ["1 subjects went over the cap of their budgets."]


def test_a_release_that_was_never_reserved_is_found(filled, ask, tmp_path):
    """Its entry is in the chain as it should be: whoever has the secret could write it, or a defect of the program."""
    engine = open_engine(str(tmp_path / "ledger.db"))
    with writing(engine) as connection:
        store_contents(connection, LedgerKeys(ask.secret), {"0" * 64: b"never paid for"})
    engine.dispose()
    assert filled.verify() == ["There is a release that was not reserved."]
