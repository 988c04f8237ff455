# SPDX-License-Identifier: Apache-2.0
"""A picture of images shows every image, and nothing but images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from monai_cadp.data import image_grid, save_image_grid

GAP = 2


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (1, 4, 1), (6, 3, 2), (7, 3, 3)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_grid_has_a_tile_for_every_image(count, columns, rows, channels):
    sheet = image_grid(torch.zeros(count, channels, 64, 80), columns)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (rows * (64 + GAP) + GAP, columns * (80 + GAP) + GAP, 3)
    assert (sheet == 0).all(axis=2).sum() == count * 64 * 80


def test_small_images_are_enlarged_in_whole_steps():
    sheet = image_grid(torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]]), 1)
    tile = sheet[GAP:-GAP, GAP:-GAP, 0]
    assert tile.shape == (64, 64)
    assert (tile[:32, :32] == 0).all() and (tile[:32, 32:] == 255).all() and (tile[32:, 32:] == 0).all()


def test_red_green_and_blue_stay_what_they_are():
    image = torch.zeros(1, 3, 64, 64)
    image[:, 1] = 1.0
    assert image_grid(image, 1)[10, 10].tolist() == [0, 255, 0]


def test_one_channel_is_grey():
    assert image_grid(torch.full((1, 1, 64, 64), 0.5), 1)[10, 10].tolist() == [128, 128, 128]


def test_a_volume_shows_its_three_central_slices_with_the_head_up():
    volume = torch.zeros(1, 1, 64, 66, 70)
    volume[..., 60:] = 1.0
    volume[:, :, :, 60:] = 0.5
    sheet = image_grid(volume, 1)[GAP:-GAP, GAP:-GAP, 0]
    assert sheet.shape == (70, 64 + 64 + 66)
    axial, coronal, sagittal = sheet[:66, :64], sheet[:, 64:128], sheet[:, 128:]
    assert (axial[:6] == 128).all() and (axial[6:] == 0).all()
    assert (coronal[:10] == 255).all() and (coronal[10:] == 0).all()
    assert (sagittal[:10, :60] == 255).all() and (sagittal[:, 60:] == 128).all()


def test_images_stand_in_reading_order():
    sheet = image_grid(torch.arange(4).reshape(4, 1, 1, 1).expand(4, 1, 64, 64) / 10, 2)
    tops = [sheet[10, 10, 0], sheet[10, 80, 0], sheet[80, 10, 0], sheet[80, 80, 0]]
    assert tops == sorted(tops) and len(set(tops)) == 4


def test_intensities_out_of_range_and_not_finite_are_shown_at_the_ends():
    for value, shown in ((-5.0, 0), (7.0, 255), (float("nan"), 0), (float("inf"), 255)):
        assert image_grid(torch.full((1, 1, 64, 64), value), 1)[10, 10, 0] == shown


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (8, 8), (1, 8, 8), (1, 1, 2, 2, 2, 2)])
def test_what_is_no_image_is_refused(refused, shape):
    with refused(ValueError, "grid got images of shape .*expected"):
        image_grid(torch.zeros(shape), 1)


@pytest.mark.parametrize("columns", [0, -1])
def test_a_grid_without_columns_is_refused(columns):
    with pytest.raises(ValueError, match="expected"):
        image_grid(torch.zeros(1, 1, 8, 8), columns)


def test_the_file_holds_the_grid_and_no_metadata(tmp_path):
    images = torch.rand(3, 1, 8, 8)
    save_image_grid(images, tmp_path / "new" / "grid.png", 3)
    picture = Image.open(tmp_path / "new" / "grid.png")
    assert np.array_equal(np.asarray(picture), image_grid(images, 3))
    assert picture.info == {}


def test_a_refused_picture_makes_no_folder(tmp_path):
    with pytest.raises(ValueError, match="expected"):
        save_image_grid(torch.zeros(0, 1, 8, 8), tmp_path / "new" / "grid.png", 3)
    assert list(tmp_path.iterdir()) == []
