# SPDX-License-Identifier: Apache-2.0
"""NIfTI files: voxels, and where the header says that they lie."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from monai_cadp.data.decoded_image import DecodedImage, numeric, to_ras
from monai_cadp.data.silence import Refusal

__all__ = ["decode_nifti"]

# By the lowest three bits of xyzt_units; files that state none are in millimetres.
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
# Share of a voxel by which the two forms of a header may differ at a corner of the volume.
FORM_TOLERANCE = 0.1


def decode_nifti(path: Path, spatial_dims: int) -> DecodedImage:
    """Decode a NIfTI-1 or NIfTI-2 file.

    Where its voxels lie is what its sform says or, where its code is 0, its qform, in the unit of the header. A file
    with both codes above 0 must mean one place by both, and one with neither says nothing of it.

    Args:
        path: the file.
        spatial_dims: 2 or 3, the number of dimensions that is expected.

    Returns:
        The image; volumes point right, anterior, superior if the file says where they lie.

    References:
        nifti1.h of the NIfTI-1 data format, methods 1 to 3 of its orientation information.
    """
    image: Any = nibabel.load(path)
    if image.dataobj.offset < int(image.header["sizeof_hdr"]):
        raise Refusal(
            "A NIfTI file says that its voxels begin within its header; set its vox_offset to where they do, mostly "
            "352, or 544 for NIfTI-2."
        )
    array = numeric(np.asanyarray(image.dataobj))
    if array.ndim == 5 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    if array.ndim in (3, 4) and spatial_dims == 2 and array.shape[2] == 1:
        array = array[:, :, 0]
    has_channels = array.ndim == spatial_dims + 1 and (spatial_dims == 3 or image.ndim == 4)
    voxels = np.moveaxis(array, -1, 0) if has_channels else array[None]
    if spatial_dims == 2 or voxels.ndim != 4:
        return DecodedImage(voxels)
    affine = _affine(image.header, voxels.shape[1:])
    if affine is None:
        return DecodedImage(voxels)
    voxels, affine = to_ras(voxels, affine, lps=False)
    return DecodedImage(voxels, affine=affine)


def _affine(header: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    unit = int(header["xyzt_units"]) & 7
    if unit not in MILLIMETRES:
        raise Refusal("A NIfTI file has a unit of length that is none; set its xyzt_units to millimetres.")
    (sform, _), (qform, _) = header.get_sform(coded=True), header.get_qform(coded=True)
    affine = qform if sform is None else sform
    if affine is None:
        # Neither form: nibabel would suppose that the first axis points left, and others that it points right.
        return None
    if sform is not None and qform is not None:
        corners = np.array([[*corner, 1.0] for corner in product(*((0, size - 1) for size in shape))])
        apart = np.linalg.norm(corners @ (sform - qform).T, axis=1).max()
        # Not so either where one of them is no number.
        if not apart <= FORM_TOLERANCE * np.linalg.norm(sform[:3, :3], axis=0).min():
            raise Refusal(
                "A NIfTI file's qform and sform place its voxels differently; set the code of the one that does not "
                "hold to 0, as nibabel's set_qform(None) and set_sform(None) do."
            )
    return np.diag([MILLIMETRES[unit]] * 3 + [1.0]) @ affine
