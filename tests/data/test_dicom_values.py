# SPDX-License-Identifier: Apache-2.0
"""Stored numbers of DICOM pixels become what the file means by them, or the file is refused."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from monai_cadp.data import ReadImage

STORED = np.arange(12, dtype=np.int16).reshape(3, 4) * 10
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"


def scale(**stated):
    """A functional group that states a scale of values."""
    group, values = Dataset(), Dataset()
    for name, value in stated.items():
        setattr(values, name, value)
    group.PixelValueTransformationSequence = [values]
    return group


@pytest.fixture
def written(files, tmp_path):
    """Writer of one gray image without a scale, but for what is stated; every call overwrites the file."""

    def write(**stated):
        path = files.dicom(tmp_path / "a.dcm", pixels=STORED)
        header = pydicom.dcmread(path)
        del header.RescaleSlope, header.RescaleIntercept
        for name, value in stated.items():
            setattr(header, name, value)
        header.save_as(path)
        return path

    return write


def values(path):
    """The values of a file, whichever lie from -2000 to 2000."""
    return 4000 * ReadImage(STORED.shape, intensity_range=(-2000, 2000))(path)[0] - 2000


@pytest.mark.parametrize(
    ("stated", "slope", "intercept"),
    [
        ({}, 1, 0),
        ({"RescaleSlope": 2, "RescaleIntercept": -1024}, 2, -1024),
        ({"RescaleIntercept": -1024}, 1, -1024),
        ({"RescaleSlope": 2}, 2, 0),
        ({SHARED: [scale(RescaleSlope=2, RescaleIntercept=-1024)]}, 2, -1024),
        ({PER_FRAME: [scale(RescaleSlope=2, RescaleIntercept=-1024)]}, 2, -1024),
        ({SHARED: [Dataset()], PER_FRAME: [scale(RescaleIntercept=-1024)]}, 1, -1024),
        ({"RescaleSlope": 2, PER_FRAME: [scale(RescaleSlope="2.0", RescaleIntercept=0)]}, 2, 0),
        ({SHARED: [scale(RescaleSlope=2)], PER_FRAME: []}, 2, 0),
        ({"DoseGridScaling": "0.01"}, 0.01, 0),
    ],
    ids=[
        *("none", "both", "intercept alone", "slope alone", "shared", "of the frame", "intercept of the frame"),
        *("the same twice", "nothing of the frame", "dose"),
    ],
)
def test_one_image_is_in_the_unit_that_its_scale_says(written, stated, slope, intercept):
    expected = torch.from_numpy(STORED * slope + intercept).float()
    torch.testing.assert_close(values(written(**stated)), expected, atol=1e-3, rtol=0)


def test_frames_without_a_place_are_in_the_unit_that_all_of_them_share(written):
    pixels = np.stack([STORED, STORED + 5])
    shared = {SHARED: [scale(RescaleSlope=2, RescaleIntercept=-1024)]}
    path = written(NumberOfFrames=2, PixelData=pixels.astype("<i2").tobytes(), **shared)
    read = 4000 * ReadImage(pixels.shape, intensity_range=(-2000, 2000))(path)[0] - 2000
    torch.testing.assert_close(read, torch.from_numpy(2.0 * pixels - 1024).float(), atol=1e-3, rtol=0)


def test_a_table_of_values_is_looked_up(written):
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [200, 0, 16])
    table.add_new("LUTData", "US", list(range(500, 700)))
    read = values(written(ModalityLUTSequence=[table]))
    torch.testing.assert_close(read, torch.from_numpy(STORED + 500).float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("stated", "match"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "RescaleSlope or RescaleIntercept that is no number, or a slope"),
        ({"RescaleSlope": None, "RescaleIntercept": 5}, "RescaleSlope or RescaleIntercept that is no number"),
        ({PER_FRAME: [scale(RescaleSlope=0)]}, "RescaleSlope or RescaleIntercept that is no number, or a slope of 0"),
        ({"RescaleIntercept": 5, PER_FRAME: [scale(RescaleSlope=2)]}, "states two rescalings"),
        ({"DoseGridScaling": 0}, "DoseGridScaling that is no number, or a slope of 0"),
        ({"DoseGridScaling": None}, "DoseGridScaling that is no number"),
        ({"RescaleIntercept": 5, "DoseGridScaling": 2}, "states two rescalings"),
        ({PER_FRAME: [scale(RescaleSlope=2)] * 2}, "another number of frames"),
        ({"PhotometricInterpretation": "RGB"}, "contradicts its SamplesPerPixel"),
        ({"PhotometricInterpretation": "CMYK"}, "PhotometricInterpretation that is not read"),
    ],
    ids=[
        "slope 0",
        "no slope",
        "slope 0 of the frame",
        "twice",
        "dose 0",
        "no dose",
        "dose twice",
        "two frames of one",
        "RGB",
        "CMYK",
    ],
)
def test_a_meaning_that_is_none_is_refused(written, refused, stated, match):
    with refused(ValueError, match):
        values(written(**stated))


SHIFTED = (STORED << 4).astype("<u2")
ABOVE_UNUSED = {"BitsStored": 12, "HighBit": 15, "PixelRepresentation": 0}


@pytest.mark.parametrize("compressed", [False, True], ids=["as they are", "as runs"])
def test_values_above_unused_bits_are_refused(written, refused, compressed):
    path = written(**ABOVE_UNUSED, PixelData=SHIFTED.tobytes())
    if compressed:
        header = pydicom.dcmread(path)
        header.compress(RLELossless)
        header.save_as(path)
    with refused(ValueError, "values in other bits than the lowest ones"):
        values(path)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"HighBit": 11}, STORED),
        ({"HighBit": 14}, STORED),
        ({"BitsStored": 12, "HighBit": 15}, STORED),
        ({"BitsStored": 12, "HighBit": 10}, STORED),
        ({"BitsStored": 12, "HighBit": 31}, STORED),
        ({**ABOVE_UNUSED, "PixelData": bytes(24)}, 0 * STORED),
    ],
    ids=["fewer than stored", "one fewer", "low bits in use", "fewer of 12", "beyond the allocated", "black"],
)
def test_values_in_the_lowest_bits_are_read_whatever_the_high_bit_says(written, stated, expected):
    torch.testing.assert_close(values(written(**stated)), torch.from_numpy(expected).float(), atol=1e-3, rtol=0)


def test_a_codec_returns_values_in_the_lowest_bits(written):
    encoded = io.BytesIO()
    Image.fromarray(SHIFTED).save(encoded, "JPEG2000", no_jp2=True)
    path = written(**ABOVE_UNUSED, PixelData=encapsulate([encoded.getvalue()]))
    header = pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = JPEG2000Lossless
    header["PixelData"].is_undefined_length = True
    header.save_as(path)
    torch.testing.assert_close(values(path), torch.from_numpy(SHIFTED.astype(np.float32)), atol=1e-3, rtol=0)


def test_frames_of_which_one_has_no_scale_are_refused(written, refused):
    each = [scale(RescaleSlope=2), Dataset()]
    path = written(NumberOfFrames=2, PixelData=np.stack([STORED] * 2).astype("<i2").tobytes(), **{PER_FRAME: each})
    with refused(ValueError, "Some frames of a DICOM file state no rescaling"):
        ReadImage((2, 3, 4), intensity_range=(0, 100))(path)


@pytest.mark.parametrize("kind", ["RGB", "YBR_FULL", "HSV", "YBR_PARTIAL_420", "YBR_RCT", "MONOCHROME2"])
def test_colors_are_red_green_and_blue_or_refused(written, refused, kind):
    red = np.tile(np.array([255, 0, 0] if kind == "RGB" else [76, 85, 255], np.uint8), (3, 4, 1))
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
    path = written(
        PhotometricInterpretation=kind, SamplesPerPixel=3, PlanarConfiguration=0, PixelData=red.tobytes(), **bits
    )
    read = ReadImage((3, 4), in_channels=3, intensity_range=(0, 255))
    if kind in ("RGB", "YBR_FULL"):
        torch.testing.assert_close(read(path)[:, 0, 0], torch.tensor([1.0, 0, 0]), atol=0.01, rtol=0)
    else:
        with refused(ValueError, "PhotometricInterpretation that is not read, or that contradicts"):
            read(path)


def test_what_lies_beyond_a_palette_has_its_last_color(written):
    unsigned = {"PixelRepresentation": 0, "PixelData": np.full((3, 4), 300, "<u2").tobytes()}
    path = written(PhotometricInterpretation="PALETTE COLOR", **unsigned)
    header = pydicom.dcmread(path)
    for name, color in (("Red", 250), ("Green", 100), ("Blue", 50)):
        header.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, 8])
        header.add_new(f"{name}PaletteColorLookupTableData", "OW", bytes([0] * 255 + [color]))
    header.save_as(path)
    read = 255 * ReadImage((3, 4), in_channels=3, intensity_range=(0, 255))(path)
    torch.testing.assert_close(read[:, 0, 0], torch.tensor([250.0, 100, 50]))
