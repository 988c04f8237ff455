# SPDX-License-Identifier: Apache-2.0
"""One function opens every kind of data set, and its items go through a loader with workers."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from monai_cadp.data import ClassFolder, Digits, FlatFolder, ImageList, NpzImages, open_images, open_originals

CANARY = "Mustermann-1954"


def pictures(folder, count=2):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(np.full((6, 6), index, dtype=np.uint8)).save(folder / f"{index}.jpeg")


def npz(tmp_path):
    np.savez(tmp_path / "a.npz", train_images=np.zeros((4, 6, 6), np.uint8), train_labels=np.arange(4)[:, None])
    return tmp_path / "a.npz"


def split_classes(tmp_path):
    for split in ("train", "test"):
        for name in ("CNV", "DME"):
            pictures(tmp_path / split / name)
    return tmp_path


def classes(tmp_path):
    for name in ("CNV", "DME"):
        pictures(tmp_path / name)
    return tmp_path


def flat(tmp_path):
    pictures(tmp_path, 4)
    return tmp_path


def split_flat(tmp_path):
    pictures(tmp_path / "train", 4)
    return tmp_path


def datalist(tmp_path):
    pictures(tmp_path, 4)
    listed = [{"image": f"{i}.jpeg", "label": i} for i in range(4)]
    (tmp_path / "list.json").write_text(json.dumps({"training": listed, "validation": listed[:1], "held": listed[:2]}))
    return tmp_path / "list.json"


def digits(tmp_path):
    return "digits"


KINDS = {
    npz: NpzImages,
    split_classes: ClassFolder,
    classes: ClassFolder,
    flat: FlatFolder,
    split_flat: FlatFolder,
    datalist: ImageList,
    digits: Digits,
}


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_every_kind_of_source_gives_items_of_one_form(tmp_path, make, in_channels):
    images = open_images(make(tmp_path), "train", (8, 10), in_channels)
    assert type(images) is KINDS[make]
    item = images[0]
    assert type(item["image"]) is torch.Tensor and item["image"].dtype == torch.float32
    assert item["image"].shape == (in_channels, 8, 10)
    assert 0 <= item["image"].min() and item["image"].max() <= 1
    assert ("label" in item) == (KINDS[make] is not FlatFolder)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_every_data_set_can_be_sent_to_a_worker(tmp_path, make):
    images = open_images(make(tmp_path), "train", (8, 8))
    copy = pickle.loads(pickle.dumps(images))
    assert len(copy) == len(images) and torch.equal(copy[1]["image"], images[1]["image"])


def test_a_loader_with_workers_gives_the_same_batch(tmp_path):
    images = open_images(datalist(tmp_path), "train", (8, 8))
    (alone,) = DataLoader(images, batch_size=4)
    (workers,) = DataLoader(images, batch_size=4, num_workers=1)
    assert torch.equal(alone["image"], workers["image"]) and workers["label"].tolist() == [0, 1, 2, 3]


def test_a_class_that_is_missing_in_test_does_not_shift_the_labels(tmp_path):
    for name in ("CNV", "DME", "DRUSEN"):
        pictures(tmp_path / "train" / name)
    pictures(tmp_path / "test" / "DRUSEN")
    images = open_images(tmp_path, "test", (4, 4))
    assert images[0]["label"] == 2 and images.num_classes == 3


def test_classes_may_be_named_in_an_order(tmp_path):
    images = open_images(classes(tmp_path), "train", (4, 4), classes=["DME", "CNV"])
    assert images.class_names == ("DME", "CNV")


def test_the_list_of_a_file_follows_the_split_or_the_key(tmp_path):
    path = datalist(tmp_path)
    assert len(open_images(path, "val", (4, 4))) == 1
    assert len(open_images(path, "val", (4, 4), datalist_key="held")) == 2
    with pytest.raises(ValueError, match="'test'"):
        open_images(path, "test", (4, 4))


def test_a_missing_split_folder_is_never_replaced_by_another(tmp_path):
    with pytest.raises(ValueError, match="'val'.*train, test"):
        open_images(split_classes(tmp_path), "val", (4, 4))


@pytest.mark.parametrize("name", ["valid/CNV/0.jpeg", f"{CANARY}/0.jpeg", "0.jpeg", "scans.zip"])
def test_what_lies_beside_splits_and_might_hold_images_is_refused(tmp_path, refused, name):
    folder = split_classes(tmp_path)
    for empty in ("notes", ".cache", "__MACOSX"):
        (folder / empty).mkdir()
    for note in ("README", "CHANGES", "prepare.py", "labels.csv.gz", "0.jpeg~", "notes/a.txt", "__MACOSX/0.jpeg"):
        (folder / note).write_text("no image")
    assert len(open_images(folder, "test", (4, 4))) == 4
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"pixels")
    for opened in (lambda: open_images(folder, "test", (4, 4)), lambda: open_originals(folder, None, (4, 4))):
        with refused(ValueError, "holds 1 files or folders beside train, test.* valid in place of val; rename"):
            opened()


def test_an_intensity_range_reaches_image_files(tmp_path):
    Image.fromarray(np.full((4, 4), 20, dtype=np.uint8)).save(tmp_path / "a.png")
    image = open_images(tmp_path, "test", (4, 4), intensity_range=(0, 40))[0]["image"]
    assert torch.allclose(image, torch.tensor(0.5))


MISSING = [
    lambda tmp_path: tmp_path / CANARY,
    lambda tmp_path: tmp_path / f"{CANARY}.npz",
    lambda tmp_path: tmp_path / f"{CANARY}.json",
    lambda tmp_path: tmp_path / (20 * CANARY),
]


@pytest.mark.parametrize("missing", MISSING)
def test_originals_that_are_missing_are_refused_without_their_name(tmp_path, refused, missing):
    with refused(ValueError, "^The source does not exist or may not be read; give"):
        open_originals(missing(tmp_path), None, (4, 4))


@pytest.mark.parametrize(
    "make, parameters, reason",
    [
        (digits, {"split": "valid"}, "split"),
        (digits, {"classes": ["0"]}, "classes"),
        (flat, {"classes": ["0"]}, "classes"),
        (npz, {"datalist_key": "training"}, "datalist_key"),
        (npz, {"intensity_range": (0, 1)}, "intensity_range"),
        (digits, {"intensity_range": (0, 1)}, "intensity_range"),
        (lambda tmp_path: pictures(tmp_path) or tmp_path / "0.jpeg", {}, "is a file of no known kind"),
        *((missing, {}, "does not exist") for missing in MISSING),
        # Whoever mistypes the path of a folder is not told to leave its pattern out.
        (MISSING[0], {"subject_pattern": "(a)"}, "does not exist"),
    ],
)
def test_what_does_not_belong_to_the_source_is_refused(tmp_path, make, parameters, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        open_images(**{"source": make(tmp_path), "split": "train", "spatial_shape": (4, 4), **parameters})
    assert CANARY not in str(caught.value)
