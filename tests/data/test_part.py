# SPDX-License-Identifier: Apache-2.0
"""Parts of a data set are the same at every time, have nothing in common, and leave nothing out."""

from __future__ import annotations

import pytest

from monai_cadp.data import Part

SPLITS = ("train", "val", "test")


@pytest.mark.parametrize("count", [3, 10, 101])
def test_parts_share_nothing_and_leave_nothing_out(count):
    shares = (0.4, 0.3, 0.3)
    parts = [list(Part(range(count), split, shares)) for split in SPLITS]
    assert sorted(sum(parts, [])) == list(range(count))


def test_a_part_is_drawn_at_random_and_always_the_same():
    first, again, other = (list(Part(range(100), "train", seed=seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert first != sorted(first)


def test_all_images_of_a_subject_are_in_one_part():
    films = [{"subject": f"{index % 7}.0" if index > 30 else str(index % 7)} for index in range(60)]
    parts = [{int(float(film["subject"])) for film in Part(films, split, (0.5, 0.3, 0.2))} for split in SPLITS]
    assert sorted(len(part) for part in parts) == [1, 2, 4]
    assert set.union(*parts) == set(range(7))
    assert sum(len(Part(films, split, (0.5, 0.3, 0.2))) for split in SPLITS) == 60


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"split": "all"}, "split is 'all'"),
        ({"shares": (0.5, 0.5)}, "three numbers"),
        ({"shares": (0.8, 0.3, -0.1)}, "three numbers"),
        ({"shares": (0.8, 0.1, 0.2)}, "three numbers"),
        ({"split": "val", "shares": (1.0, 0.0, 0.0)}, "Nothing of 100 subjects is left for val"),
    ],
)
def test_parts_that_cannot_be_made_are_refused(refused, change, match):
    with refused(ValueError, match):
        Part(range(100), **({"split": "train"} | change))
