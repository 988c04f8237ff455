# SPDX-License-Identifier: Apache-2.0
"""What cannot be read is listed for the curator alone, with pictures of what was seen where there are any."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from torch.utils.data import Dataset, Subset

from monai_cadp.release.problems import listed_problems, readable_items


class Scans(Dataset):
    """Four scans: two intact, one of which a picture shows what was read, and one of which nothing was."""

    file_names = ("0.nii", "1.nii", "2.nii", "3.nii")

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index in (1, 3):
            raise ValueError("no head")
        return index

    def picture(self, index):
        return np.full((4, 5), 200, np.uint8) if index == 3 else None


def rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))[1:]


def test_a_picture_is_numbered_and_named_in_the_list_and_for_its_owner_alone(tmp_path):
    items, left_out = readable_items(Scans(), tmp_path / "out")
    assert (list(items), left_out) == ([0, 2], 2)
    assert rows(tmp_path / "out_problems.csv") == [
        ["1.nii", "no head"],
        ["3.nii", "no head Seen in out_problems.1.png."],
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out_problems.1.png", "out_problems.csv"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())


@pytest.mark.parametrize(("chosen", "said"), [([0, 3], " with pictures beside"), ([0, 1], "out_problems.csv beside")])
def test_the_message_says_whether_there_are_pictures_and_names_no_file(tmp_path, refused, chosen, said):
    with refused(ValueError, f"1 of 2 images cannot be read.*{said} the output"):
        with listed_problems(Subset(Scans(), chosen), tmp_path / "out", None) as items:
            [items[index] for index in range(2)]


def test_pictures_of_an_earlier_attempt_do_not_stay(tmp_path):
    readable_items(Scans(), tmp_path / "out")
    readable_items(Subset(Scans(), [0, 1]), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out_problems.csv"]
