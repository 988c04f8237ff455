# SPDX-License-Identifier: Apache-2.0
"""The unit of a guarantee is one of four words, wherever it is stated."""

from __future__ import annotations

import pytest

from monai_cadp.baselines import PixelNoise
from monai_cadp.privacy import (
    UNITS,
    Budget,
    PrivacyGuarantee,
    PrivacyLedger,
    SubsetSelection,
    check_unit,
    compose,
    needs_subjects,
)


@pytest.mark.parametrize("unit", UNITS)
def test_the_four_words_are_units_and_one_needs_subjects(unit):
    assert check_unit(unit) == unit and needs_subjects(unit) == (unit == "patient")


@pytest.mark.parametrize("unit", ["Patient", "patient ", "subject", "person", "", None, 3, "images"])
def test_any_other_word_is_refused_with_the_list_wherever_it_is_given(tmp_path, refused, unit):
    cost = PrivacyGuarantee(epsilon=1.0, mechanism="SubsetSelection")
    doors = [
        lambda: check_unit(unit),
        lambda: needs_subjects(unit),
        lambda: PrivacyGuarantee(epsilon=1.0, mechanism="SubsetSelection", unit=unit),
        lambda: SubsetSelection(1.0).guarantee(unit=unit),
        lambda: PixelNoise(1.0, unit=unit),
        lambda: PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(1.0), unit=unit),
        *([lambda: compose([cost, cost], unit=unit)] if unit is not None else []),
    ]
    for door in doors:
        with refused(ValueError, "expected one of image, volume, row, patient"):
            door()
    assert not (tmp_path / "ledger.db").exists()
