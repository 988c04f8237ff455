# SPDX-License-Identifier: Apache-2.0
"""Ids that differ only in how they were typed are one person, in every place where people are told apart."""

from __future__ import annotations

import argparse
import itertools
import pickle
import random
import unicodedata
from collections import Counter, defaultdict
from enum import Enum

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_cadp.cli import ledger as ledger_command
from monai_cadp.data import TableRows, TableSchema, people_of
from monai_cadp.privacy import SubjectId
from monai_cadp.privacy.ledger import LedgerKeys

NUM_PAIRS = 100_000
KEYS = LedgerKeys(bytes(32))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("p1", "P1"),
        ("A7", "A7 "),
        ("A7", "\u00a0A7\u3000"),
        ("007", "7"),
        ("p007-003", "p7-3"),
        ("12", "12.0"),
        ("12", "12.00"),
        ("12", " 012.0\n"),
        ("12", "\uff11\uff12"),
        ("12", "\u0661\u0662"),
        ("12", "\u09e7\u09e8"),
        ("0", "000"),
        ("0", "0.0"),
        ("M\u00fcller", "Mu\u0308ller"),
        ("Stra\u00dfe", "STRASSE"),
        ("\u0131", "I"),
        ("\ufb01ve", "FIVE"),
        ("A7", "A\u200b7"),
        ("A7", "\ufeffA7"),
        ("A7", "A\u00ad7"),
        ("A7", "A\u034f7"),
        ("A7", "A7\ufe0f"),
        ("A7", "A7\x00"),
        ("\u039f\u03a3", "\u03bf\u03c2"),
        ("7\u200b.0", "7"),
        ("0\u200b7", "7"),
    ],
)
def test_two_ways_to_type_an_id_are_one_person(one, other):
    assert SubjectId(one) == SubjectId(other) and hash(SubjectId(one)) == hash(SubjectId(other))
    assert KEYS.subject(one) == KEYS.subject(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1_12", "11_2"),
        ("1_12", "112"),
        ("1e3", "1000"),
        ("0x10", "16"),
        ("7", "70"),
        ("7", "-7"),
        ("p1", "p11"),
        ("12.5", "125"),
        ("A 7", "A7"),
        ("1.2.840.1", "1.2.840.2"),
        ("M\u00fcller", "Muller"),
        ("M\udcfcller", "Muller"),
        ("true", "1"),
    ],
)
def test_ids_are_text_and_no_numbers(one, other):
    assert SubjectId(one) != SubjectId(other) and KEYS.subject(one) != KEYS.subject(other)


@pytest.mark.parametrize(
    "value", [112, 12.0, True, None, float("nan"), b"7", ["7"], np.int64(7), np.float32(7), torch.tensor(7)], ids=repr
)
def test_what_is_no_text_is_refused_with_how_to_type_it(refused, value):
    with refused(ValueError, "put it in quotes"):
        SubjectId(value)


@pytest.mark.parametrize("value", ["", "  ", "\n", "\u200b", "\u3164", "\u2800", "\x00"])
def test_what_nobody_sees_names_nobody(refused, value):
    with refused(ValueError, "missing or blank"):
        SubjectId(value)


class Person(str, Enum):
    ANNA = "p007"


def test_a_member_of_an_enumeration_is_the_person_whose_id_it_equals():
    assert SubjectId(Person.ANNA) == SubjectId("p007")


def test_an_id_shows_in_no_text_and_cannot_be_changed():
    subject = SubjectId("Mustermann-1954")
    assert "ustermann" not in f"{subject} {subject!r}"
    with pytest.raises(AttributeError):
        subject.canonical = "x"
    assert pickle.loads(pickle.dumps(subject)) == subject and subject != "mustermann-1954"


def test_every_character_is_the_one_of_its_other_cases_and_forms():
    """Turkish has two more of the letter i, and some Greek capitals come with their marks in another order."""
    assert SubjectId("AL\u0130 7") == SubjectId("ali 7") == SubjectId("AL\u0131 7")
    for code in itertools.chain(range(0x21, 0x3100), range(0xA000, 0xAC00), range(0xF900, 0x1F000)):
        character = chr(code)
        subject = SubjectId(f"a{character}")
        others = {character.upper(), character.lower(), character.title(), character.casefold()}
        others |= {unicodedata.normalize(form, character) for form in ("NFD", "NFKC", "NFKD")}
        assert {SubjectId(f"a{other}") for other in others} == {subject}, hex(code)


@given(st.text(min_size=1))
def test_the_canonical_form_is_its_own_and_that_of_every_other_form(text):
    try:
        subject = SubjectId(text)
    except ValueError:
        return
    others = [text.upper(), text.lower(), text.swapcase(), text.casefold(), f" {text}\t", subject.canonical]
    others += [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    for other in others:
        assert SubjectId(other) == subject


def typed(rng: random.Random) -> tuple[str, str]:
    """Two ids, often of one person."""

    def new() -> str:
        name = "".join(rng.choices("abcxyz\u00e9\u00df\u03c3_- .", k=rng.randrange(3)))
        return f"{name}{rng.randrange(40)}{rng.choice(('', '', '-3', '_1', '.0', '.5'))}"

    one = new()
    if rng.random() < 0.3:
        return one, new()
    return one, rng.choice(CHANGES)(rng.choice(CHANGES)(one))


CHANGES = (
    str.upper,
    str.lower,
    lambda text: f" {text}\t",
    lambda text: f"{text}.0",
    lambda text: f"00{text}" if text[0].isdigit() else text,
    lambda text: unicodedata.normalize("NFD", text),
    lambda text: text.translate({ord("0") + value: 0xFF10 + value for value in range(10)}),
    lambda text: text.translate({ord("0") + value: 0x0660 + value for value in range(10)}),
    lambda text: text[:1] + "\u200d" + text[1:],
    lambda text: text + "1",
    lambda text: text.replace("_", ""),
)


@pytest.mark.slow
def test_every_place_agrees_on_who_is_one_person_in_100000_random_pairs():
    rng = random.Random(0)
    ids = [text for _ in range(NUM_PAIRS) for text in typed(rng)]
    codes = [KEYS.subject(text) for text in ids]
    people = people_of([{"subject": text} for text in ids], unit="patient")
    rows = TableRows([{"age": 1}] * len(ids), SCHEMA, subjects=ids)
    names = [rows[index]["item"] for index in range(len(ids))]
    together = Counter(one == other for one, other in zip(codes[::2], codes[1::2], strict=True))
    assert min(together[True], together[False]) > 0.2 * NUM_PAIRS
    # Not of the pairs only, but of all of them: the same partition.
    assert len(set(codes)) == len(set(people)) == len(set(zip(codes, people, strict=True)))
    seen: dict[int, int] = defaultdict(int)
    for person, name in zip(people, names, strict=True):
        assert name == f"row {seen[person]}"
        seen[person] += 1
    # What the command line hands to the ledger is the text that was typed.
    parser = argparse.ArgumentParser()
    ledger_command.add_parser(parser.add_subparsers())
    for text in set(ids):
        options = ["ledger", "subject", "--ledger", "x", "--secret_file", "y", f"--subject={text}"]
        assert parser.parse_args(options).subject == text


SCHEMA = TableSchema([{"name": "age", "kind": "continuous", "lowest": 0, "highest": 100}])
