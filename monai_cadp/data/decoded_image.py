# SPDX-License-Identifier: Apache-2.0
"""What every decoder returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from monai_cadp.data.silence import Refusal

__all__ = ["DecodedImage", "numeric", "to_ras"]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Volume of a voxel, as a share of that of a box with the same edges; 0.1 is a shear of 84 degrees.
FLATTEST = 0.1
FLAT = "A volume has no usable geometry; expected three axes of different directions in its header."


@dataclass(frozen=True)
class DecodedImage:
    """The voxels of one file in the file's own units, and what is needed to read them.

    Args:
        voxels: float32 array (C, \\*spatial).
        format_range: smallest and largest value that the file format can hold, where that is a useful scale (pictures);
            None where it is not (NIfTI, DICOM).
        is_color: whether three channels are red, green and blue.
        is_inverted: whether small values are bright.
        affine: maps indices of a volume's voxels to millimetres (right, anterior, superior); None where the file says
            nothing of it.
        is_segmentation: whether the file says that its values are numbers of segments.
    """

    voxels: np.ndarray
    format_range: tuple[float, float] | None = None
    is_color: bool = False
    is_inverted: bool = False
    affine: np.ndarray | None = None
    is_segmentation: bool = False


def numeric(array: np.ndarray) -> np.ndarray:
    """Return an array as float32; raises :class:`Refusal` if it holds no real numbers."""
    if array.dtype.kind not in "biuf":
        raise Refusal("An image file holds values that are not real numbers; expected integers or floats.")
    return array.astype(np.float32)


def to_ras(voxels: np.ndarray, affine: np.ndarray, *, lps: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Flip and permute a volume (C, a, b, c) to point right, anterior, superior.

    Raises :class:`Refusal` if two axes have one direction, or an axis has none.

    Args:
        voxels: the volume.
        affine: from indices to millimetres (4, 4).
        lps: whether those point left, posterior, superior, as in DICOM.

    Returns:
        The volume, and the affine of its new indices to right, anterior, superior.
    """
    affine = LPS_TO_RAS @ affine if lps else np.asarray(affine, dtype=float)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > FLATTEST * lengths.prod()):
        raise Refusal(FLAT)
    orientation = io_orientation(affine)
    turned = np.moveaxis(apply_orientation(np.moveaxis(voxels, 0, -1), orientation), -1, 0)
    return turned, affine @ inv_ornt_aff(orientation, voxels.shape[1:])
