# SPDX-License-Identifier: Apache-2.0
"""Scans are found wherever they lie, and known by their names whatever the way to them."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import SimpleITK
from pydicom.data import get_testdata_file

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
    scans = VolumeFiles(folder, READ, subject="7")
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


def test_the_scans_of_two_visits_are_two_items_although_their_files_are_named_alike(tmp_path, files):
    """One would come out as a copy of the other."""
    places = [tmp_path / visit / "t1" / "scan.nii.gz" for visit in ("visit1", "visit2")]
    for place in places:
        place.parent.mkdir(parents=True)
        files.nifti(place, volume(1))
    alone = [VolumeFiles(place, READ, subject="anna")[0]["item"] for place in places]
    folders = [VolumeFiles(place.parent, READ, subject="anna")[0]["item"] for place in places]
    assert alone == folders and len(set(alone)) == 2


def test_a_scan_that_is_there_twice_by_a_link_is_refused(tmp_path, files, refused):
    files.nifti(tmp_path / "a.nii.gz", volume(1))
    (tmp_path / "b.nii.gz").symlink_to(tmp_path / "a.nii.gz")
    with refused(ValueError, "same item twice, numbers 1 and 2"):
        VolumeFiles(tmp_path, READ, subject="anna")


def test_a_series_is_known_by_its_uids_and_refused_when_it_is_there_twice(tmp_path, files, refused):
    files.series(tmp_path / "first", volume(1), uid="1.2.3.4")
    (tmp_path / "second").mkdir()
    files.series(tmp_path / "second" / "series", volume(1), uid="1.2.3.4")
    items = [VolumeFiles(tmp_path / place, READ, subject="anna")[0]["item"] for place in ("first", "second")]
    assert items[0] == items[1]
    files.series(tmp_path / "second" / "copy", volume(1), uid="1.2.3.4")
    with refused(ValueError, "numbers 1 and 2"):
        VolumeFiles(tmp_path / "second", READ)


@pytest.mark.parametrize("subject", [112, 12.0, True])
def test_a_subject_that_a_command_line_took_for_a_number_is_refused(folder, refused, subject):
    """1_12 and 11_2 are one number."""
    with refused(ValueError, "put it in quotes"):
        VolumeFiles(folder, READ, subject=subject)


def test_what_cannot_be_scans_is_refused(folder, tmp_path, refused):
    with refused(ValueError, "does not exist"):
        VolumeFiles(folder / "Mustermann", READ)
    (tmp_path / "empty").mkdir()
    with refused(ValueError, "holds no scan"):
        VolumeFiles(tmp_path / "empty", READ)
    with refused(ValueError, "give one of them"):
        VolumeFiles(folder, READ, subject="1", subject_pattern="(a)")
    for useless in ("anna", "(", "(never)"):
        with refused(ValueError, "subject_pattern"):
            VolumeFiles(folder, READ, subject_pattern=useless)


def test_a_header_of_text_and_its_voxels_are_one_scan(folder):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(volume(4)), str(folder / "carl_1.mhd"))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(volume(5)), str(folder / "dora_1.nhdr"), useCompression=True)
    assert (folder / "carl_1.raw").exists() and (folder / "dora_1.raw.gz").exists()
    scans = VolumeFiles(folder, READ, subject_pattern="^([a-z]+)_")
    assert [scans[index]["subject"] for index in range(len(scans))] == ["anna", "anna", "bert", "carl", "dora"]


@pytest.mark.parametrize("name", ["scan.mgz", "scan.raw", "scan.hdr", "scan"])
def test_what_might_be_a_scan_is_not_left_out(folder, refused, name):
    (folder / name).write_bytes(b"voxels")
    with refused(ValueError, "1 files of a folder are neither NIfTI, MetaImage or NRRD nor notes"):
        VolumeFiles(folder, READ)


def litter(folder):
    """What systems and people leave in a folder, which holds no scan."""
    for name in ("@eaDir", "__MACOSX", "empty", "papers", "papers/more"):
        (folder / name).mkdir()
    for name in ("@eaDir/scan.nii.gz", "__MACOSX/._scan.nii.gz", ".DS_Store", "Thumbs.db", "papers/more/README"):
        (folder / name).write_bytes(b"no scan")


def test_litter_and_empty_folders_are_no_scans(folder, files):
    items = [VolumeFiles(place, READ, subject="7")[0]["item"] for place in (folder, folder / "anna_2")]
    litter(folder)
    litter(folder / "anna_2")
    (folder / "anna_2" / "desktop.ini").write_text("no slice")
    scans = VolumeFiles(folder, READ, subject="7")
    assert [scan["image"].shape for scan in scans] == [(1, 4, 4, 4)] * 3
    assert [VolumeFiles(place, READ, subject="7")[0]["item"] for place in (folder, folder / "anna_2")] == items


def test_the_directory_of_a_medium_makes_no_series_of_the_folder_of_its_series(folder):
    shutil.copy(get_testdata_file("DICOMDIR"), folder / "DICOMDIR")
    assert [scan["image"].shape for scan in VolumeFiles(folder, READ)] == [(1, 4, 4, 4)] * 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_refused_and_nobody_waits_for_it(folder, refused):
    os.mkfifo(folder / "anna_2" / "pipe")
    with refused(ValueError, "1 of 9 files of a folder are not DICOM"):
        VolumeFiles(folder / "anna_2", READ)[0]
    os.mkfifo(folder / "pipe.nii")
    with refused(ValueError, "is neither file nor folder"):
        VolumeFiles(folder / "pipe.nii", READ)
    with refused(ValueError, "is no file"):
        VolumeFiles(folder, READ)[3]
    os.mkfifo(folder / "pipe")
    with refused(ValueError, "1 files of a folder are neither"):
        VolumeFiles(folder, READ)


def test_a_series_beside_the_slices_of_another_is_not_left_out(folder, files, refused):
    files.series(folder / "anna_2" / "more", volume(4))
    with refused(ValueError, "holds DICOM files, and 1 folders beside them"):
        VolumeFiles(folder / "anna_2", READ)[0]
    with refused(ValueError, "holds DICOM files, and 1 folders beside them"):
        VolumeFiles(folder, READ)[1]
