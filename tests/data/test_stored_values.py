# SPDX-License-Identifier: Apache-2.0
"""What MetaImage, NRRD and NIfTI files store becomes what their headers mean by it, or the file is refused."""

from __future__ import annotations

import gzip
import struct
import zlib

import nibabel
import numpy as np
import pytest
import torch

from monai_cadp.data import PublicGrid, ReadImage, ReadVolume

STORED = np.arange(24, dtype="<i2").reshape(2, 3, 4)
PACKED = zlib.compress(STORED.tobytes())
READ = ReadImage((4, 3, 2), intensity_range=(-100, 100))


def metaimage(path, *fields, voxels=None, beside=False):
    """A file with further fields before its voxels, or the header of one with its voxels beside it."""
    voxels = STORED.tobytes() if voxels is None else voxels
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "TransformMatrix = -1 0 0 0 -1 0 0 0 1",
        "Offset = 0 0 0",
        "ElementSpacing = 1 1 1",
        "DimSize = 4 3 2",
        "ElementType = MET_SHORT",
        *fields,
        f"ElementDataFile = {'voxels.zraw' if beside else 'LOCAL'}",
    ]
    header = "".join(f"{line}\n" for line in lines).encode()
    if beside:
        (path.parent / "voxels.zraw").write_bytes(voxels)
    path.write_bytes(header if beside else header + voxels)
    return path


def nrrd(path, *fields, directions="(-1,0,0) (0,-1,0) (0,0,1)"):
    """A file with further fields."""
    lines = [
        "NRRD0005",
        "type: short",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: 4 3 2",
        f"space directions: {directions}",
        "encoding: raw",
        "endian: little",
        "space origin: (0,0,0)",
        *fields,
    ]
    path.write_bytes("\n".join([*lines, "", ""]).encode() + STORED.tobytes())
    return path


def assert_read_as(path, values):
    """Values (z, y, x) are what is read, along right, anterior, superior."""
    found = 200 * READ(path)[0] - 100
    torch.testing.assert_close(found, torch.from_numpy(values.transpose(2, 1, 0)).float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("fields", "slope", "offset"),
    [
        ((), 1, 0),
        (("ElementToIntensityFunctionSlope = 2.5",), 2.5, 0),
        (("ElementToIntensityFunctionOffset = -50",), 1, -50),
        (("ElementToIntensityFunctionSlope = 2", "ElementToIntensityFunctionOffset = -50"), 2, -50),
    ],
    ids=["none", "slope", "offset", "both"],
)
def test_a_metaimage_is_in_the_unit_that_its_header_says(tmp_path, fields, slope, offset):
    assert_read_as(metaimage(tmp_path / "a.mha", *fields), slope * STORED + offset)


@pytest.mark.parametrize("value", ["0", "nan", "two"])
def test_a_metaimage_whose_scale_is_none_is_refused(tmp_path, refused, value):
    with refused(ValueError, "scales its values by 0, or by what is no number"):
        READ(metaimage(tmp_path / "a.mha", f"ElementToIntensityFunctionSlope = {value}"))


COMPRESSED = "CompressedData = True"
SIZE = f"CompressedDataSize = {len(PACKED)}"


@pytest.mark.parametrize(
    ("fields", "beside"),
    [
        ((COMPRESSED, SIZE), False),
        ((COMPRESSED, SIZE), True),
        ((COMPRESSED,), True),
        ((COMPRESSED, "CompressedDataSize = 0"), True),
    ],
    ids=["within the file", "beside it", "beside it, of no stated size", "beside it, of size 0"],
)
def test_compressed_voxels_of_a_metaimage_are_read(tmp_path, fields, beside):
    assert_read_as(metaimage(tmp_path / "a.mhd", *fields, voxels=PACKED, beside=beside), STORED)


@pytest.mark.parametrize("separator", [": ", " : ", "="])
@pytest.mark.parametrize("beside", [False, True], ids=["within the file", "beside it"])
def test_a_metaimage_may_have_another_separator_of_fields_and_values(tmp_path, separator, beside):
    fields = ["ElementToIntensityFunctionSlope = 2.5", COMPRESSED, SIZE]
    path = metaimage(tmp_path / "a.mhd", *fields, voxels=PACKED, beside=beside)
    path.write_bytes(path.read_bytes().replace(b" = ", separator.encode()))
    assert_read_as(path, 2.5 * STORED)


OTHER_BITS = PACKED[: len(PACKED) // 2] + bytes([255 ^ PACKED[len(PACKED) // 2]]) + PACKED[len(PACKED) // 2 + 1 :]


@pytest.mark.parametrize(
    ("size", "voxels"),
    [
        (None, PACKED),
        (0, PACKED),
        (len(PACKED) // 2, PACKED),
        (len(PACKED), OTHER_BITS),
        (48, STORED.tobytes()),
        (len(zlib.compress(b"short")), zlib.compress(b"short")),
    ],
    ids=["no size", "size 0", "half the size", "damaged", "not compressed", "too few"],
)
def test_compressed_voxels_that_are_not_whole_are_refused(tmp_path, refused, size, voxels):
    fields = [COMPRESSED] if size is None else [COMPRESSED, f"CompressedDataSize = {size}"]
    with refused(ValueError, "compressed voxels are damaged, or CompressedDataSize does not say"):
        READ(metaimage(tmp_path / "a.mha", *fields, voxels=voxels))


def test_compressed_voxels_beside_a_header_that_are_cut_off_are_refused(tmp_path, refused):
    with refused(ValueError, "compressed voxels are damaged"):
        READ(metaimage(tmp_path / "a.mhd", COMPRESSED, voxels=PACKED[:-8], beside=True))


def test_voxels_do_not_begin_within_the_header_of_a_metaimage(tmp_path, refused):
    with refused(ValueError, "voxels begin within its header; remove its HeaderSize"):
        READ(metaimage(tmp_path / "a.mha", "HeaderSize = 10"))
    assert_read_as(metaimage(tmp_path / "a.mha", "HeaderSize = -1"), STORED)


@pytest.mark.parametrize("names", [("old min", "old max"), ("oldmin", "oldmax")])
def test_a_quantised_nrrd_has_its_old_values(tmp_path, names):
    """As of unu unquantize: the middle of each of 65536 cells."""
    lowest, highest = -65536.0, 65536.0
    path = nrrd(tmp_path / "a.nrrd", f"{names[0]}: {lowest}", f"{names[1]}: {highest}")
    assert_read_as(path, 2.0 * STORED + 1)


@pytest.mark.parametrize("fields", [("old min: 3",), ("old min: 3", "old max: 3"), ("old min: 3", "old max: nan")])
def test_a_quantised_nrrd_without_two_old_ends_is_refused(tmp_path, refused, fields):
    with refused(ValueError, "scales its values by 0, or by what is no number"):
        READ(nrrd(tmp_path / "a.nrrd", *fields))


@pytest.mark.parametrize("read", [READ, ReadVolume(PublicGrid((4, 4, 4), spacing=1.0))], ids=["image", "scan"])
def test_an_axis_of_a_nrrd_without_a_direction_is_refused(tmp_path, refused, read):
    with refused(ValueError, "an axis without a direction in its space"):
        read(nrrd(tmp_path / "a.nrrd", directions="(-1,0,0) (0,-1,0) none"))


def test_kinds_of_a_nrrd_may_be_left_open(tmp_path):
    assert_read_as(nrrd(tmp_path / "a.nrrd", "kinds: none none none"), STORED)


@pytest.mark.parametrize(
    ("kind", "place", "form"), [(nibabel.Nifti1Image, 108, "<f"), (nibabel.Nifti2Image, 168, "<q")], ids=["1", "2"]
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_do_not_begin_within_the_header_of_a_nifti_file(tmp_path, refused, kind, place, form, suffix):
    path = tmp_path / f"a{suffix}"
    nibabel.save(kind(STORED.transpose(2, 1, 0), np.eye(4)), path)
    assert_read_as(path, STORED)
    opened = gzip.open if suffix.endswith("gz") else open
    with opened(path, "rb") as file:
        content = bytearray(file.read())
    struct.pack_into(form, content, place, 0)
    with opened(path, "wb") as file:
        file.write(content)
    with refused(ValueError, "voxels begin within its header; set its vox_offset"):
        READ(path)
