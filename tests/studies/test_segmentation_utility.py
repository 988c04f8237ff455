# SPDX-License-Identifier: Apache-2.0
"""A segmentation network learns from releases what they show together with their masks, and no more."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from monai_cadp.data import join_masks
from monai_cadp.studies import MaskStrip, SegmentationUtility
from monai_cadp.studies.measurements import Releases
from monai_cadp.studies.variant import ORIGINALS, Split, Variant


def squares(count, seed):
    """One bright square in noise, and its mask, as one image."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 + 0.05 * torch.randn(count, 1, 16, 16, generator=generator)
    masks = torch.zeros(count, 1, 16, 16, dtype=torch.long)
    for index in range(count):
        top, left = torch.randint(10, (2,), generator=generator).tolist()
        images[index, 0, top : top + 6, left : left + 6] += 0.5
        masks[index, 0, top : top + 6, left : left + 6] = 1
    return Split(join_masks(images, masks, 2), torch.zeros(count, dtype=torch.long))


TRAIN, TEST = squares(64, 0), squares(24, 1)


def figures(train, test, method="something"):
    measured = Releases(Variant(method, math.inf, 0.0, ""), TRAIN, TEST, train, test)
    return SegmentationUtility(2, epochs=8)(measured, 0)


def with_other_masks(split):
    return torch.cat([split.x[:, :1], split.x[:, 1:].roll(1, 0)], dim=1)


def test_of_originals_there_is_the_ceiling_alone():
    found = figures(TRAIN.x, TEST.x, ORIGINALS)
    assert found.keys() == {"dice_p_o"} and found["dice_p_o"].low > 0.8


@pytest.mark.slow
def test_releases_whose_masks_are_those_of_others_teach_nothing_and_cannot_be_segmented():
    found = figures(with_other_masks(TRAIN), with_other_masks(TEST))
    assert found["dice_p_o"].high < 0.5 and found["dice_o_p"].high < 0.5
    same = figures(TRAIN.x, TEST.x)
    assert all(same[name].low > 0.8 for name in ("dice_p_o", "dice_p_p", "dice_o_p"))


@pytest.mark.slow
def test_the_interval_of_a_dice_is_over_people_with_all_their_images():
    equal = Split(*(part.repeat_interleave(5, 0) for part in TEST))
    measured = Releases(Variant(ORIGINALS, math.inf, 0.0, ""), TRAIN, equal, TRAIN.x, equal.x)
    known, unknown = (
        SegmentationUtility(2, epochs=2)(measured._replace(test_people=people), 0)["dice_p_o"]
        for people in (torch.arange(24).repeat_interleave(5), None)
    )
    assert known.value == unknown.value and known.high - known.low > 1.5 * (unknown.high - unknown.low)


def test_where_no_image_is_released_there_is_nothing_to_measure_or_draw():
    nothing = Releases(Variant("something", math.inf, 0.0, ""), TRAIN, TEST, None, None)
    assert SegmentationUtility(2)(nothing, 0) == {} and MaskStrip(2)(nothing) is None


def test_masks_are_drawn_in_colours_over_gray_images():
    picture = MaskStrip(2, num_images=3)(Releases(Variant("something", 1.0, 0.0, ""), TRAIN, TEST, TRAIN.x, TEST.x))
    pixels = np.asarray(Image.open(io.BytesIO(picture))).astype(int)
    coloured = (np.ptp(pixels, axis=2) > 40).sum() / (pixels.max(2) < 255).sum()
    assert coloured == pytest.approx(36 / 256, abs=0.01)


@pytest.mark.parametrize("num_classes", [1, 5])
def test_more_classes_than_colours_are_refused(refused, num_classes):
    with refused(ValueError, "expected 2 to 4"):
        MaskStrip(num_classes)
