# SPDX-License-Identifier: Apache-2.0
"""Items of one subject are one person's, and where patients are counted every item says whose it is."""

from __future__ import annotations

from monai_cadp.data import people_of


def test_items_of_one_subject_are_one_persons_and_others_are_their_own():
    assert people_of([{"subject": 3}, {}, {"subject": 1}, {"subject": 3}, {}]) == [0, 1, 2, 0, 3]


def test_patients_that_nobody_names_cannot_be_counted(refused):
    assert people_of([{"subject": "a"}, {"subject": "a"}], unit="patient") == [0, 0]
    with refused(ValueError, "says nothing of its subject"):
        people_of([{"subject": "a"}, {}], unit="patient")
