# SPDX-License-Identifier: Apache-2.0
"""Images in memory are items on a public scale, with labels of the kind that was given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_cadp.data import ArrayImages

IMAGES = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)


def test_items_are_scaled_by_the_public_value_alone():
    item = ArrayImages(IMAGES, np.array([1, 0]), largest_value=32)[1]
    assert torch.allclose(item["image"], torch.arange(16, 32).float().reshape(1, 4, 4) / 32)


@pytest.mark.parametrize("labels", [np.array([1, 0]), np.array([[1], [0]], dtype=np.uint8)], ids=["(N,)", "(N, 1)"])
def test_one_number_is_a_class_index(labels):
    label = ArrayImages(IMAGES, labels, largest_value=255)[0]["label"]
    assert label.dtype == torch.int64 and label.shape == () and label == 1


def test_several_numbers_are_a_vector():
    label = ArrayImages(IMAGES, np.array([[1, 0, 1], [0, 0, 1]]), largest_value=255)[0]["label"]
    assert label.dtype == torch.float32 and label.tolist() == [1, 0, 1]


def test_changing_an_item_does_not_change_the_data_set():
    images = ArrayImages(IMAGES, np.array([1, 0]), largest_value=255)
    images[0]["image"].zero_()
    images[0]["label"].zero_()
    assert images[0]["image"].max() > 0 and images[0]["label"] == 1


@pytest.mark.parametrize(
    "images, labels",
    [
        (IMAGES[:0], np.array([], dtype=int)),
        (IMAGES, np.array([1, 2, 3])),
        (IMAGES, np.array(["a", "b"])),
        (IMAGES, np.array([0.5, 1.0])),
        (IMAGES, np.array([-1, 1])),
        (IMAGES, np.zeros((2, 2, 2))),
    ],
    ids=["no images", "too many labels", "text", "fractions", "negative", "rank"],
)
def test_labels_that_do_not_fit_are_refused(images, labels):
    with pytest.raises(ValueError, match="expected"):
        ArrayImages(images, labels, largest_value=255)


def test_a_size_of_another_rank_is_refused_at_once():
    with pytest.raises(ValueError, match="spatial dimensions"):
        ArrayImages(IMAGES, np.array([1, 0]), largest_value=255, spatial_shape=(4, 4, 4))
