# SPDX-License-Identifier: Apache-2.0
"""The digits are split once and for all, every class alike."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.data import Digits

SPLITS = {name: Digits(name) for name in ("train", "val", "test")}


def labels(split):
    return torch.stack([SPLITS[split][i]["label"] for i in range(len(SPLITS[split]))])


def test_the_splits_hold_every_digit_once():
    assert [len(images) for images in SPLITS.values()] == [1078, 359, 360]


def test_no_image_is_in_two_splits_more_often_than_the_set_repeats_it():
    rows = [tuple(images[i]["image"].flatten().tolist()) for images in SPLITS.values() for i in range(len(images))]
    assert len(set(rows)) == len(rows) == 1797


@pytest.mark.parametrize("split", SPLITS)
def test_every_class_has_its_share(split):
    counts = torch.bincount(labels(split), minlength=Digits.num_classes).float()
    assert counts.shape == (10,) and (counts / counts.sum() - 0.1).abs().max() < 0.01


def test_the_split_is_the_same_every_time():
    again = Digits("test")
    assert all(torch.equal(again[i]["image"], SPLITS["test"][i]["image"]) for i in range(len(again)))


def test_images_are_scaled_by_sixteen():
    item = SPLITS["train"][0]
    assert item["image"].shape == (1, 8, 8) and item["image"].dtype == torch.float32
    assert torch.equal(item["image"] * 16, (item["image"] * 16).round()) and 0 <= item["image"].min()
    assert max(float(SPLITS["train"][i]["image"].max()) for i in range(50)) == 1.0


def test_size_and_channels_may_be_changed():
    assert Digits("val", spatial_shape=(16, 12), in_channels=3)[0]["image"].shape == (3, 16, 12)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'valid'.*train, val, test"):
        Digits("valid")
