# SPDX-License-Identifier: Apache-2.0
"""A release takes the split that was asked for, and asks for none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from monai_cadp.data.originals import open_originals


@pytest.fixture
def flat(tmp_path, files):
    files.picture(tmp_path / "a.png", np.zeros((8, 8)))
    return tmp_path


@pytest.mark.parametrize("split", ["train", "val", "test", "all"])
def test_a_split_of_a_folder_without_splits_is_refused(flat, refused, split):
    with refused(ValueError, "One split is to be read, .*give a folder that has them"):
        open_originals(flat, split, (8, 8))


def test_without_a_split_a_folder_is_released_whole_and_a_split_source_by_its_test(flat):
    assert len(open_originals(flat, None, (8, 8))) == 1
    assert len(open_originals("digits", None, (8, 8))) == 360
    assert len(open_originals("digits", "val", (8, 8))) == 359
