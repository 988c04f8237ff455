# SPDX-License-Identifier: Apache-2.0
"""From the voxels of one volume to those of a grid, by where both lie: shear, spacing and direction included."""

from __future__ import annotations

import numpy as np

from monai_cadp.data.decoded_image import DecodedImage
from monai_cadp.data.silence import Refusal

__all__ = ["bright_voxels", "resampled", "usable_affine"]

# Millimetres; beyond them a header has another unit than it says.
SMALLEST_SPACING, LARGEST_SPACING = 0.01, 100.0
# Standard deviation, in voxels, of what a voxel averages over.
VOXEL_WIDTH = 0.42


def usable_affine(decoded: DecodedImage) -> np.ndarray:
    """Return the affine of one volume; raises :class:`Refusal` if it says nothing, or nothing plausible, of its place.

    Args:
        decoded: of one channel.
    """
    if len(decoded.voxels) != 1:
        raise Refusal(
            f"A volume has {len(decoded.voxels)} channels or times; expected one: give the one that is meant in a file "
            "of its own."
        )
    affine = decoded.affine
    if affine is None:
        raise Refusal(
            "A volume does not say where its voxels lie; expected a NIfTI file whose sform_code or qform_code is not "
            "0, a MetaImage file with TransformMatrix and ElementSpacing, an NRRD file with a space and its "
            "directions, or the slices of a DICOM series."
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() < SMALLEST_SPACING or spacing.max() > LARGEST_SPACING:
        raise Refusal(
            f"A volume has no usable geometry; expected voxels of {SMALLEST_SPACING} to {LARGEST_SPACING:g} "
            "millimetres: state the unit in the header where it is another one."
        )
    return affine


def bright_voxels(decoded: DecodedImage) -> np.ndarray:
    """Return the voxels (a, b, c) of a volume, float32, large where bright; what is no number becomes the darkest.

    Args:
        decoded: of one channel.
    """
    if decoded.is_segmentation:
        raise Refusal("A DICOM file is a segmentation; expected the image that it belongs to.")
    voxels = -decoded.voxels[0] if decoded.is_inverted else decoded.voxels[0]
    finite = np.isfinite(voxels)
    return voxels if finite.all() else np.where(finite, voxels, voxels[finite].min())


def resampled(
    voxels: np.ndarray, affine: np.ndarray, grid_affine: np.ndarray, shape: tuple[int, ...], outside: float | None
) -> np.ndarray:
    """Interpolate a volume linearly at the places of a grid, averaged before where the grid is coarser.

    Args:
        voxels: (a, b, c), float32.
        affine: from its indices to millimetres (4, 4), with any shear.
        grid_affine: that of the grid.
        shape: of the grid.
        outside: value beyond the volume; None for that of its border.

    Returns:
        The values on the grid, float32.

    Example:
        >>> voxels = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
        >>> resampled(voxels, np.eye(4), np.eye(4), (1, 1, 2), outside=0.0).tolist()
        [[[0.0, 1.0]]]
    """
    # Here, because it takes long.
    from scipy.ndimage import affine_transform, gaussian_filter

    coarser = np.linalg.norm(grid_affine[:3, :3], axis=0).max() / np.linalg.norm(affine[:3, :3], axis=0)
    width = VOXEL_WIDTH * np.sqrt(np.maximum(coarser**2 - 1, 0))
    if width.max() > 0:
        voxels = gaussian_filter(voxels, width, mode="nearest")
    to_voxels = np.linalg.inv(affine) @ grid_affine
    return affine_transform(
        voxels,
        to_voxels[:3, :3],
        to_voxels[:3, 3],
        tuple(shape),
        order=1,
        mode="nearest" if outside is None else "constant",
        cval=0.0 if outside is None else outside,
        prefilter=False,
    )
