# SPDX-License-Identifier: Apache-2.0
"""DICOM files and series: voxels in stored order, where they lie, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder
from pydicom.uid import RLELossless

from monai_cadp.data.decoded_image import DecodedImage, numeric, to_ras
from monai_cadp.data.dicom_preamble import is_dicom, is_directory
from monai_cadp.data.folder_entries import entries_of, is_empty, is_note
from monai_cadp.data.silence import Refusal, silenced_descriptors
from monai_cadp.extras import extra

__all__ = ["decode_dicom", "decode_dicom_series"]

# Ultrasound, of one and of several frames, and secondary captures show text within the picture, often a name. A kind of
# image is one of these or, after a point, a variant of it: 7 is a secondary capture, and 77 a photograph.
OFTEN_WITH_TEXT = tuple(f"1.2.840.10008.5.1.4.1.1.{number}" for number in (3, 6, 7))
# Share of the distance of slices by which one may be off its place on the line from the first to the last.
PLACE_TOLERANCE = 0.1
# Of cosines: over 250 mm a direction is off by a quarter of a millimetre.
AXES_TOLERANCE = 1e-3
OF_IMAGES = ("SOPClassUID", "Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
OF_FRAMES = (
    ("PlanePositionSequence", "ImagePositionPatient"),
    ("PlaneOrientationSequence", "ImageOrientationPatient"),
    ("PixelMeasuresSequence", "PixelSpacing"),
)
# What pixels are when pydicom has decoded them.
GRAYS, COLORS = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "PALETTE COLOR")
OF_SCALES, OF_DOSES = ("RescaleSlope", "RescaleIntercept"), ("DoseGridScaling",)
OF_SLICES = ("SeriesInstanceUID", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")


@dataclass(frozen=True)
class _Slice:
    """One plane of a volume: its pixels (rows, columns), and where they lie, in left, posterior, superior."""

    pixels: np.ndarray
    origin: np.ndarray
    # The directions of rows and columns, (2, 3).
    axes: np.ndarray
    # From row to row, and from column to column.
    spacing: np.ndarray
    # What all slices of a volume have in common, such as their size, and whether they are magnitude or phase.
    kind: tuple[object, ...]
    is_inverted: bool


def decode_dicom(path: Path) -> DecodedImage:
    """Decode one DICOM file, of one frame or of several, which are a volume where each says where it lies."""
    return _decode_file(_checked(_read(path)))


def decode_dicom_series(folder: Path) -> DecodedImage:
    """Decode a folder that holds one series of parallel slices at equal distances, or one file with all of them."""
    entries = [path for path in entries_of(folder) if not is_empty(path) and not is_note(path)]
    paths = [path for path in entries if not path.is_dir()]
    if paths and len(paths) < len(entries):
        raise Refusal(
            f"A folder holds DICOM files, and {len(entries) - len(paths)} folders beside them; give every series a "
            "folder of its own."
        )
    others = sum(not is_dicom(path) and not _lacks_preamble(path) for path in paths)
    if others:
        raise Refusal(
            f"{others} of {len(paths)} files of a folder are not DICOM, such as the index of a viewer; move them away, "
            "and give every series a folder of its own."
        )
    headers = [_read(path) for path in paths]
    parts = [_checked(header) for header in headers if not is_directory(header)]
    frames = [int(part.get("NumberOfFrames") or 1) for part in parts]
    if len(parts) == 1 and frames[0] > 1:
        return _decode_file(parts[0])
    if max(frames, default=1) > 1:
        raise Refusal("A folder holds several DICOM files of many frames; give every one a folder of its own.")
    for part in parts:
        _require(part, OF_SLICES)
    if len(parts) < 2 or len({str(part.SeriesInstanceUID) for part in parts}) != 1:
        raise Refusal("A folder does not hold one DICOM series of several slices; give every series its own folder.")
    slices = []
    for part in parts:
        decoded = _decode(part)
        if decoded.is_color or decoded.voxels.ndim != 3:
            raise Refusal("A DICOM series holds color or frames; expected plain gray slices.")
        slices.append(
            _slice(
                decoded,
                decoded.voxels[0],
                (part.ImagePositionPatient, part.ImageOrientationPatient, part.PixelSpacing),
                (*_layout(part), _states_scale(part), *_image_kind(part, "ImageType")),
            )
        )
    return _stacked(slices)


def _decode_file(header: Dataset) -> DecodedImage:
    """Decode one file; several frames that all say where they lie become a volume."""
    if str(header.get("SOPClassUID", "")) in SEGMENTATIONS:
        with extra("dicom", "Reading DICOM segmentations"):
            from monai_cadp.data.dicom_segmentation import decode_segmentation
        return decode_segmentation(header)
    decoded = _decode(header)
    if decoded.voxels.ndim != 4 or decoded.is_color or not header.get("PerFrameFunctionalGroupsSequence"):
        return decoded
    groups = _groups(header)
    places = [[one.get(sequence, Dataset()).get(name) for sequence, name in OF_FRAMES] for one in groups]
    stated = [all(value not in (None, "") for value in place) for place in places]
    if not any(stated):
        return decoded
    if not all(stated):
        raise Refusal("Some frames of a DICOM file do not say where they lie; export it again with what is missing.")
    kinds = [_frame_kind(group) for group in groups]
    return _stacked([_slice(decoded, *one) for one in zip(decoded.voxels[0], places, kinds, strict=True)])


def _groups(header: Dataset) -> list[dict[str, Dataset]]:
    """Return what each frame says of itself, or all frames in common, by the names of its sequences."""
    count = int(header.get("NumberOfFrames") or 1)
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    frames = header.get("PerFrameFunctionalGroupsSequence") or [Dataset()] * count
    if len(frames) != count:
        raise Refusal("A DICOM file says something of another number of frames than it has; export it again.")
    return [_sequences(shared[0]) | _sequences(frame) for frame in frames]


def _sequences(stated: Dataset) -> dict[str, Dataset]:
    return {element.keyword: element.value[0] for element in stated if element.VR == "SQ" and element.value}


def _states_scale(header: Dataset) -> bool:
    return any(name in header for name in (*OF_SCALES, *OF_DOSES)) or bool(header.get("ModalityLUTSequence"))


def _scaled(frames: np.ndarray, header: Dataset) -> np.ndarray:
    """Return the values of frames (n, rows, columns), float32, in the unit that the file says of all or of each."""
    name = "PixelValueTransformationSequence"
    each = [_scale(group[name], OF_SCALES) for group in _groups(header) if name in group]
    has_table = bool(header.get("ModalityLUTSequence"))
    if has_table and not each and OF_DOSES[0] not in header:
        return numeric(apply_modality_lut(frames, header))
    of_all = [_scale(header, names) for names in (OF_SCALES, OF_DOSES) if any(one in header for one in names)]
    if has_table or (of_all and len({*each, *of_all}) > 1):
        raise Refusal("A DICOM file states two rescalings of its values that differ; keep one of them.")
    if each and len(each) < len(frames):
        raise Refusal("Some frames of a DICOM file state no rescaling of their values; export it again with all.")
    scales = each or [*of_all, (1.0, 0.0)][:1] * len(frames)
    return np.stack([numeric(frame * slope + first) for frame, (slope, first) in zip(frames, scales, strict=True)])


def _scale(stated: Dataset, names: Sequence[str]) -> tuple[float, float]:
    """Return the factor of values, and what is added; ``names`` are those of both, or of the factor."""
    # pydicom leaves out the one of the two that stands alone.
    slope, intercept = (*(stated.get(name, default) for name, default in zip(names, (1, 0), strict=False)), 0)[:2]
    if {None, ""} & {slope, intercept} or not np.isfinite([slope, intercept]).all() or slope == 0:
        raise Refusal(
            f"A DICOM file states a {' or '.join(names)} that is no number, or a slope of 0; export it again with the "
            "scale of its values."
        )
    return float(slope), float(intercept)


def _frame_kind(groups: dict[str, Dataset]) -> tuple[object, ...]:
    kinds = [one for name, one in groups.items() if name.endswith("FrameTypeSequence")]
    return tuple(value for one in kinds for value in _image_kind(one, "FrameType"))


def _image_kind(header: Dataset, name: str) -> tuple[str, ...]:
    """Return what tells magnitude from phase, and a localizer from a slice."""
    return (*(str(value) for value in list(header.get(name) or [])[2:3]), str(header.get("ComplexImageComponent", "")))


def _slice(
    decoded: DecodedImage, pixels: np.ndarray, place: Sequence[Sequence[float]], kind: tuple[object, ...]
) -> _Slice:
    position, orientation, spacing = (np.array(values, dtype=float) for values in place)
    return _Slice(pixels, position, orientation.reshape(2, 3), spacing, kind, decoded.is_inverted)


def _stacked(slices: Sequence[_Slice]) -> DecodedImage:
    """Return the volume of slices, in whatever order they come."""
    first = slices[0]
    if np.abs(first.axes @ first.axes.T - np.eye(2)).max() > AXES_TOLERANCE:
        raise Refusal(
            "A DICOM series has an ImageOrientationPatient that is not two perpendicular directions of length 1; "
            "export it again."
        )
    apart = max(np.abs(part.axes - first.axes).max() for part in slices)
    sizes = {(part.pixels.shape, *part.spacing.round(4)) for part in slices}
    if apart > AXES_TOLERANCE or len(sizes) != 1:
        raise Refusal("A DICOM series mixes slices of several sizes or directions; expected one volume a folder.")
    if len({(part.kind, part.is_inverted) for part in slices}) != 1:
        raise Refusal(
            "A DICOM series mixes kinds of slices, such as magnitude and phase, or original and derived ones; give "
            "every kind a folder of its own."
        )
    normal = np.cross(*first.axes)
    slices = sorted(slices, key=lambda part: float(part.origin @ normal))
    origins = np.array([part.origin for part in slices])
    if len(slices) < 2 or np.diff(origins @ normal).min() < 1e-3:
        raise Refusal(
            "A DICOM series holds two slices at one position, as of several echoes, times, or magnitude and phase; "
            "expected one volume a folder."
        )
    # The mean step, and not the normal: slices of a tilted gantry are shifted against each other.
    step = (origins[-1] - origins[0]) / (len(origins) - 1)
    off_line = np.linalg.norm(origins - origins[0] - np.arange(len(origins))[:, None] * step, axis=1)
    if off_line.max() > PLACE_TOLERANCE * (step @ normal):
        raise Refusal(
            "A DICOM series has gaps between its slices: some are missing, or it was taken at unequal distances or "
            "shifts; give the whole series, or resample it to equal distances."
        )
    affine = np.eye(4)
    row_spacing, column_spacing = first.spacing
    affine[:3] = np.stack([step, first.axes[1] * row_spacing, first.axes[0] * column_spacing, origins[0]], axis=1)
    voxels, affine = to_ras(np.stack([part.pixels for part in slices])[None], affine)
    return DecodedImage(voxels, is_inverted=first.is_inverted, affine=affine)


def _read(path: Path) -> FileDataset:
    if _lacks_preamble(path):
        raise Refusal(
            "A DICOM file has no preamble, the 128 bytes and the letters DICM that say how it is encoded; convert it, "
            "as dcmconv of DCMTK does."
        )
    return pydicom.dcmread(path)


def _lacks_preamble(path: Path) -> bool:
    """Tell whether a file begins with a group of DICOM elements at once."""
    if is_dicom(path) or not path.is_file():
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
            array, found = get_decoder(header.file_meta.TransferSyntaxUID).as_array(header)
    except (RuntimeError, NotImplementedError, AttributeError, ValueError):
        raise Refusal(
            "A DICOM image's pixels could not be decoded: they are damaged, or compressed by a syntax that is not "
            "installed; store it uncompressed."
        ) from None
    photometric = str(found["photometric_interpretation"])
    samples = 3 if photometric == "RGB" else 1
    if photometric not in (*GRAYS, *COLORS) or found["samples_per_pixel"] != samples:
        raise Refusal(
            "A DICOM image has a PhotometricInterpretation that is not read, or that contradicts its SamplesPerPixel; "
            "store it as MONOCHROME2 or RGB."
        )
    if _is_shifted(header):
        raise Refusal(
            "A DICOM image has its values in other bits than the lowest ones; export it again with a HighBit that is "
            "one less than BitsStored."
        )
    if photometric == "PALETTE COLOR":
        count, first, _ = header.RedPaletteColorLookupTableDescriptor
        # pydicom takes what lies beyond a table of 8 bits modulo 256.
        array = apply_color_lut(np.minimum(array.astype(np.int64), first + (count or 2**16) - 1), header)
    if photometric in COLORS:
        return DecodedImage(np.moveaxis(numeric(array), -1, 0), is_color=True)
    frames = _scaled(array.reshape(-1, *array.shape[-2:]), header).reshape(array.shape)
    return DecodedImage(frames[None], is_inverted=photometric == "MONOCHROME1")


def _is_shifted(header: Dataset) -> bool:
    """Tell whether stored values, not all of them 0, lie above bits that are never used.

    A HighBit that says so may be wrong, and codecs but that of runs return values in the lowest bits whatever it says.
    """
    unused = (header.get("HighBit") or 0) + 1 - header.BitsStored
    syntax = header.file_meta.TransferSyntaxUID
    if not 0 < unused <= header.BitsAllocated - header.BitsStored or (syntax.is_encapsulated and syntax != RLELossless):
        return False
    # pydicom's annotation takes each option for all of them.
    options: dict[str, Any] = {"correct_unused_bits": False}
    stored, _ = get_decoder(syntax).as_array(header, raw=True, **options)
    return bool(stored.any()) and not (stored & (2**unused - 1)).any()


def _layout(header: Dataset) -> tuple[object, ...]:
    return header.Rows, header.Columns, str(header.get("Modality")), str(header.SOPClassUID)
