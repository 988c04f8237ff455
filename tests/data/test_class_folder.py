# SPDX-License-Identifier: Apache-2.0
"""Class folders give labels by their names; what does not belong is passed over or refused, and never named."""

from __future__ import annotations

import os

import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import Dataset as MonaiDataset
from PIL import Image
from torch.utils.data import ConcatDataset

from monai_cadp.data import ClassFolder, FlatFolder, Part, class_names_of, open_images
from monai_cadp.data.subjects import without_ending

CANARY = "Mustermann-1954"
LAYOUT = {"NORMAL": 2, "CNV": 1, "DME": 3}


def fill(root, layout):
    for value, (name, count) in enumerate(layout.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            array = np.full((6, 8), 10 * value + index, dtype=np.uint8)
            Image.fromarray(array).save(root / name / f"{CANARY}-{index}.png")
    return root


def test_labels_follow_the_sorted_names(tmp_path):
    images = ClassFolder(fill(tmp_path, LAYOUT), (4, 4))
    assert images.class_names == ("CNV", "DME", "NORMAL") and images.num_classes == 3
    assert [int(images[i]["label"]) for i in range(len(images))] == [0, 1, 1, 1, 2, 2]
    assert images[0]["label"].dtype == torch.int64


def test_labels_follow_the_order_that_is_given(tmp_path):
    images = ClassFolder(fill(tmp_path, LAYOUT), (4, 4), classes=["NORMAL", "CNV", "DRUSEN", "DME"])
    assert images.num_classes == 4
    assert [int(images[i]["label"]) for i in range(len(images))] == [0, 0, 1, 3, 3, 3]


def test_each_label_belongs_to_its_image(tmp_path):
    images = ClassFolder(fill(tmp_path, LAYOUT), (4, 4), in_channels=3)
    brightness = [round(float(images[i]["image"].mean() * 255)) for i in range(len(images))]
    assert brightness == [10, 20, 21, 22, 0, 1]
    assert images[0]["image"].shape == (3, 4, 4)


def test_hidden_files_and_notes_are_passed_over(tmp_path):
    fill(tmp_path, LAYOUT)
    (tmp_path / ".cache").mkdir()
    for folder in (tmp_path, tmp_path / "CNV"):
        for name in (".DS_Store", "._a.png", "Thumbs.db", "desktop.ini", "README", "labels.CSV", "a.pdf", "a.ipynb"):
            (folder / name).write_text("no image")
        (folder / "@eaDir").mkdir()
        (folder / "@eaDir" / "a.png@thumb.jpg").write_text("no image")
    (tmp_path / "CNV" / "notes").mkdir()
    (tmp_path / "CNV" / "notes" / "a.txt").write_text("no image")
    assert len(ClassFolder(tmp_path, (4, 4))) == 6


def test_a_folder_of_notes_is_no_class_and_an_empty_one_is(tmp_path):
    fill(tmp_path, {**LAYOUT, "A": 0, "docs": 0})
    (tmp_path / "docs" / "readme.txt").write_text("no image")
    images = open_images(tmp_path, "test", (4, 4))
    assert images.class_names == ("A", "CNV", "DME", "NORMAL") and len(images) == 6


def test_empty_folders_beside_images_make_no_classes_of_them(tmp_path, files):
    fill(tmp_path, {"out": 0, "notes": 0})
    (tmp_path / "notes" / "readme.txt").write_text("no image")
    files.picture(tmp_path / "a.png", np.zeros((4, 4)))
    images = open_images(tmp_path, "test", (4, 4))
    assert isinstance(images, FlatFolder) and len(images) == 1


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.jp2", "a.zip", "IM0001", "a.png.part"])
@pytest.mark.parametrize("place", ["CNV", "."], ids=["in a class", "beside classes"])
def test_what_might_be_an_image_and_is_not_read_is_refused(tmp_path, refused, name, place):
    (fill(tmp_path, LAYOUT) / place / name).write_bytes(b"pixels")
    with refused(ValueError, "^1 files.* move"):
        ClassFolder(tmp_path, (4, 4))


def test_a_picture_beside_class_folders_is_refused(tmp_path, files, refused):
    files.picture(fill(tmp_path, LAYOUT) / f"{CANARY}.png", np.zeros((4, 4)))
    with refused(ValueError, "^1 files, or links to what is not there, lie beside folders"):
        ClassFolder(tmp_path, (4, 4))


def test_a_folder_within_a_folder_of_images_is_refused_unless_it_is_empty(tmp_path, files, refused):
    (fill(tmp_path, LAYOUT) / "CNV" / "more" / "yet").mkdir(parents=True)
    assert len(ClassFolder(tmp_path, (4, 4))) == 6 and len(FlatFolder(tmp_path / "CNV", (4, 4))) == 1
    files.picture(tmp_path / "CNV" / "more" / "yet" / "a.png", np.zeros((4, 4)))
    for opened in (lambda: ClassFolder(tmp_path, (4, 4)), lambda: FlatFolder(tmp_path / "CNV", (4, 4))):
        with refused(ValueError, "^1 folders lie in a folder of images"):
            opened()


@pytest.mark.parametrize("place", ["CNV", "."], ids=["in a class", "beside classes"])
def test_a_link_to_what_is_not_there_is_not_left_out(tmp_path, refused, place):
    (fill(tmp_path, LAYOUT) / place / "DRUSEN").symlink_to(tmp_path / CANARY)
    with refused(ValueError, "^1 files.* move"):
        ClassFolder(tmp_path, (4, 4))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_refused_and_nobody_waits_for_it(tmp_path, refused):
    os.mkfifo(fill(tmp_path, LAYOUT) / "CNV" / "pipe")
    with refused(ValueError, "^1 files in a folder of images"):
        ClassFolder(tmp_path, (4, 4))
    (tmp_path / "CNV" / "pipe").rename(tmp_path / "CNV" / "pipe.png")
    with refused(ValueError, "is no file"):
        list(ClassFolder(tmp_path, (4, 4)))


def test_dicom_without_an_ending_and_all_endings_of_jpeg_are_read(tmp_path, files):
    files.dicom(tmp_path / "IM0001", SOPInstanceUID="1.2.3.1")
    files.dicom(tmp_path / "1.2.840.7", SOPInstanceUID="1.2.3.2")
    assert len(list(FlatFolder(tmp_path, (4, 4), intensity_range=(0, 1000)))) == 2
    (tmp_path / "films").mkdir()
    for name in ("a.jpe", "b.JFIF", "c.jpg"):
        Image.new("L", (8, 8)).save(tmp_path / "films" / name, format="JPEG")
    assert len(list(FlatFolder(tmp_path / "films", (4, 4)))) == 3


def test_the_voxels_of_a_header_belong_to_its_image(tmp_path):
    image = SimpleITK.GetImageFromArray(np.zeros((8, 8), np.int16))
    SimpleITK.WriteImage(image, str(tmp_path / "a.mhd"))
    assert (tmp_path / "a.raw").exists()
    assert len(list(FlatFolder(tmp_path, (4, 4), intensity_range=(0, 1)))) == 1


def test_a_class_whose_name_begins_as_that_of_a_system_folder_is_a_class(tmp_path):
    images = ClassFolder(fill(tmp_path, {"__normal": 1, "_2": 1, "lost": 1, "#2": 1, "$3": 1}), (4, 4))
    assert images.class_names == ("#2", "$3", "_2", "__normal", "lost") and len(images) == 5


def test_an_image_whose_name_begins_as_that_of_a_system_folder_is_not_left_out(tmp_path, files):
    for name in ("#1.png", "@1.png", "$1.png"):
        files.picture(tmp_path / name, np.zeros((4, 4)))
    assert len(FlatFolder(tmp_path, (4, 4))) == 3


SYSTEM_FOLDERS = [".DS_Store", "@eaDir", "@__thumb", "@sharebin", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found"]


@pytest.mark.parametrize("name", SYSTEM_FOLDERS)
def test_a_folder_that_a_system_made_is_never_a_class_and_shifts_none(tmp_path, name):
    images = ClassFolder(fill(tmp_path, {**LAYOUT, name: 2}), (4, 4))
    assert images.class_names == ("CNV", "DME", "NORMAL") and len(images) == 6
    # Beside images that have no classes it makes none of them.
    flat = fill(tmp_path / "other", {name: 1})
    picture = np.zeros((6, 8), np.uint8)
    Image.fromarray(picture).save(flat / "a.png")
    assert isinstance(open_images(flat, "test", (4, 4)), FlatFolder)


def test_parts_and_transformed_versions_know_the_names_of_their_classes(tmp_path):
    images = ClassFolder(fill(tmp_path, LAYOUT), (4, 4))
    part = Part(images, "train", (1.0, 0.0, 0.0))
    for version in (images, part, MonaiDataset(part, lambda item: item), ConcatDataset([images, part])):
        assert class_names_of(version) == ["CNV", "DME", "NORMAL"]
    others = ClassFolder(tmp_path, (4, 4), classes=["NORMAL", "CNV", "DME"])
    flat = FlatFolder(tmp_path / "CNV", (4, 4))
    for nameless in (flat, ConcatDataset([images, others]), MonaiDataset([{"label": 0}]), [{"label": 0}]):
        assert class_names_of(nameless) is None


def test_an_unknown_folder_is_refused_without_its_name(tmp_path):
    fill(tmp_path, {**LAYOUT, CANARY: 1})
    with pytest.raises(ValueError, match="1 sub folders that are not among the classes NORMAL, CNV, DME;") as caught:
        ClassFolder(tmp_path, (4, 4), classes=list(LAYOUT))
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("layout", [{}, {"CNV": 0}], ids=["no class", "empty class"])
def test_a_folder_without_images_is_refused(tmp_path, layout):
    with pytest.raises(ValueError, match="No image"):
        ClassFolder(fill(tmp_path, layout), (4, 4))


def test_a_class_named_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="twice"):
        ClassFolder(fill(tmp_path, LAYOUT), (4, 4), classes=["CNV", "CNV", "DME", "NORMAL"])


@pytest.mark.parametrize("kind", [ClassFolder, FlatFolder])
def test_a_missing_folder_is_refused_without_its_name(tmp_path, kind):
    with pytest.raises(ValueError, match="does not exist") as caught:
        kind(tmp_path / CANARY, (4, 4))
    assert CANARY not in str(caught.value)


def test_a_damaged_file_is_refused_without_its_name(tmp_path):
    fill(tmp_path, {"CNV": 1})
    (tmp_path / "CNV" / f"{CANARY}-0.png").write_bytes(b"no image")
    images = ClassFolder(tmp_path, (4, 4))
    with pytest.raises(ValueError, match="could not be decoded") as caught:
        images[0]
    assert CANARY not in str(caught.value)


def test_a_flat_folder_has_images_and_nothing_else(tmp_path):
    fill(tmp_path, {"CNV": 2})
    images = FlatFolder(tmp_path / "CNV", (4, 4))
    assert len(images) == 2 and list(images[0]) == ["image"] and images[0]["image"].shape == (1, 4, 4)


def test_a_flat_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="no image file"):
        FlatFolder(tmp_path, (4, 4))


def test_an_image_is_the_same_item_however_its_path_is_spelled(tmp_path, monkeypatch):
    """Or a ledger would release it twice."""
    folder = tmp_path / "scans" / "CNV"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "CNV-1954-1.png")
    pattern = r"-(\d+)-"
    for kind, start in ((FlatFolder, folder), (ClassFolder, folder.parent)):
        monkeypatch.chdir(start)
        spelled = [start, ".", start / ".." / start.name, f"{start}/"]
        assert len({kind(root, (4, 4), subject_pattern=pattern)[0]["item"] for root in spelled}) == 1


def test_files_of_one_name_in_two_splits_are_two_items(tmp_path):
    """Or the test set would come out as a copy of the training set."""
    items = []
    for split in ("train", "test"):
        (tmp_path / split / "CNV").mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / split / "CNV" / "p1-a.png")
        items.append(open_images(tmp_path, split, (4, 4), subject_pattern="^(p1)")[0]["item"])
        assert open_images(tmp_path / split, "test", (4, 4), subject_pattern="^(p1)")[0]["item"] == items[-1]
        items.append(FlatFolder(tmp_path / split / "CNV", (4, 4), subject_pattern="^(p1)")[0]["item"])
    assert items[0] != items[2]


def test_two_unicode_forms_of_a_name_are_one_item_and_refused_without_it(tmp_path, refused):
    for name in ("caf\u00e9.png", "cafe\u0301.png"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name)
    if len(list(tmp_path.iterdir())) == 2:
        with refused(ValueError, "same item twice, numbers 1 and 2"):
            FlatFolder(tmp_path, (4, 4))


def test_uids_as_names_of_files_are_subjects_to_their_last_point(tmp_path, files):
    uids = [f"1.2.840.113619.{number}" for number in (5, 6, 7)]
    for number, uid in enumerate(uids):
        files.dicom(tmp_path / f"{uid}.dcm", SOPInstanceUID=f"1.2.3.{number}")
    found = FlatFolder(tmp_path, (4, 4), intensity_range=(0, 1000), subject_pattern="^(.+)$")
    assert [found[index]["subject"] for index in range(3)] == uids


@pytest.mark.parametrize(
    "ending", [".png", ".JPG", ".jpeg", ".tif", ".bmp", ".nii", ".nii.gz", ".dcm", ".mha", ".nrrd", ""]
)
def test_only_a_true_ending_is_cut_from_a_name(ending):
    assert without_ending(f"1.2.840.10008{ending}") == "1.2.840.10008"


def test_a_pattern_finds_the_subject_in_the_name_and_the_item_is_the_name(tmp_path, refused):
    folder = tmp_path / "CNV"
    folder.mkdir()
    for number in (1, 2):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / f"CNV-1954-{number}.png")
    pattern = r"^[A-Z]+-(\d+)-"
    first, second = ClassFolder(tmp_path, (4, 4), subject_pattern=pattern)
    assert first["subject"] == second["subject"] == "1954"
    assert first["item"] != second["item"] and "1954" not in first["item"] + second["item"]
    assert first["item"] == ClassFolder(tmp_path, (4, 4), subject_pattern=pattern)[0]["item"]
    assert FlatFolder(folder, (4, 4), subject_pattern=pattern)[0]["subject"] == "1954"
    assert "subject" not in ClassFolder(tmp_path, (4, 4))[0]
    with refused(ValueError, "finds no subject in the names of 2 of 2 files"):
        ClassFolder(tmp_path, (4, 4), subject_pattern="(never)")
    for useless in ("CNV", "("):
        with refused(ValueError, "no regular expression with a group"):
            ClassFolder(tmp_path, (4, 4), subject_pattern=useless)
