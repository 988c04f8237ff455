# SPDX-License-Identifier: Apache-2.0
"""MetaImage and NRRD files, by ITK: voxels, and where the header says that they lie."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from monai_cadp.data.decoded_image import FLAT, DecodedImage, numeric, to_ras
from monai_cadp.data.silence import Refusal, silenced_descriptors

__all__ = ["decode_itk"]

METAIMAGE_SUFFIXES = (".mha", ".mhd")
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


def decode_itk(path: Path, spatial_dims: int) -> DecodedImage:
    """Decode a MetaImage or NRRD file; volumes point right, anterior, superior if it says where they lie."""
    # Here, because it takes long, and pictures and NIfTI files do not need it.
    import SimpleITK

    is_metaimage = path.name.lower().endswith(METAIMAGE_SUFFIXES)
    header = _header(path, "=" if is_metaimage else ":")
    _check_voxels_beside(path, header)
    try:
        with silenced_descriptors():
            image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        if "direction" not in str(error):
            raise
        raise Refusal(FLAT) from None
    array = numeric(SimpleITK.GetArrayFromImage(image))
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
    voxels, affine = to_ras(voxels, np.diag([unit] * 3 + [1.0]) @ affine)
    return DecodedImage(voxels, affine=affine)


def _header(path: Path, separator: str) -> dict[str, str]:
    """Return the fields of a header of text, which ends by an empty line or the field ElementDataFile."""
    with path.open("rb") as file:
        lines = file.read(LONGEST_HEADER).decode("latin-1").splitlines()
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(separator)
        fields[name.strip().lower()] = value.strip()
        if not line.strip() or name.strip() == "ElementDataFile":
            break
    return fields


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
