# SPDX-License-Identifier: Apache-2.0
"""Files in MedMNIST's format are read as they are published, split by split."""

from __future__ import annotations

import gc
import warnings

import numpy as np
import pytest
import torch

from monai_cadp.data import NpzImages, people_of

CANARY = "Mustermann-1954"


def write(path, images, labels, splits=("train", "test")):
    np.savez(path, **{f"{s}_images": images for s in splits}, **{f"{s}_labels": labels for s in splits})
    return path


@pytest.mark.parametrize(
    "patients", [np.array([7, 12, 7]), np.array([["7"], ["12"], ["007"]]), np.array([b"7", b"12", b"7.0"])]
)
def test_patients_are_subjects_and_places_are_items(tmp_path, patients):
    arrays = {"images": np.zeros((3, 4, 4), np.uint8), "labels": np.arange(3), "patients": patients}
    path = tmp_path / "a.npz"
    np.savez(path, **{f"{split}_{name}": array for split in ("train", "test") for name, array in arrays.items()})
    train, test = (NpzImages(path, split) for split in ("train", "test"))
    assert people_of(train, unit="patient") == [0, 1, 0] and train[1]["subject"] == "12"
    assert len({images[index]["item"] for images in (train, test) for index in range(3)}) == 6


def test_an_image_is_one_item_through_a_link_to_its_file(tmp_path):
    patients = {"train_patients": np.arange(2)}
    np.savez(tmp_path / "a.npz", train_images=np.zeros((2, 4, 4), np.uint8), train_labels=np.arange(2), **patients)
    (tmp_path / "latest.npz").symlink_to(tmp_path / "a.npz")
    named, linked = (NpzImages(tmp_path / name) for name in ("a.npz", "latest.npz"))
    assert named[1]["item"] == linked[1]["item"]


@pytest.mark.parametrize(
    "patients", [np.array([7.0, 12.0]), np.array([7]), np.array([[7, 8], [9, 1]]), np.array([True, False])]
)
def test_patients_that_are_no_ids_are_refused(tmp_path, refused, patients):
    images, labels = np.zeros((2, 4, 4), np.uint8), np.arange(2)
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels, train_patients=patients)
    with refused(ValueError, "expected texts or integers"):
        NpzImages(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((6, 8), (1, 6, 8)),
        ((6, 8, 3), (3, 6, 8)),
        ((6, 8, 1), (1, 6, 8)),
        ((5, 6, 8), (1, 5, 6, 8)),
        ((5, 6, 8, 3), (3, 5, 6, 8)),
    ],
    ids=str,
)
def test_every_layout_becomes_channels_first(tmp_path, shape, expected):
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    item = NpzImages(write(tmp_path / "a.npz", images, np.arange(4)[:, None]))[2]
    assert item["image"].shape == expected and item["image"].dtype == torch.float32
    stored = torch.from_numpy(images[2]).float() / 255
    assert torch.allclose(item["image"], stored.movedim(-1, 0) if shape[-1] in (1, 3) else stored[None])
    assert item["label"] == 2


def test_several_labels_become_a_vector(tmp_path):
    path = write(tmp_path / "a.npz", np.zeros((2, 4, 4), np.uint8), np.array([[1, 0, 1], [0, 1, 0]], np.uint8))
    assert NpzImages(path)[0]["label"].tolist() == [1.0, 0.0, 1.0]


def test_size_and_channels_may_be_changed(tmp_path):
    path = write(tmp_path / "a.npz", np.zeros((2, 28, 28), np.uint8), np.zeros((2, 1), np.uint8))
    assert NpzImages(path, spatial_shape=(32, 32), in_channels=3)[0]["image"].shape == (3, 32, 32)


def test_the_first_items_only(tmp_path):
    path = write(tmp_path / "a.npz", np.zeros((5, 4, 4), np.uint8), np.arange(5))
    images = NpzImages(path, max_items=3)
    assert len(images) == 3 and [int(images[i]["label"]) for i in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="max_items"):
        NpzImages(path, max_items=0)


def test_a_missing_split_is_named_with_those_there_are(tmp_path):
    path = write(tmp_path / f"{CANARY}.npz", np.zeros((2, 4, 4), np.uint8), np.arange(2))
    with pytest.raises(ValueError, match="'val'.*train, test") as caught:
        NpzImages(path, split="val")
    assert CANARY not in str(caught.value)


def test_a_split_without_labels_is_said_to_have_none(tmp_path, refused):
    images = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", train_images=images, test_images=images, test_labels=np.arange(2))
    with refused(ValueError, "has no train_labels, which the split 'train' needs; .* has test"):
        NpzImages(tmp_path / "a.npz")


@pytest.mark.parametrize("patients", [{}, {"train_patients": np.array(7)}], ids=["", "patients"])
@pytest.mark.parametrize("name", ["images", "labels"])
def test_an_array_without_dimensions_is_refused(tmp_path, refused, name, patients):
    arrays = {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.arange(2), name: np.array(1, np.uint8)}
    np.savez(tmp_path / "a.npz", **{f"train_{key}": array for key, array in arrays.items()}, **patients)
    with refused(ValueError, r"expected .*\(N, "):
        NpzImages(tmp_path / "a.npz")


def test_pickled_objects_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was loaded",))

    objects = np.empty(2, dtype=object)
    objects[:] = [Bomb(), Bomb()]
    np.savez(tmp_path / "a.npz", train_images=objects, train_labels=np.arange(2))
    with pytest.raises(ValueError, match="pickled objects"):
        NpzImages(tmp_path / "a.npz")


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, b"", b"no archive", "truncated"])
def test_a_missing_or_damaged_file_is_refused_without_its_name(tmp_path, content):
    path = tmp_path / f"{CANARY}.npz"
    if content == "truncated":
        write(path, np.zeros((2, 4, 4), np.uint8), np.arange(2))
        content = path.read_bytes()[:-40]
    if content is not None:
        path.write_bytes(content)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="does not exist" if content is None else "is damaged") as caught:
            NpzImages(path)
        gc.collect()
    assert CANARY not in "".join(str(warning.message) for warning in warned)
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None and caught.value.__cause__ is None


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 4, 4), np.float32), np.zeros((2, 4), np.uint8), np.zeros((2, 3, 4, 4, 2), np.uint8)],
    ids=["float", "rank 2", "two channels"],
)
def test_other_arrays_than_medmnists_are_refused(tmp_path, images):
    with pytest.raises(ValueError, match="holds images of"):
        NpzImages(write(tmp_path / "a.npz", images, np.arange(2)))
