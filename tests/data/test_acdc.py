# SPDX-License-Identifier: Apache-2.0
"""Hearts, their diagnoses and their masks are read from files of exactly the published layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_cadp.data import ACDC

SHAPE, SPACING = (24, 24, 4), (3.0, 3.0, 10.0)


def heart(shape=(40, 48, 5)):
    x, y, z = np.indices(shape)
    mask = np.zeros(shape, np.uint8)
    distance = (x - 20) ** 2 + (y - 24) ** 2
    mask[distance < 64], mask[distance < 25] = 2, 3
    mask[(x - 32) ** 2 + (y - 24) ** 2 < 25] = 1
    return (100 + 50 * mask + 20 * z).astype(np.int16), mask


@pytest.fixture
def root(tmp_path, files):
    for split, name, group, end_systole in (
        ("training", "patient001", "DCM", 12),
        ("training", "patient002", "NOR", 9),
        ("testing", "patient101", "RV", 11),
    ):
        folder = tmp_path / split / name
        folder.mkdir(parents=True)
        info = f"ED: 1\nES: {end_systole}\nGroup: {group}\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"
        (folder / "Info.cfg").write_text(info)
        image, mask = heart()
        affine = np.diag([-1.5, -1.5, 10.0, 1.0])
        files.nifti(folder / f"{name}_4d.nii.gz", np.stack([image] * 2, -1), affine)
        for frame in (1, end_systole):
            files.nifti(folder / f"{name}_frame{frame:02d}.nii.gz", image, affine)
            files.nifti(folder / f"{name}_frame{frame:02d}_gt.nii.gz", mask, affine)
    return tmp_path


def test_both_phases_of_every_heart_come_to_the_public_grid_with_their_diagnosis(root):
    train, test = (ACDC(root, split, SHAPE, SPACING) for split in ("train", "test"))
    assert (len(train), len(test)) == (4, 2)
    assert [int(item["label"]) for item in train] == [2, 2, 0, 0] and int(test[0]["label"]) == 4
    image = train[0]["image"]
    assert type(image) is torch.Tensor and image.shape == (1, *SHAPE) and 0 <= image.min() and image.max() <= 1


def test_masks_lie_where_the_hearts_lie_and_keep_their_labels(root):
    item = ACDC(root, "train", SHAPE, SPACING)[0]
    assert set(item["mask"].unique().tolist()) == {0, 1, 2, 3}
    means = [float(item["image"][item["mask"] == label].mean()) for label in range(4)]
    assert means == sorted(means)
    # Right is to the right: voxels of the file run to the left, and the right ventricle is at its end.
    places = (item["mask"] == 1).nonzero().float().mean(0) - (item["mask"] == 3).nonzero().float().mean(0)
    assert places[1] < -3 and places[2].abs() < 1


def test_slices_are_those_of_the_volumes(root):
    volumes, slices = (ACDC(root, "train", SHAPE, SPACING, slices=flag) for flag in (False, True))
    assert len(slices) == 4 * SHAPE[2]
    assert torch.equal(slices[SHAPE[2] + 2]["image"], volumes[1]["image"][..., 2])
    assert len({slices[index]["item"] for index in range(len(slices))}) == len(slices)


def test_scans_of_one_person_are_of_one_subject_and_two_items(root):
    first, second, other, _ = ACDC(root, "train", SHAPE, SPACING)
    assert first["subject"] == second["subject"] != other["subject"]
    assert first["item"] != second["item"]


def test_a_test_set_without_masks_is_read(root):
    for path in root.rglob("*_gt.nii.gz"):
        path.unlink()
    assert "mask" not in ACDC(root, "test", SHAPE, SPACING)[0]


def test_what_is_missing_or_damaged_is_refused(root, refused):
    with refused(ValueError, "expected one of train"):
        ACDC(root, "val")
    with refused(ValueError, "expected three positive numbers"):
        ACDC(root, "train", (4, 4))
    with refused(ValueError, "holds no patient"):
        ACDC(root / "training", "train")
    (root / "testing" / "patient101" / "patient101_frame01.nii.gz").write_bytes(b"damaged")
    with refused(ValueError, "could not be decoded"):
        _ = ACDC(root, "test")[0]
    (root / "testing" / "patient101" / "Info.cfg").write_text("Group: PATIENT\nED: 1\nES: 2")
    with refused(ValueError, "Info.cfg is missing or damaged"):
        ACDC(root, "test")
