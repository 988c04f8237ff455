# SPDX-License-Identifier: Apache-2.0
"""Faces and their attributes are read from files of exactly the published layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_cadp.data import CelebA

NAMES = ("Bald", "Eyeglasses", "Male", "Smiling")
FACES = {
    "000001.jpg": ((-1, 1, 1, -1), 0, 2880),
    "000002.jpg": ((-1, -1, -1, 1), 0, 2937),
    "000003.jpg": ((1, 1, 1, 1), 1, 2880),
    "000004.jpg": ((-1, -1, 1, -1), 2, 5805),
}


@pytest.fixture
def root(tmp_path, files):
    (tmp_path / "img_align_celeba").mkdir()
    for index, name in enumerate(FACES):
        face = np.full((218, 178, 3), 60 * index, np.uint8)
        face[:20] = face[-20:] = 255  # above and below the central square
        files.picture(tmp_path / "img_align_celeba" / name, face)
    # As they are published: two spaces before a 1, one before a -1.
    rows = [f"{name} " + " ".join(f"{value:2d}" for value in shown) for name, (shown, _, _) in FACES.items()]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join([str(len(FACES)), " ".join(NAMES) + " ", *rows]) + "\n")
    (tmp_path / "list_eval_partition.txt").write_text("".join(f"{n} {split}\n" for n, (_, split, _) in FACES.items()))
    (tmp_path / "identity_CelebA.txt").write_text("".join(f"{n} {who}\n" for n, (_, _, who) in FACES.items()))
    return tmp_path


def test_every_split_has_its_faces_with_their_attributes(root):
    train, val, test = (CelebA(root, split, (16, 16)) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (2, 1, 1)
    assert train.attribute_names == NAMES
    assert train[0]["label"].tolist() == [0, 1, 1, 0] and val[0]["label"].tolist() == [1, 1, 1, 1]
    assert train[0]["image"].shape == (3, 16, 16)


def test_the_central_square_is_shown(root):
    image = CelebA(root, "test", (32, 32))[0]["image"]
    assert (image - 180 / 255).abs().max() < 0.05


def test_attributes_are_chosen_and_ordered_by_name(root):
    assert CelebA(root, "train", (8, 8), ["Smiling", "Male"])[1]["label"].tolist() == [1, 0]


def test_a_face_says_whose_it_is_where_that_is_known(root):
    item = CelebA(root, "val", (8, 8))[0]
    assert item["subject"] == "2880" and "000003" not in item["item"]
    (root / "identity_CelebA.txt").unlink()
    item = CelebA(root, "val", (8, 8))[0]
    assert set(item) == {"image", "label"} and type(item["image"]) is torch.Tensor


def test_what_is_missing_or_unknown_is_refused(root, refused):
    with refused(ValueError, "expected one of train"):
        CelebA(root, "training")
    with refused(ValueError, "expected some of Bald"):
        CelebA(root, "train", attributes=["Hat"])
    (root / "identity_CelebA.txt").write_text("000001.jpg 2880\n000009.jpg 1\n")
    with refused(ValueError, "does not name every face"):
        CelebA(root, "train")
    (root / "list_eval_partition.txt").unlink()
    with refused(ValueError, "list_eval_partition.txt is missing"):
        CelebA(root, "train")
