# SPDX-License-Identifier: Apache-2.0
"""Items of one subject are one person's, and where patients are counted every item says whose it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_cadp.data import people_of


def test_items_of_one_subject_are_one_persons_and_others_are_their_own():
    assert people_of([{"subject": "3"}, {}, {"subject": "1"}, {"subject": "3"}, {}]) == [0, 1, 2, 0, 3]


def test_people_are_counted_as_a_ledger_tells_them_apart():
    assert people_of([{"subject": one} for one in ("A7", "A7 ", "a7", "A007", "\uff21\uff17", "A7.0", "A70")]) == [
        0
    ] * 6 + [1]


@pytest.mark.parametrize("subject", [7, 7.0, True, None, float("nan"), np.int64(7), torch.tensor(7)], ids=repr)
def test_a_subject_that_is_no_text_is_refused_and_not_a_person_of_its_own(refused, subject):
    with refused(ValueError, "put it in quotes"):
        people_of([{"subject": subject}])


@pytest.mark.parametrize("unit", ["Patient", "patient ", "subject", "person", "", 3, None, "images"])
def test_a_word_for_a_person_that_is_none_of_the_four_does_not_count_images(refused, unit):
    if unit is None:
        assert people_of([{}, {}]) == [0, 1]
        return
    with refused(ValueError, "expected one of image, volume, row, patient"):
        people_of([{}, {}], unit=unit)


def test_patients_that_nobody_names_cannot_be_counted(refused):
    assert people_of([{"subject": "a"}, {"subject": "a"}], unit="patient") == [0, 0]
    with refused(ValueError, "says nothing of its subject"):
        people_of([{"subject": "a"}, {}], unit="patient")
