# SPDX-License-Identifier: Apache-2.0
"""Samples of a picture are read as its file means them, whatever their bits, their sign and the place of white."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from monai_cadp.data import ReadImage

RAMP = np.linspace(0, 1, 12).reshape(3, 4)
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1


def tiff(path, samples, photometric, sample_format):
    """The smallest file of one strip, with every tag as it is said."""
    pixels = np.ascontiguousarray(samples).tobytes()
    height, width = samples.shape
    short, long = 3, 4
    tags = [
        (256, short, width),
        (257, short, height),
        (258, short, 8 * samples.dtype.itemsize),
        (259, short, 1),
        (262, short, photometric),
        (273, long, 8),
        (277, short, 1),
        (278, short, height),
        (279, long, len(pixels)),
        (339, short, sample_format),
    ]
    values = {short: "<HHIHxx", long: "<HHII"}
    entries = b"".join(struct.pack(values[kind], tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory)
    return path


@pytest.mark.parametrize("photometric", [BLACK_IS_ZERO, WHITE_IS_ZERO])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_unsigned_samples_have_the_scale_of_their_bits(tmp_path, dtype, photometric):
    largest = np.iinfo(dtype).max
    stored = RAMP if photometric == BLACK_IS_ZERO else 1 - RAMP
    path = tiff(tmp_path / "a.tif", np.round(largest * stored).astype(dtype), photometric, UNSIGNED)
    read = ReadImage(spatial_shape=(3, 4))(path)
    torch.testing.assert_close(read[0], torch.tensor(RAMP, dtype=torch.float32), atol=0.003, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "kind", "photometric"),
    [
        (np.int16, SIGNED, BLACK_IS_ZERO),
        (np.int32, SIGNED, BLACK_IS_ZERO),
        (np.float32, FLOAT, BLACK_IS_ZERO),
        (np.float32, FLOAT, WHITE_IS_ZERO),
    ],
)
def test_other_samples_need_a_public_range(tmp_path, refused, dtype, kind, photometric):
    stored = RAMP if photometric == BLACK_IS_ZERO else 1 - RAMP
    path = tiff(tmp_path / "a.tif", (2000 * stored - 1000).astype(dtype), photometric, kind)
    with refused(ValueError, "no public scale of its own; pass intensity_range"):
        ReadImage(spatial_shape=(3, 4))(path)
    read = ReadImage(spatial_shape=(3, 4), intensity_range=(-1000, 1000))(path)
    torch.testing.assert_close(read[0], torch.tensor(RAMP, dtype=torch.float32), atol=0.003, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "kind", "photometric"), [(np.int16, SIGNED, WHITE_IS_ZERO), (np.float64, FLOAT, BLACK_IS_ZERO)]
)
def test_samples_that_are_not_read_are_refused_as_such(tmp_path, refused, dtype, kind, photometric):
    path = tiff(tmp_path / "a.tif", RAMP.astype(dtype), photometric, kind)
    with refused(ValueError, "its samples are of a kind that is not read"):
        ReadImage(spatial_shape=(3, 4), intensity_range=(0, 1))(path)


def test_signed_samples_of_8_bits_are_refused(tmp_path, refused):
    path = tiff(tmp_path / "a.tif", (100 * RAMP - 50).astype(np.int8), BLACK_IS_ZERO, SIGNED)
    with refused(ValueError, "signed samples of 8 bits"):
        ReadImage(spatial_shape=(3, 4))(path)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_transparent_parts_are_refused_and_opaque_ones_read(tmp_path, refused, mode):
    path = tmp_path / ("a.tif" if mode == "PA" else "a.png")
    grey = Image.fromarray(np.round(255 * RAMP).astype(np.uint8))
    for alpha in (255, 100):
        picture = grey.convert("RGBA")
        picture.putalpha(alpha)
        picture = picture.convert(mode) if mode != "PA" else grey.convert("P").convert("PA")
        if mode == "PA":
            picture.putalpha(alpha)
        picture.save(path)
        if alpha == 255:
            assert ReadImage(spatial_shape=(3, 4))(path).shape == (1, 3, 4)
        else:
            with refused(ValueError, "transparent in parts"):
                ReadImage(spatial_shape=(3, 4))(path)
