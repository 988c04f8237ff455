# SPDX-License-Identifier: Apache-2.0
"""An item is what was declared of it, and not how that was typed."""

from __future__ import annotations

import pickle
from enum import Enum

import pytest

from monai_cadp.privacy import ItemId, check_distinct


@pytest.mark.parametrize(
    "typed",
    ["./img/a.png", "img//a.png", "img/b/../a.png", "img\\a.png", " img/a.png ", "img/./a.png", "./x/../img/a.png"],
)
def test_a_path_is_one_item_however_it_was_typed(typed):
    assert ItemId(typed) == ItemId("img/a.png") and ItemId(typed).code == ItemId("img/a.png").code


def test_two_unicode_forms_of_a_name_are_one_item():
    assert ItemId("caf\u00e9/a.png") == ItemId("cafe\u0301/a.png")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("train/a.png", "test/a.png"),
        ("visit1/scan.nii.gz", "visit2/scan.nii.gz"),
        ("a.png", "A.png"),
        ("a.png", "../a.png"),
        ("a1", "a01"),
        ("a.png", "/a.png"),
    ],
)
def test_different_items_are_different(one, other):
    assert ItemId(one) != ItemId(other) and ItemId(one).code != ItemId(other).code


def test_a_file_is_known_by_its_folders_name_and_the_path_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = ItemId("train/CNV/a.png")
    typed = [
        ("train/CNV/a.png", "train"),
        (tmp_path / "train/CNV/a.png", "./train/"),
        ("./train/CNV/../CNV/a.png", tmp_path / "train"),
    ]
    for path, folder in typed:
        assert ItemId.from_file(path, folder) == expected
    assert ItemId.from_file("test/CNV/a.png", "test") != expected


def test_uids_know_an_image_wherever_its_file_lies(refused):
    assert ItemId.from_uids("1.2", "1.2.3", "1.2.3.4") == ItemId.from_uids("1.2\x00", " 1.2.3", "1.2.3.4 ")
    assert ItemId.from_uids("1.2", "1.2.3") != ItemId.from_uids("1.2", "1.2.30")
    for uids in ((), ("1.2", "")):
        with refused(ValueError, "lacks a UID"):
            ItemId.from_uids(*uids)


@pytest.mark.parametrize("item", [None, True, 1.0, float("nan"), [1], b"a", "", "  ", ".", "./", "/", "a/.."], ids=repr)
def test_what_names_no_item_is_refused(refused, item):
    with refused(ValueError, "item of an image is missing"):
        ItemId(item)


def test_a_whole_number_is_its_text():
    assert ItemId(3) == ItemId("3") and "3" not in repr(ItemId(3))
    assert pickle.loads(pickle.dumps(ItemId(3))) == ItemId("3")


class Visit(str, Enum):
    FIRST = "visit1/a.png"


class Number(int, Enum):
    THIRD = 3


def test_a_member_of_an_enumeration_is_the_text_or_the_number_that_it_equals():
    assert ItemId(Visit.FIRST) == ItemId("visit1/a.png") and ItemId(Number.THIRD) == ItemId(3)


def test_inputs_that_are_one_item_are_named_by_their_positions(refused):
    check_distinct([ItemId("a"), ItemId("b")], "files")
    with refused(ValueError, "numbers 1 and 3, 2 and 4;"):
        check_distinct([ItemId("a"), ItemId("b"), ItemId("./a"), ItemId("b/")], "files")
    with refused(ValueError, "and 4 more"):
        check_distinct([ItemId("a")] * 10, "files")
    with refused(ValueError, "1 and 6; name every image once"):
        check_distinct([ItemId("a")] * 6, "files")
