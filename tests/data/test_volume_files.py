# SPDX-License-Identifier: Apache-2.0
"""Scans are found wherever they lie, and known by their names whatever the way to them."""

from __future__ import annotations

import numpy as np
import pytest

from monai_cadp.data import PublicGrid, ReadVolume, VolumeFiles

READ = ReadVolume(PublicGrid((4, 4, 4), spacing=2.0))


def volume(seed=0):
    return (1000 * np.random.default_rng(seed).random((8, 8, 8))).astype(np.int16)


@pytest.fixture
def folder(tmp_path, files):
    """Two files, a series, and what is no scan."""
    root = tmp_path / "scans"
    root.mkdir()
    files.nifti(root / "anna_1.nii.gz", volume(1))
    files.nifti(root / "bert_1.nii", volume(2))
    files.series(root / "anna_2", volume(3))
    (root / "notes.txt").write_text("Mustermann-1954")
    (root / ".hidden").mkdir()
    return root


def test_a_folder_of_files_and_series_holds_all_of_them(folder):
    scans = VolumeFiles(folder, READ)
    assert [scans[index]["image"].shape for index in range(len(scans))] == [(1, 4, 4, 4)] * 3
    assert list(scans[0]) == ["image"]


@pytest.mark.parametrize("name", ["anna_1.nii.gz", "anna_2"])
def test_a_file_or_a_series_is_one_scan(folder, name):
    assert len(VolumeFiles(folder / name, READ)) == 1


def test_scans_of_several_people_are_told_by_their_names(folder):
    scans = VolumeFiles(folder, READ, subject_pattern="^([a-z]+)_[0-9]$")
    assert [scans[index]["subject"] for index in range(3)] == ["anna", "anna", "bert"]
    items = [scans[index]["item"] for index in range(3)]
    assert len(set(items)) == 3 and not any("anna" in item for item in items)


def test_scans_of_one_person_are_told_apart_by_their_names(folder):
    scans = VolumeFiles(folder, READ, subject=7)
    assert {scans[index]["subject"] for index in range(3)} == {"7"}
    assert len({scans[index]["item"] for index in range(3)}) == 3


def test_a_scan_is_the_same_item_alone_in_its_folder_and_from_anywhere(folder, monkeypatch):
    """Or a ledger would release it twice."""
    monkeypatch.chdir(folder)
    scan = VolumeFiles(folder, READ, subject="anna")[0]
    for spelled in ("anna_1.nii.gz", folder / "anna_1.nii.gz", folder / ".." / "scans" / "anna_1.nii.gz"):
        assert VolumeFiles(spelled, READ, subject="anna")[0]["item"] == scan["item"]
    series = VolumeFiles(folder, READ, subject="anna")[1]
    for spelled in ("anna_2", folder / "anna_2", f"{folder}/anna_2/"):
        assert VolumeFiles(spelled, READ, subject="anna")[0]["item"] == series["item"]
    monkeypatch.chdir(folder / "anna_2")
    assert VolumeFiles(".", READ, subject="anna")[0]["item"] == series["item"]


def test_what_cannot_be_scans_is_refused(folder, tmp_path, refused):
    with refused(ValueError, "does not exist"):
        VolumeFiles(folder / "Mustermann", READ)
    (tmp_path / "empty").mkdir()
    with refused(ValueError, "holds no scan"):
        VolumeFiles(tmp_path / "empty", READ)
    with refused(ValueError, "give one of them"):
        VolumeFiles(folder, READ, subject=1, subject_pattern="(a)")
    for useless in ("anna", "(", "(never)"):
        with refused(ValueError, "subject_pattern"):
            VolumeFiles(folder, READ, subject_pattern=useless)
