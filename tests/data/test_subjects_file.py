# SPDX-License-Identifier: Apache-2.0
"""A file says whose every scan is; its cells are text, and nothing of it comes out."""

from __future__ import annotations

import traceback

import numpy as np
import pytest

from monai_cadp.data import PublicGrid, ReadVolume, VolumeFiles
from monai_cadp.data.subjects_file import subjects_by_file

SECRET = "Mustermann-1954"


def written(folder, text):
    path = folder / f"{SECRET}.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_in_the_file_stay_the_text_that_they_are(tmp_path):
    texts = ["1_12", "11_2", "12.0", "1e3", "True", "7"]
    lines = "".join(f"{index}.nii,{text}\n" for index, text in enumerate(texts))
    found = subjects_by_file([f"{index}.nii" for index in range(6)], written(tmp_path, "file,subject\n" + lines))
    assert found == texts


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "missing or of another form"),
        ("", "missing or of another form"),
        (f"name,subject\na.nii,{SECRET}\n", "missing or of another form"),
        (f"file,subject\na.nii,{SECRET},x\n", "missing or of another form"),
        (f"file,subject\na.nii,{SECRET}\na.nii,y\n", "1 lines of the file of subjects name a file again"),
        (f"file,subject\n{SECRET},x\n", "nothing of 1 of 1 scans"),
        ("file,subject\na.nii, \n", "nothing of 1 of 1 scans"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_not_quoted(tmp_path, refused, text, match):
    path = tmp_path / SECRET if text is None else written(tmp_path, text)
    with refused(ValueError, match):
        subjects_by_file(["a.nii"], path)
    with pytest.raises(ValueError, match=match) as caught:
        subjects_by_file(["a.nii"], path)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_scans_have_the_subjects_of_the_file_and_of_nothing_else(tmp_path, files, refused):
    read = ReadVolume(PublicGrid((4, 4, 4), spacing=2.0))
    (tmp_path / "scans").mkdir()
    for name in "ab":
        files.nifti(tmp_path / "scans" / f"{name}.nii.gz", np.arange(512, dtype=np.int16).reshape(8, 8, 8))
    path = written(tmp_path, "file,subject\na.nii.gz,007\nb.nii.gz,008\nanother.nii.gz,9\n")
    scans = VolumeFiles(tmp_path / "scans", read, subjects=path)
    assert [scans[index]["subject"] for index in range(2)] == ["007", "008"]
    with refused(ValueError, "beside another source"):
        VolumeFiles(tmp_path / "scans", read, subjects=path, subject_pattern="(.)")
