# SPDX-License-Identifier: Apache-2.0
"""DICOM files and series: voxels in stored order, where they lie, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import apply_color_lut, apply_rescale, pixel_array

from monai_cadp.data.decoded_image import DecodedImage, numeric, to_ras
from monai_cadp.data.dicom_preamble import is_dicom, is_directory
from monai_cadp.data.silence import Refusal, silenced_descriptors

__all__ = ["decode_dicom", "decode_dicom_series"]

# Ultrasound, of one and of several frames, and secondary captures show text within the picture, often a name. A kind of
# image is one of these or, after a point, a variant of it: 7 is a secondary capture, and 77 a photograph.
OFTEN_WITH_TEXT = tuple(f"1.2.840.10008.5.1.4.1.1.{number}" for number in (3, 6, 7))
# Share of the distance of slices by which one may be off its place.
PLACE_TOLERANCE = 0.05
OF_IMAGES = ("SOPClassUID", "Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
OF_SLICES = ("SeriesInstanceUID", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")


def decode_dicom(path: Path) -> DecodedImage:
    """Decode one DICOM file, of one or several frames."""
    return _decode(_checked(_read(path)))


def decode_dicom_series(folder: Path) -> DecodedImage:
    """Decode a folder that holds one series of parallel slices at equal distances."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    others = sum(not is_dicom(path) and not _lacks_preamble(path) for path in paths)
    if others:
        raise Refusal(
            f"{others} of {len(paths)} files of a folder are not DICOM, such as the index of a viewer; move them away, "
            "and give every series a folder of its own."
        )
    headers = [_read(path) for path in paths]
    slices = [_checked(header) for header in headers if not is_directory(header)]
    for part in slices:
        _require(part, OF_SLICES)
    if len(slices) < 2 or len({str(part.SeriesInstanceUID) for part in slices}) != 1:
        raise Refusal("A folder does not hold one DICOM series of several slices; give every series its own folder.")
    orientations = np.array([part.ImageOrientationPatient for part in slices], dtype=float)
    if np.abs(orientations - orientations[0]).max() > 1e-3 or len({_layout(part) for part in slices}) != 1:
        raise Refusal("A DICOM series mixes slices of several sizes or directions; expected one volume a folder.")
    across, down = orientations[0].reshape(2, 3)
    normal = np.cross(across, down)
    origins = np.array([part.ImagePositionPatient for part in slices], dtype=float)
    order = np.argsort(origins @ normal)
    heights, origins = (origins @ normal)[order], origins[order]
    gaps = np.diff(heights)
    if gaps.min() < 1e-3:
        raise Refusal("A DICOM series holds two slices at one position; expected one volume a folder.")
    if np.ptp(gaps) > PLACE_TOLERANCE * gaps.mean():
        raise Refusal(
            "A DICOM series has gaps between its slices: some are missing, or it was taken at unequal distances; give "
            "the whole series, or resample it to equal distances."
        )
    decoded = [_decode(slices[index]) for index in order]
    if any(part.is_color or part.voxels.ndim != 3 or part.is_inverted != decoded[0].is_inverted for part in decoded):
        raise Refusal("A DICOM series mixes kinds of slices, or holds color or frames; expected plain gray slices.")
    volume = np.stack([part.voxels for part in decoded], axis=1)
    row_spacing, column_spacing = (float(value) for value in slices[0].PixelSpacing)
    # The mean step, and not the normal: slices of a tilted gantry are shifted against each other.
    step = (origins[-1] - origins[0]) / (len(origins) - 1)
    affine = np.eye(4)
    affine[:3] = np.stack([step, down * row_spacing, across * column_spacing, origins[0]], axis=1)
    voxels, affine = to_ras(volume, affine)
    return DecodedImage(voxels, is_inverted=decoded[0].is_inverted, affine=affine)


def _read(path: Path) -> FileDataset:
    if _lacks_preamble(path):
        raise Refusal(
            "A DICOM file has no preamble, the 128 bytes and the letters DICM that say how it is encoded; convert it, "
            "as dcmconv of DCMTK does."
        )
    return pydicom.dcmread(path)


def _lacks_preamble(path: Path) -> bool:
    """Tell whether a file begins with a group of DICOM elements at once."""
    if is_dicom(path):
        return False
    try:
        header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    except Exception:
        return False
    return bool(header.get("SOPClassUID")) and "Rows" in header


def _require(header: Dataset, names: Sequence[str]) -> None:
    """Refuse a file that lacks an attribute, or has it without a value."""
    missing = [name for name in names if header.get(name) in (None, "")]
    if missing:
        raise Refusal(f"A DICOM file lacks {', '.join(missing)}; export it again with what is missing.")


def _checked(header: Dataset) -> Dataset:
    burned_in = str(header.get("BurnedInAnnotation", "")).upper()
    kind = str(header.get("SOPClassUID", ""))
    often = any(kind == one or kind.startswith(f"{one}.") for one in OFTEN_WITH_TEXT)
    if burned_in == "YES" or (often and burned_in != "NO"):
        raise Refusal(
            "A DICOM image has, or may have, text burned into its pixels; make sure that it has none and set "
            "BurnedInAnnotation to NO, or leave it out."
        )
    return header


def _decode(header: Dataset) -> DecodedImage:
    if "PixelData" not in header:
        raise Refusal("A DICOM file holds no image; leave it out.")
    _require(header, OF_IMAGES)
    try:
        # Decoders of compressed pixels are libraries in C.
        with silenced_descriptors():
            array = pixel_array(header)
    except (RuntimeError, NotImplementedError, AttributeError, ValueError):
        raise Refusal(
            "A DICOM image's pixels could not be decoded: they are damaged, or compressed by a syntax that is not "
            "installed; store it uncompressed."
        ) from None
    photometric = str(header.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        array = apply_color_lut(array, header)
    is_color = photometric == "PALETTE COLOR" or int(header.get("SamplesPerPixel", 1)) == 3
    array = numeric(array if is_color else apply_rescale(array, header))
    return DecodedImage(
        np.moveaxis(array, -1, 0) if is_color else array[None],
        is_color=is_color,
        is_inverted=photometric == "MONOCHROME1",
    )


def _layout(header: Dataset) -> tuple[object, ...]:
    spacing = tuple(round(float(value), 4) for value in header.PixelSpacing)
    return header.Rows, header.Columns, spacing, str(header.get("Modality")), str(header.SOPClassUID)
