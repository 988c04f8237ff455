# SPDX-License-Identifier: Apache-2.0
"""Intervals are those of people, where samples say whose they are."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.metrics import bootstrap, bootstrap_mean

VALUES = (torch.arange(40) % 2).double()


def test_who_has_one_sample_each_has_the_interval_of_samples():
    people = torch.arange(40) + 100
    assert bootstrap_mean(VALUES, people=people) == bootstrap_mean(VALUES)


def test_ten_equal_images_of_one_person_are_no_more_evidence_than_one():
    once = bootstrap_mean(VALUES)
    many = bootstrap_mean(VALUES.repeat_interleave(10), people=torch.arange(40).repeat_interleave(10))
    assert many == pytest.approx(once)
    assert bootstrap_mean(VALUES.repeat_interleave(10)).low > once.low + 0.05


def test_people_are_drawn_with_all_their_samples():
    people = torch.tensor([5, 2, 5, 9, 2, 5])

    def times_alike(drawn):
        times = drawn.bincount(minlength=6)
        return float(times[0] == times[2] == times[5] and times[1] == times[4] and times[[0, 1, 3]].sum() == 3)

    assert bootstrap(times_alike, 6, people=people, num_bootstraps=50) == (1.0, 1.0, 1.0)


def test_samples_of_whom_nobody_is_said_are_refused(refused):
    with refused(ValueError, "shape \\(3,\\) for 40 samples"):
        bootstrap_mean(VALUES, people=torch.arange(3))
