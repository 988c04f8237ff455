# SPDX-License-Identifier: Apache-2.0
"""A study's audit contradicts a broken release and no other, and leaves out what it could not contradict."""

from __future__ import annotations

import pytest

from monai_cadp.attacks import all_controls
from monai_cadp.attacks.suite import small_privatizer
from monai_cadp.privacy import SubsetSelection
from monai_cadp.studies import ReleaseAudit
from monai_cadp.studies.variant import Variant

pytestmark = pytest.mark.slow


def variant(mechanism):
    privatizer = small_privatizer(mechanism)
    return Variant.promising("something", privatizer.guarantee, privatizer, releaser=privatizer)


def test_a_promise_that_is_kept_is_not_contradicted():
    (row,) = ReleaseAudit()(variant(SubsetSelection(1.0)))
    assert row["verdict"] == "kept" and 0.3 < row["measured"] <= row["promised"] == 1.0


def test_half_of_the_noise_that_is_promised_is_caught():
    (broken,) = (control.broken for control in all_controls() if control.name == "C for 2 C, Laplace")
    (row,) = ReleaseAudit()(variant(broken))
    assert row["verdict"] == "contradicted" and row["measured"] > row["promised"]


def test_what_so_few_trials_could_not_contradict_is_not_audited():
    assert ReleaseAudit().applies(variant(SubsetSelection(4.0)))
    assert not ReleaseAudit().applies(variant(SubsetSelection(8.0)))
    assert not ReleaseAudit().applies(Variant("blur", 0.0, 0.0, "", release=lambda x, y: x))


def test_too_few_trials_are_refused():
    with pytest.raises(ValueError, match="expected 20 or more"):
        ReleaseAudit(trials_alone=3)
