# SPDX-License-Identifier: Apache-2.0
"""Samples of a picture are read as its file means them, whatever their bits, their sign and the place of white."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image

from monai_cadp.data import ReadImage

RAMP = np.linspace(0, 1, 12).reshape(3, 4)
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1
SHORT, LONG = 3, 4


def tiff(path, samples, photometric, sample_format, further=None):
    """The smallest file of one strip, or one a plane (planes, height, width), with every tag as it is said."""
    *planes, height, width = samples.shape
    count, size = (*planes, 1)[0], height * width * samples.dtype.itemsize
    tags = {
        256: (SHORT, width),
        257: (SHORT, height),
        258: (SHORT, 8 * samples.dtype.itemsize),
        259: (SHORT, 1),
        262: (SHORT, photometric),
        273: (LONG, *(8 + size * plane for plane in range(count))),
        277: (SHORT, count),
        278: (SHORT, height),
        279: (LONG, *[size] * count),
        284: (SHORT, 2 if planes else 1),
        339: (SHORT, sample_format),
        **(further or {}),
    }
    content, entries = np.ascontiguousarray(samples).tobytes(), b""
    for tag, (kind, *values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        if len(packed) > 4:
            packed, content = struct.pack("<I", 8 + len(content)), content + packed
        entries += struct.pack("<HHI4s", tag, kind, len(values), packed)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(content)) + content + directory)
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


def test_large_samples_of_32_unsigned_bits_are_no_negative_numbers(tmp_path):
    path = tiff(tmp_path / "a.tif", (RAMP * (2**32 - 1)).astype(np.uint32), BLACK_IS_ZERO, UNSIGNED)
    read = ReadImage(spatial_shape=(3, 4), intensity_range=(0, 2**32 - 1))(path)
    torch.testing.assert_close(read[0], torch.tensor(RAMP, dtype=torch.float32))


def test_a_plane_for_every_color_is_read_where_samples_have_8_bits(tmp_path, refused):
    colors, rgb = np.stack([RAMP, RAMP**2, 1 - RAMP]), 2
    read = ReadImage(spatial_shape=(3, 4), in_channels=3)
    found = read(tiff(tmp_path / "a.tif", np.round(255 * colors).astype(np.uint8), rgb, UNSIGNED))
    torch.testing.assert_close(found, torch.from_numpy(colors).float(), atol=0.003, rtol=0)
    with refused(ValueError, "a plane for every color, of more than 8 bits"):
        read(tiff(tmp_path / "a.tif", np.round(65535 * colors).astype(np.uint16), rgb, UNSIGNED))


COLORS = np.stack([RAMP, RAMP**2, 1 - RAMP], axis=-1)
OPAQUE = np.ones((3, 4, 1))


@pytest.mark.parametrize("intensity_range", [None, (0, 65535), (0, 32768)])
@pytest.mark.parametrize(
    ("name", "channels"),
    [("a.png", "LA"), *((name, one) for name in ("a.png", "a.tif", "packed.tif") for one in ("RGB", "RGBA"))],
)
def test_colors_of_16_bits_are_on_the_scale_of_16_bits(tmp_path, name, channels, intensity_range):
    colors = np.stack([RAMP] * 3, axis=-1) if channels == "LA" else COLORS
    samples = {"RGB": [colors], "RGBA": [colors, OPAQUE], "LA": [colors[..., :1], OPAQUE]}[channels]
    stored = np.round(65535 * np.concatenate(samples, axis=-1)).astype(np.uint16)
    image = SimpleITK.GetImageFromArray(stored, isVector=True)
    SimpleITK.WriteImage(image, str(tmp_path / name), useCompression=name == "packed.tif", compressor="LZW")
    read = ReadImage(spatial_shape=(3, 4), in_channels=3, intensity_range=intensity_range)(tmp_path / name)
    expected = np.moveaxis(colors, -1, 0) * 65535 / (intensity_range or (0, 65535))[1]
    torch.testing.assert_close(read, torch.from_numpy(expected).float().clamp(max=1), atol=0.008, rtol=0)


def test_pixels_of_16_bits_have_samples_of_8(tmp_path):
    """A bitmap whose pixels have 5 bits for blue, 6 for green, and 5 for red."""
    header = struct.pack("<IiiHHIIiiII3I", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0, 0xF800, 0x7E0, 0x1F)
    content = header + struct.pack("<HH", 0xFFFF, 0)
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 14 + len(content), 0, 0, 14 + len(header)) + content)
    read = ReadImage(spatial_shape=(1, 2), in_channels=3, intensity_range=(0, 510))(tmp_path / "a.bmp")
    torch.testing.assert_close(read[:, 0], torch.tensor([[0.5, 0.0]] * 3), atol=0.01, rtol=0)


def test_a_volume_in_one_frame_is_no_picture(tmp_path, refused):
    stored = np.round(255 * RAMP).astype(np.uint8)
    path = tiff(tmp_path / "a.tif", stored, BLACK_IS_ZERO, UNSIGNED, {32997: (SHORT, 2)})
    with refused(ValueError, "A TIFF file holds a volume"):
        ReadImage(spatial_shape=(3, 4))(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_picture_without_a_number_is_refused(tmp_path, refused, value):
    path = tiff(tmp_path / "a.tif", np.full((3, 4), value, np.float32), BLACK_IS_ZERO, FLOAT)
    with refused(ValueError, "holds no number, but NaN or infinity everywhere"):
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
