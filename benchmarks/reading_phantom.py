# SPDX-License-Identifier: Apache-2.0
"""A phantom with markers at known places, written in every way in which a header may say, or not say, where it lies.

A variant is a file, or the folder of a series, and either shows the markers where they are or has to be refused with a
sentence that names what is wrong.
"""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

__all__ = ["CENTRE", "GRID", "MARKERS", "VARIANTS", "Variant", "phantom", "places", "write_mask"]

from monai_cadp.data import PublicGrid

# Middle of all volumes, in millimetres to the right, to the front and up: a header whose origin is not read shows.
CENTRE = np.array([13.0, -22.0, 31.0])
# Markers, in millimetres from the middle: no rotation and no mirroring maps them to themselves.
MARKERS = np.array(
    [[-20.0, 5.0, 8.0], [16.0, 21.0, -4.0], [3.0, -24.0, 14.0], [14.0, -6.0, -15.0], [-15.0, -13.0, -10.0]]
)
PEAKS = (500.0, 600.0, 720.0, 860.0, 1000.0)
MARKER_WIDTH = 4.5
BODY, BODY_RADII, AIR = 200.0, np.array([33.0, 36.0, 28.0]), 100.0
GRID = PublicGrid((37, 41, 33), spacing=2.5)
# Odd, so that the middle voxel is the same one whichever way an axis goes.
SHAPE, SPACING = (33, 35, 29), 3.0
RAS, LPS = np.diag([SPACING] * 3), np.diag([-SPACING, -SPACING, SPACING])
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Of numbers in a header of NIfTI-1.
SLOPE_OFFSET, THIRD_ROW_OFFSET = 112, 312
Write = Callable[[Path], Path]


@dataclass(frozen=True)
class Variant:
    """One way to write the phantom.

    Args:
        kind: its format.
        name: what is particular about it.
        write: writes it into an empty folder; returns the file, or the folder of the series.
        refusal: what the sentence says by which it is refused; None where it is to be read.
        tilt: of the gantry, in degrees; None for all other variants.
        is_linear: whether its values are those of the phantom but for a factor and an offset.
    """

    kind: str
    name: str
    write: Write
    refusal: str | None = None
    tilt: float | None = None
    is_linear: bool = True


def phantom(points: np.ndarray) -> np.ndarray:
    """Return the values at points (..., 3), in millimetres to the right, to the front and up."""
    # Coordinate by coordinate, which is faster than sums over a last axis of three.
    x, y, z = np.moveaxis(points - CENTRE, -1, 0).astype(np.float32)
    a, b, c = BODY_RADII.tolist()
    values = AIR + BODY / (1 + np.exp(12 * (np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) - 1)))
    for (right, front, up), peak in zip(MARKERS.tolist(), PEAKS, strict=True):
        squares = (x - right) ** 2 + (y - front) ** 2 + (z - up) ** 2
        values += peak * np.exp(squares / (-2 * MARKER_WIDTH**2))
    return values.astype(np.float64)


def places(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the millimetres (a, b, c, 3) of the voxels of a volume."""
    i, j, k = np.ogrid[tuple(slice(size) for size in shape)]
    return np.stack([row[0] * i + row[1] * j + row[2] * k + row[3] for row in affine[:3]], axis=-1)


def write_mask(path: Path) -> None:
    """Write a mask of the last marker, in a space of its own."""
    affine = centred(np.diag([2.0, 2.0, 2.0]), (45, 45, 45))
    distance = np.linalg.norm(places(affine, (45, 45, 45)) - CENTRE - MARKERS[-1], axis=-1)
    nibabel.save(nibabel.Nifti1Image((distance < 7).astype(np.uint8), affine), path)


def centred(matrix: np.ndarray, shape: Sequence[int] = SHAPE) -> np.ndarray:
    """Return the affine of these axes in millimetres whose middle voxel is the middle of the phantom."""
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = CENTRE - matrix @ (np.array(shape) - 1) / 2
    return affine


def rotation(degrees: float, axis: int) -> np.ndarray:
    """Return the rotation about one axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    one, other = (axis + 1) % 3, (axis + 2) % 3
    matrix[[one, one, other, other], [one, other, one, other]] = c, -s, s, c
    return matrix


def sheared(first: int, second: int, degrees: float) -> np.ndarray:
    """Return axes of which the second leans towards the first."""
    matrix = RAS.copy()
    matrix[first, second] = SPACING * np.tan(np.radians(degrees))
    return matrix


OBLIQUE = rotation(25, 0) @ rotation(-15, 2) @ RAS


# --- NIfTI ------------------------------------------------------------------------------------------------------------


def nifti(
    matrix: np.ndarray = RAS,
    *,
    name: str = "scan.nii.gz",
    dtype: Any = np.float32,
    shape: Sequence[int] = SHAPE,
    codes: tuple[int, int] = (0, 1),
    image_class: Any = nibabel.Nifti1Image,
    unit: str | int = "mm",
    scale: float = 1.0,
    big_endian: bool = False,
    slope: tuple[float, float] | None = None,
    values: Callable[[np.ndarray], np.ndarray] = lambda values: values,
    other_qform: np.ndarray | None = None,
    third_row: Sequence[float] | None = None,
) -> Write:
    """Return a writer of NIfTI files: codes are those of the qform and the sform, scale is of lengths in the header."""

    def write(folder: Path) -> Path:
        affine = centred(matrix, shape)
        array = values(phantom(places(affine, shape)))
        if slope is not None:
            array = (array - slope[1]) / slope[0]
        array = (array.round() if np.dtype(dtype).kind in "iu" else array).astype(dtype)
        header = image_class.header_class(endianness=">" if big_endian else "<")
        header.set_data_dtype(array.dtype)
        image = image_class(array, None, header)
        affine[:3] *= scale
        image.header.set_zooms([*np.linalg.norm(affine[:3, :3], axis=0), *[1] * (array.ndim - 3)])
        image.set_sform(affine if codes[1] else None, codes[1])
        image.set_qform(
            (affine if other_qform is None else centred(other_qform, shape)) if codes[0] else None, codes[0]
        )
        if isinstance(unit, int):
            image.header["xyzt_units"] = unit
        else:
            image.header.set_xyzt_units(unit)
        nibabel.save(image, folder / name)
        if slope is not None:
            _patch(folder / name, SLOPE_OFFSET, slope)
        if third_row is not None:
            _patch(folder / name, THIRD_ROW_OFFSET, third_row)
        return folder / name

    return write


def _patch(path: Path, offset: int, values: Sequence[float]) -> None:
    """Write numbers into a header, which nibabel would bring into agreement with the rest."""
    raw, new = gzip.decompress(path.read_bytes()), np.array(values, "<f4").tobytes()
    path.write_bytes(gzip.compress(raw[:offset] + new + raw[offset + len(new) :]))


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _standardised_within(values: np.ndarray) -> np.ndarray:
    """As after a skull was stripped: 0 outside."""
    inside = values > AIR + BODY / 2
    return np.where(inside, (values - values[inside].mean()) / values[inside].std(), 0.0)


def _one_not_finite(values: np.ndarray) -> np.ndarray:
    values[1, 1, 1], values[-2, 3, 3], values[0, 0, 0] = np.inf, -np.inf, np.nan
    return values


def _all_times(count: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.stack([values] * count, axis=-1)


def _axes(order: Sequence[int], signs: Sequence[int]) -> np.ndarray:
    matrix = np.zeros((3, 3))
    for column, (row, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[row, column] = sign * SPACING
    return matrix


def _damaged(write: Write) -> Write:
    def damaged(folder: Path) -> Path:
        path = write(folder)
        path.write_bytes(path.read_bytes()[:-2000])
        return path

    return damaged


def _nifti_variants() -> list[Variant]:
    nifti2 = nibabel.Nifti2Image
    variants = [
        ("compressed", nifti()),
        ("not compressed", nifti(name="scan.nii")),
        ("NIfTI-2", nifti(name="scan.nii", image_class=nifti2)),
        ("NIfTI-2, compressed", nifti(image_class=nifti2)),
        *((f"sform alone, code {code}", nifti(OBLIQUE, codes=(0, code))) for code in (1, 2, 3, 4)),
        *((f"qform alone, code {code}", nifti(OBLIQUE, codes=(code, 0))) for code in (1, 2, 4)),
        ("both forms alike", nifti(OBLIQUE, codes=(1, 1))),
        ("both forms alike, other codes", nifti(OBLIQUE, codes=(1, 4))),
        ("qform of a mirrored volume", nifti(np.diag([-SPACING, SPACING, SPACING]), codes=(1, 0))),
        ("unit not stated", nifti(unit="unknown")),
        ("micrometres", nifti(unit="micron", scale=1e3)),
        ("metres", nifti(unit="meter", scale=1e-3)),
        ("scaled whole numbers", nifti(dtype=np.int16, slope=(0.25, -300.0))),
        ("negative scale", nifti(dtype=np.int16, slope=(-0.5, 900.0))),
        ("uint8", nifti(dtype=np.uint8, values=lambda values: values / 6)),
        ("uint16", nifti(dtype=np.uint16)),
        ("float64", nifti(dtype=np.float64)),
        ("big-endian whole numbers", nifti(dtype=">i2", big_endian=True)),
        ("big-endian floats", nifti(name="scan.nii", dtype=">f4", big_endian=True)),
        *(
            (f"axes {''.join(nibabel.aff2axcodes(centred(_axes(order, signs))))}", nifti(_axes(order, signs)))
            for order in itertools.permutations(range(3))
            for signs in itertools.product((1, -1), repeat=3)
        ),
        ("oblique and mirrored", nifti(OBLIQUE @ np.diag([-1, 1, 1]))),
        ("spacings 1.5, 2.2 and 4", nifti(np.diag([1.5, 2.2, 4.0]), shape=(65, 47, 21))),
        (
            "thick slices, another order",
            nifti(_axes((2, 0, 1), (1, -1, 1)) @ np.diag([5 / 3, 1, 1]), shape=(19, 33, 35)),
        ),
        ("sheared by 20 degrees", nifti(sheared(1, 2, 20))),
        ("sheared by -40 degrees", nifti(sheared(0, 1, -40), shape=(55, 35, 29))),
        ("sheared and oblique", nifti(rotation(20, 1) @ sheared(0, 2, 15))),
        ("four dimensions, one volume", nifti(values=_all_times(1))),
        ("standardised", nifti(values=_standardised)),
        ("NaN in the air", nifti(values=lambda values: np.where(values < AIR + 1, np.nan, values))),
        ("three voxels that are not finite", nifti(values=_one_not_finite)),
    ]
    refused = [
        ("forms that contradict each other", nifti(codes=(1, 1), other_qform=OBLIQUE), "qform and sform"),
        ("forms mirrored", nifti(codes=(1, 2), other_qform=np.diag([-SPACING, SPACING, SPACING])), "qform and sform"),
        (
            "sheared, and a qform that cannot be",
            nifti(sheared(1, 2, 20), codes=(1, 1), other_qform=RAS),
            "qform and sf",
        ),
        ("neither form", nifti(codes=(0, 0)), "sform_code or qform_code is not 0"),
        ("neither form, NIfTI-2", nifti(codes=(0, 0), image_class=nifti2), "sform_code or qform_code is not 0"),
        ("metres without a unit", nifti(unit="unknown", scale=1e-3), "state the unit"),
        ("micrometres without a unit", nifti(unit="unknown", scale=1e3), "state the unit"),
        ("an unknown unit", nifti(unit=5), "unit of length"),
        ("four dimensions, three volumes", nifti(values=_all_times(3)), "3 channels or times"),
        ("an affine that is flat", nifti(third_row=(0, 0, 0, 1)), "no usable geometry"),
        ("an affine that is no number", nifti(third_row=(0, 0, np.nan, 1)), "no usable geometry"),
        ("complex values", nifti(dtype=np.complex64), "not real numbers"),
        ("the same everywhere", nifti(values=np.ones_like), "the same"),
        ("NaN everywhere", nifti(values=lambda values: np.full_like(values, np.nan)), "NaN or infinity everywhere"),
        ("cut off", _damaged(nifti()), "damaged"),
    ]
    return [
        *(Variant("NIfTI", name, write) for name, write in variants),
        Variant("NIfTI", "standardised within a mask", nifti(values=_standardised_within), is_linear=False),
        *(Variant("NIfTI", name, write, refusal) for name, write, refusal in refused),
    ]


# --- MetaImage and NRRD -----------------------------------------------------------------------------------------------


def metaimage(
    matrix: np.ndarray = LPS,
    *,
    name: str = "scan.mha",
    data: str = "LOCAL",
    compressed: bool = False,
    big_endian: bool = False,
    shape: Sequence[int] = SHAPE,
    scale: float = 1.0,
    lengths: Sequence[float] | None = None,
    **fields: str | None,
) -> Write:
    """Return a writer of MetaImage files; fields replace those of the header, None leaves one out."""

    def write(folder: Path) -> Path:
        affine = centred(matrix, shape)
        raw = phantom(places(affine, shape)).astype(">f4" if big_endian else "<f4").tobytes(order="F")
        raw = zlib.compress(raw) if compressed else raw
        geometry = RAS_TO_LPS @ affine
        geometry[:3] *= scale
        spacing = np.linalg.norm(geometry[:3, :3], axis=0) if lengths is None else np.array(lengths)
        header: dict[str, str | None] = {
            "ObjectType": "Image",
            "NDims": "3",
            "BinaryData": "True",
            "BinaryDataByteOrderMSB": str(big_endian),
            "CompressedData": str(compressed),
            "TransformMatrix": _numbers((geometry[:3, :3] / spacing).T.ravel()),
            "Offset": _numbers(geometry[:3, 3]),
            "ElementSpacing": _numbers(spacing),
            "DimSize": " ".join(map(str, shape)),
            "ElementType": "MET_FLOAT",
            **fields,
        }
        if compressed:
            header["CompressedDataSize"] = str(len(raw))
        text = "".join(f"{key} = {value}\n" for key, value in header.items() if value is not None)
        text += f"ElementDataFile = {data}\n"
        (folder / name).write_bytes(text.encode() + (raw if data == "LOCAL" else b""))
        if data != "LOCAL":
            (folder / data).write_bytes(raw)
        return folder / name

    return write


def _without_data(write: Write) -> Write:
    def without(folder: Path) -> Path:
        path = write(folder)
        next(one for one in folder.iterdir() if one != path).unlink()
        return path

    return without


def nrrd(
    matrix: np.ndarray = LPS,
    *,
    name: str = "scan.nrrd",
    space: str | None = "left-posterior-superior",
    turn: Sequence[int] = (-1, -1, 1),
    encoding: str = "raw",
    data: str | None = None,
    shape: Sequence[int] = SHAPE,
    scale: float = 1.0,
    dtype: str = "float",
    spacings: bool = False,
    lines: Sequence[str] = (),
) -> Write:
    """Return a writer of NRRD files: turn is from right, anterior, superior to the axes of the space."""

    def write(folder: Path) -> Path:
        affine = centred(matrix, shape)
        array = phantom(places(affine, shape))
        array = array.round().astype("<i2") if dtype == "short" else array.astype("<f4")
        raw = array.tobytes(order="F")
        if encoding == "gzip":
            raw = gzip.compress(raw)
        elif encoding == "ascii":
            raw = " ".join(map(str, array.ravel(order="F"))).encode()
        geometry = np.diag([*turn, 1]) @ affine
        geometry[:3] *= scale
        header = ["NRRD0004", f"type: {dtype}", "dimension: 3", f"sizes: {' '.join(map(str, shape))}", "endian: little"]
        if space is not None:
            header.append(space if ":" in space else f"space: {space}")
        if spacings:
            header.append(f"spacings: {_numbers(np.linalg.norm(geometry[:3, :3], axis=0))}")
        else:
            header.append("space directions: " + " ".join(_vector(column) for column in geometry[:3, :3].T))
            header.append(f"space origin: {_vector(geometry[:3, 3])}")
        header += [*lines, f"encoding: {encoding}"]
        if data is not None:
            header.append(f"data file: {data}")
            (folder / data).write_bytes(raw)
        text = "\n".join(header) + "\n\n"
        (folder / name).write_bytes(text.encode() + (raw if data is None else b""))
        return folder / name

    return write


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in values)


def _vector(values: np.ndarray) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"


def _text_variants() -> list[Variant]:
    mirrored, tilted = np.diag([-SPACING, SPACING, SPACING]), sheared(1, 2, -18.5)
    metaimages = [
        ("plain", metaimage()),
        ("compressed", metaimage(compressed=True)),
        ("voxels in a file of their own", metaimage(name="scan.mhd", data="scan.raw")),
        ("voxels in a compressed file", metaimage(name="scan.mhd", data="scan.zraw", compressed=True)),
        ("big-endian", metaimage(big_endian=True)),
        ("mirrored", metaimage(mirrored)),
        ("axes in another order", metaimage(_axes((2, 0, 1), (1, -1, 1)), AnatomicalOrientation="IRP")),
        ("oblique", metaimage(OBLIQUE)),
        ("sheared", metaimage(tilted)),
        ("directions that are not of length 1", metaimage(OBLIQUE, lengths=(1.0, 1.5, 2.0))),
        ("ElementSize in place of ElementSpacing", metaimage(ElementSpacing=None, ElementSize="3.0 3.0 3.0")),
        ("AnatomicalOrientation that agrees", metaimage(AnatomicalOrientation="RAI")),
        ("centimetres", metaimage(scale=0.1, DistanceUnits="cm")),
    ]
    metaimages_refused = [
        ("no TransformMatrix", metaimage(TransformMatrix=None), "TransformMatrix and ElementSpacing"),
        ("no spacing", metaimage(ElementSpacing=None), "TransformMatrix and ElementSpacing"),
        ("AnatomicalOrientation that contradicts", metaimage(AnatomicalOrientation="LPI"), "contradict each other"),
        ("two axes of one direction", metaimage(TransformMatrix="1 0 0 1 0 0 0 0 1"), "no usable geometry"),
        ("no voxels", _without_data(metaimage(name="scan.mhd", data="scan.raw")), "file of voxels is not beside it"),
    ]
    nrrds = [
        ("left-posterior-superior", nrrd(OBLIQUE)),
        ("right-anterior-superior", nrrd(OBLIQUE, space="right-anterior-superior", turn=(1, 1, 1))),
        ("left-anterior-superior", nrrd(OBLIQUE, space="LAS", turn=(-1, 1, 1))),
        ("compressed", nrrd(encoding="gzip")),
        ("text", nrrd(encoding="ascii", dtype="short")),
        ("voxels in a file of their own", nrrd(name="scan.nhdr", data="scan.raw")),
        ("sheared", nrrd(tilted)),
        ("mirrored", nrrd(mirrored)),
        ("axes in another order", nrrd(_axes((1, 2, 0), (1, -1, 1)))),
        ("micrometres", nrrd(scale=1e3, lines=['space units: "um" "um" "um"'])),
        ("a measurement frame", nrrd(lines=["measurement frame: (0,1,0) (1,0,0) (0,0,1)"])),
    ]
    nrrds_refused = [
        ("no space", nrrd(space=None, spacings=True), "NRRD file with a space"),
        ("a space without a patient", nrrd(space="scanner-xyz"), "NRRD file with a space"),
        ("a space of three dimensions without a name", nrrd(space="space dimension: 3"), "NRRD file with a space"),
        ("an unknown unit", nrrd(lines=['space units: "inch" "inch" "inch"']), "unit of length"),
        ("two units", nrrd(lines=['space units: "mm" "mm" "cm"']), "unit of length"),
    ]
    return [
        *(Variant("MetaImage", name, write) for name, write in metaimages),
        *(Variant("MetaImage", name, write, refusal) for name, write, refusal in metaimages_refused),
        *(Variant("NRRD", name, write) for name, write in nrrds),
        *(Variant("NRRD", name, write, refusal) for name, write, refusal in nrrds_refused),
    ]


# --- DICOM ------------------------------------------------------------------------------------------------------------

Change = Callable[[Dataset, int], Any]


def tilted(degrees: float, distance: float = SPACING) -> np.ndarray:
    """Return axes of slices from a tilted gantry: they lean, and each lies straight above the one before."""
    t = np.radians(degrees)
    return np.array([[-SPACING, 0, 0], [0, -SPACING * np.cos(t), 0], [0, SPACING * np.sin(t), distance]])


def series(
    matrix: np.ndarray = LPS,
    *,
    shape: Sequence[int] = SHAPE,
    order: Sequence[int] | None = None,
    change: Change = lambda header, index: None,
    after: Callable[[Path], Any] = lambda folder: None,
    rescale: Callable[[int], tuple[float, float]] | None = None,
    signed: bool = False,
    inverted: bool = False,
) -> Write:
    """Return a writer of a folder of slices: order is that of their files, change alters the header of one."""

    def write(folder: Path) -> Path:
        affine = centred(matrix, shape)
        array, geometry = phantom(places(affine, shape)), RAS_TO_LPS @ affine
        uids = generate_uid(), generate_uid(), generate_uid()
        target = folder / "series"
        target.mkdir()
        for file, index in enumerate(range(shape[2]) if order is None else order):
            pixels = array[:, :, index].T
            header = _image_header(pixels, MRImageStorage, uids, signed, inverted)
            slope, intercept = (1.0, 0.0) if rescale is None else rescale(index)
            if rescale is not None:
                header.RescaleSlope, header.RescaleIntercept, header.RescaleType = slope, intercept, "US"
            stored = (3000 - pixels if inverted else pixels) - intercept
            header.PixelData = (stored / slope).round().astype("<i2" if signed else "<u2").tobytes()
            header.InstanceNumber = index + 1
            header.ImagePositionPatient = _decimals((geometry @ [0, 0, index, 1])[:3])
            header.ImageOrientationPatient, header.PixelSpacing = _plane(geometry)
            change(header, index)
            _save(header, target / f"{file:03d}.dcm")
        after(target)
        return target

    return write


def enhanced(
    matrix: np.ndarray = LPS,
    *,
    shape: Sequence[int] = SHAPE,
    order: Sequence[int] | None = None,
    change: Change = lambda group, index: None,
    rescale: Callable[[int], tuple[float, float]] = lambda index: (1.0, 0.0),
    whole: Callable[[Dataset], Any] = lambda header: None,
    in_folder: bool = False,
) -> Write:
    """Return a writer of one file with all slices as frames, each of which says where it lies and its scale."""

    def write(folder: Path) -> Path:
        affine = centred(matrix, shape)
        array, geometry = phantom(places(affine, shape)), RAS_TO_LPS @ affine
        indices = list(range(shape[2]) if order is None else order)
        header = _image_header(array[:, :, 0].T, EnhancedMRImageStorage, [generate_uid() for _ in range(3)])
        shared, frames, pixels = Dataset(), [], []
        orientation, spacing = _plane(geometry)
        shared.PlaneOrientationSequence = [_with(ImageOrientationPatient=orientation)]
        shared.PixelMeasuresSequence = [_with(PixelSpacing=spacing, SliceThickness=SPACING)]
        for index in indices:
            slope, intercept = rescale(index)
            position = _decimals((geometry @ [0, 0, index, 1])[:3])
            group = Dataset()
            group.PlanePositionSequence = [_with(ImagePositionPatient=position)]
            group.PixelValueTransformationSequence = [
                _with(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US")
            ]
            group.MRImageFrameTypeSequence = [_with(FrameType=["ORIGINAL", "PRIMARY", "M", "NONE"])]
            change(group, len(frames))
            frames.append(group)
            pixels.append(((array[:, :, index].T - intercept) / slope).round().astype("<u2").tobytes())
        header.NumberOfFrames, header.PixelData = len(frames), b"".join(pixels)
        header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [shared], frames
        whole(header)
        target = folder
        if in_folder:
            target = folder / "series"
            target.mkdir()
        _save(header, target / "scan.dcm")
        return target if in_folder else target / "scan.dcm"

    return write


def _image_header(
    pixels: np.ndarray, kind: str, uids: Sequence[str], signed: bool = False, inverted: bool = False
) -> Dataset:
    header = _with(SOPClassUID=kind, SOPInstanceUID=generate_uid(), StudyInstanceUID=uids[0], SeriesInstanceUID=uids[1])
    header.FrameOfReferenceUID, header.Modality = uids[2], "MR"
    header.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    header.Rows, header.Columns = pixels.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME1" if inverted else "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, int(signed)
    return header


def _plane(geometry: np.ndarray) -> tuple[list[str], list[str]]:
    lengths = np.linalg.norm(geometry[:3, :3], axis=0)
    axes = geometry[:3, :3] / lengths
    return _decimals([*axes[:, 0], *axes[:, 1]]), _decimals([lengths[1], lengths[0]])


def _decimals(values: Sequence[float] | np.ndarray) -> list[str]:
    return [f"{value:.6f}" for value in values]


def _with(**elements: Any) -> Dataset:
    dataset = Dataset()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def _save(header: Dataset, path: Path) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    FileDataset("", header, file_meta=meta, preamble=b"\0" * 128).save_as(path, enforce_file_format=True)


def _setting(**elements: Any) -> Change:
    """Return a change of one slice's elements, of the one in the middle."""

    def change(header: Dataset, index: int) -> None:
        if index == SHAPE[2] // 2:
            for name, value in elements.items():
                setattr(header, name, value)

    return change


def _moved(by: Callable[[int], Sequence[float]]) -> Change:
    """Return a change of every slice's place, in millimetres to the left, to the back and up."""

    def change(header: Dataset, index: int) -> None:
        header.ImagePositionPatient = _decimals(np.array(header.ImagePositionPatient, float) + by(index))

    return change


def _copied(folder: Path, **elements: Any) -> None:
    """Add every slice once more, as another image with other elements."""
    for path in sorted(folder.iterdir()):
        header = pydicom.dcmread(path)
        header.SOPInstanceUID = generate_uid()
        for name, value in elements.items():
            setattr(header, name, value)
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.save_as(path.with_name(f"other_{path.name}"))


def _twice(group: Dataset, index: int) -> None:
    if index >= SHAPE[2]:
        group.MRImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "P", "NONE"]


def _phase_in_the_middle(group: Dataset, index: int) -> None:
    if index == SHAPE[2] // 2:
        group.MRImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "P", "NONE"]


def _without_place(group: Dataset, index: int) -> None:
    if index == 3:
        del group.PlanePositionSequence


def _dicom_variants() -> list[Variant]:
    middle, depth = SHAPE[2] // 2, SHAPE[2]
    shuffled = [(7 * index) % depth for index in range(depth)]
    all_but_one = [index for index in range(depth) if index != middle]
    coronal, sagittal = _axes((0, 2, 1), (-1, -1, 1)), _axes((1, 2, 0), (-1, -1, 1))
    phase = ["ORIGINAL", "PRIMARY", "P", "NONE"]
    variants: list[tuple[str, Write]] = [
        ("files in another order", series(order=shuffled)),
        ("from top to bottom", series(order=range(depth)[::-1])),
        ("coronal", series(coronal)),
        ("sagittal", series(sagittal)),
        ("oblique", series(OBLIQUE @ np.diag([-1, -1, 1]))),
        ("rows and columns at other distances", series(LPS @ np.diag([0.7, 1.2, 1.0]), shape=(47, 29, 29))),
        ("thick slices", series(LPS @ np.diag([1, 1, 1.7]), shape=(33, 35, 17))),
        ("wide pixels", series(LPS @ np.diag([1.5, 1.5, 1]), shape=(23, 25, 29))),
        ("a scale of every slice", series(rescale=lambda index: (0.1 + 0.02 * index, -40.0))),
        ("computed tomography", series(change=lambda header, _: setattr(header, "SOPClassUID", CTImageStorage))),
        ("signed values", series(signed=True, rescale=lambda index: (0.5, 1500.0))),
        ("small values are bright", series(inverted=True)),
        ("places with a jitter of a twentieth", series(change=_moved(lambda index: (0.1 * (index % 2), 0, 0)))),
        ("frames", enhanced()),
        ("frames in a folder", enhanced(in_folder=True)),
        ("frames in another order", enhanced(order=shuffled)),
        ("frames with a scale each", enhanced(rescale=lambda index: (0.1 + 0.02 * index, -40.0))),
        ("oblique frames", enhanced(OBLIQUE @ np.diag([-1, -1, 1]))),
    ]
    refused: list[tuple[str, Write, str]] = [
        ("a slice is missing", series(order=all_but_one), "gaps between its slices"),
        ("unequal distances", series(change=_moved(lambda i: (0, 0, 0.02 * i * i))), "unequal distances"),
        ("distances that grow slowly", series(change=_moved(lambda i: (0, 0, max(i - middle, 0) * 0.12))), "unequal"),
        ("slices shifted unequally", series(change=_moved(lambda i: (0.02 * i * i, 0, 0))), "unequal distances or"),
        ("two times", series(after=lambda folder: _copied(folder)), "two slices at one position"),
        (
            "two series",
            series(after=lambda folder: _copied(folder, SeriesInstanceUID=generate_uid())),
            "one DICOM series",
        ),
        ("magnitude and phase", series(after=lambda folder: _copied(folder, ImageType=phase)), "magnitude and phase"),
        ("a phase among magnitudes", series(change=_setting(ImageType=phase)), "magnitude and phase"),
        (
            "one direction is another",
            series(change=_setting(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])),
            "directions",
        ),
        (
            "directions that are not of length 1",
            series(change=lambda header, _: setattr(header, "ImageOrientationPatient", [1.2, 0, 0, 0, 1, 0])),
            "two perpendicular directions",
        ),
        (
            "directions that are not perpendicular",
            series(change=lambda header, _: setattr(header, "ImageOrientationPatient", [1, 0, 0, 0.6, 0.8, 0])),
            "two perpendicular directions",
        ),
        ("no place", series(change=_setting(ImagePositionPatient=None)), "lacks ImagePositionPatient"),
        ("no distance of pixels", series(change=_setting(PixelSpacing=None)), "lacks PixelSpacing"),
        ("one slice without a scale", series(rescale=lambda _: (0.5, 0.0), change=_unscaled), "mixes kinds"),
        ("pixels of no width", series(change=lambda header, _: setattr(header, "PixelSpacing", [0, 3])), "geometry"),
        ("frames at two times", enhanced(order=[*range(depth)] * 2), "two slices at one position"),
        ("magnitude and phase in frames", enhanced(order=[*range(depth)] * 2, change=_twice), "magnitude and phase"),
        ("a phase among frames", enhanced(change=_phase_in_the_middle), "mixes kinds of slices"),
        ("a frame is missing", enhanced(order=all_but_one), "gaps between its slices"),
        ("a frame that does not say where it lies", enhanced(change=_without_place), "do not say where they lie"),
        ("two scales", enhanced(whole=_scaled), "two rescalings"),
    ]
    return [
        *(Variant("DICOM", name, write) for name, write in variants),
        *(Variant("DICOM", f"gantry tilted by {t:g} degrees", series(tilted(t)), tilt=t) for t in (16.5, -18.5)),
        Variant(
            "DICOM", "frames tilted by -18.5 degrees", enhanced(tilted(-18.5, 4.0), shape=(33, 35, 23)), tilt=-18.5
        ),
        *(Variant("DICOM", name, write, refusal) for name, write, refusal in refused),
    ]


def _unscaled(header: Dataset, index: int) -> None:
    if index == 2:
        del header.RescaleSlope, header.RescaleIntercept


def _scaled(header: Dataset) -> None:
    header.RescaleSlope, header.RescaleIntercept = 2.0, 0.0


VARIANTS = (*_nifti_variants(), *_text_variants(), *_dicom_variants())
