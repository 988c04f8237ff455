# SPDX-License-Identifier: Apache-2.0
"""MetaImage and NRRD files, by ITK: voxels, and where the header says that they lie."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np

from monai_cadp.data.decoded_image import FLAT, DecodedImage, numeric, to_ras
from monai_cadp.data.silence import Refusal, silenced_descriptors

__all__ = ["decode_itk"]

METAIMAGE_SUFFIXES = (".mha", ".mhd")
# Of a field of MetaImage and its value.
SEPARATOR = "[=:]"
LONGEST_HEADER = 2**16
# Spaces of NRRD files whose axes point somewhere in a patient; ITK turns all of them to left, posterior, superior.
PATIENT_SPACES = {
    *("left-posterior-superior", "right-anterior-superior", "left-anterior-superior"),
    *("lps", "ras", "las"),
}
MILLIMETRES = {
    **dict.fromkeys(("", "?", "mm", "millimeter", "millimeters"), 1.0),
    **dict.fromkeys(("um", "µm", "micron", "microns"), 0.001),
    **dict.fromkeys(("cm",), 10.0),
    **dict.fromkeys(("m", "meter", "meters"), 1000.0),
}
# From which side an axis comes, by the letters of AnatomicalOrientation, in left, posterior, superior.
FROM_SIDES = {
    **{"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0)},
    **{"P": (0, -1, 0), "I": (0, 0, 1), "S": (0, 0, -1)},
}
# An axis of any direction has a letter within 55 degrees.
SMALLEST_COSINE = 0.5
# For zlib: a header of either of its two formats.
ANY_HEADER = 47


def decode_itk(path: Path, spatial_dims: int) -> DecodedImage:
    """Decode a MetaImage or NRRD file; volumes point right, anterior, superior if it says where they lie."""
    # Here, because it takes long, and pictures and NIfTI files do not need it.
    import SimpleITK

    is_metaimage = path.name.lower().endswith(METAIMAGE_SUFFIXES)
    header = _header(path, SEPARATOR if is_metaimage else ":")
    _check_voxels_beside(path, header)
    try:
        with silenced_descriptors():
            image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        if "direction" not in str(error):
            raise
        raise Refusal(FLAT) from None
    array = SimpleITK.GetArrayFromImage(image)
    if is_metaimage:
        _check_metaimage(path, header, array.nbytes)
    array = numeric(_in_units(array, header))
    voxels = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    if image.GetDimension() != 3:
        return DecodedImage(voxels)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    unit = _unit_of_metaimage(header, affine) if is_metaimage else _unit_of_nrrd(header)
    voxels = voxels.transpose(0, 3, 2, 1)
    if unit is None:
        # ITK would suppose the axes of a patient.
        return DecodedImage(voxels)
    if "none" in header.get("space directions", "") and header["space directions"].count("(") < 3:
        # ITK would make one up.
        raise Refusal("A NRRD file has an axis without a direction in its space; expected three directions.")
    voxels, affine = to_ras(voxels, np.diag([unit] * 3 + [1.0]) @ affine)
    return DecodedImage(voxels, affine=affine)


def _header(path: Path, separator: str) -> dict[str, str]:
    """Return the fields of a header of text, which ends by an empty line or the field ElementDataFile.

    Args:
        path: of the file.
        separator: what stands between a field and its value, as a regular expression.
    """
    with path.open("rb") as file:
        lines = file.read(LONGEST_HEADER).decode("latin-1").splitlines()
    fields: dict[str, str] = {}
    for line in lines:
        name, *values = re.split(separator, line, maxsplit=1)
        fields[name.strip().lower()] = "".join(values).strip()
        if not line.strip() or name.strip() == "ElementDataFile":
            break
    return fields


def _in_units(array: np.ndarray, header: dict[str, str]) -> np.ndarray:
    """Return stored values in the unit that a header says, which ITK passes over."""
    try:
        slope, offset = (
            float(header.get(f"elementtointensityfunction{name}", default))
            for name, default in (("slope", 1), ("offset", 0))
        )
        ends = [float(header[name]) for name in ("old min", "old max", "oldmin", "oldmax") if name in header]
    except ValueError:
        slope, offset, ends = np.nan, np.nan, []
    if ends and array.dtype.kind in "iu":
        # Cells of equal width from the one end to the other, as those of Teem.
        slope = (ends[-1] - ends[0]) / 2.0 ** (8 * array.dtype.itemsize)
        offset = ends[0] + slope * (0.5 - np.iinfo(array.dtype).min)
    if not np.isfinite([slope, offset]).all() or slope == 0:
        raise Refusal("A header scales its values by 0, or by what is no number; write the file again.")
    return array if (slope, offset) == (1, 0) else array * slope + offset


def _check_metaimage(path: Path, header: dict[str, str], size: int) -> None:
    """Refuse a MetaImage file for whose voxels ITK takes its header, or what it finds in memory.

    Args:
        path: of the file.
        header: its fields.
        size: of the voxels, in bytes.
    """
    stated, stated_size = header["elementdatafile"], int(header.get("compresseddatasize") or 0)
    if stated.startswith("LIST") or "%" in stated:
        return
    is_local = stated == "LOCAL"
    with (path if is_local else path.parent / stated).open("rb") as file:
        if is_local:
            # Up to the end of the header.
            next(line for line in file if line.strip().startswith(b"ElementDataFile"))
            if 0 < int(header.get("headersize", 0)) < file.tell():
                raise Refusal("A MetaImage file says that its voxels begin within its header; remove its HeaderSize.")
        if header.get("compresseddata", "")[:1] not in {"T", "t", "1"}:
            return
        content = file.read(stated_size) if stated_size else b"" if is_local else file.read()
    stream = zlib.decompressobj(ANY_HEADER)
    try:
        is_whole = len(stream.decompress(content, size + 1)) == size and stream.eof
    except zlib.error:
        is_whole = False
    if not is_whole:
        raise Refusal(
            "A MetaImage file's compressed voxels are damaged, or CompressedDataSize does not say how many bytes they "
            "have; write it again, as SimpleITK does."
        )


def _check_voxels_beside(path: Path, header: dict[str, str]) -> None:
    """Refuse a header whose voxels are in another file that is not there; several files are left to ITK."""
    stated = next((header[name] for name in ("elementdatafile", "data file", "datafile") if name in header), "LOCAL")
    if stated.split()[:1] not in (["LOCAL"], ["LIST"]) and "%" not in stated and not (path.parent / stated).is_file():
        raise Refusal("A header's file of voxels is not beside it; put both into one folder, under their names.")


def _unit_of_metaimage(header: dict[str, str], affine: np.ndarray) -> float | None:
    """Return the millimetres of a unit; None where the header says nothing of directions or distances."""
    if not header.keys() & {"transformmatrix", "rotation", "orientation"} or not header.keys() & {
        "elementspacing",
        "elementsize",
    }:
        return None
    letters = header.get("anatomicalorientation", "").upper()
    if len(letters) == 3 and set(letters) <= set(FROM_SIDES):
        directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        cosines = [np.dot(direction, FROM_SIDES[one]) for direction, one in zip(directions.T, letters, strict=True)]
        if not min(cosines) >= SMALLEST_COSINE:
            raise Refusal(
                "A MetaImage file's TransformMatrix and AnatomicalOrientation contradict each other; correct the one "
                "that does not hold, or remove AnatomicalOrientation."
            )
    return _millimetres([header.get("distanceunits", "")])


def _unit_of_nrrd(header: dict[str, str]) -> float | None:
    """Return the millimetres of a unit; None where the header says nothing of its space or its directions."""
    if header.get("space", "").lower() not in PATIENT_SPACES or "space directions" not in header:
        return None
    return _millimetres(re.findall(r'"([^"]*)"', header.get("space units", "")) or [""])


def _millimetres(units: list[str]) -> float:
    known = {MILLIMETRES.get(unit.strip().lower()) for unit in units}
    (unit,) = known if len(known) == 1 else (None,)
    if unit is None:
        raise Refusal("A volume's header states a unit of length that is not known; give it in millimetres.")
    return unit
