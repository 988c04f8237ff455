# SPDX-License-Identifier: Apache-2.0
"""Volumes as images of SimpleITK, and their samples on a grid of cubes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["sample_on_grid", "volume_image"]


def volume_image(voxels: np.ndarray, affine: np.ndarray) -> Any:
    """Return a volume as an image of SimpleITK, in millimetres to the right, anterior, superior.

    Args:
        voxels: the volume (X, Y, Z); its values become float32.
        affine: from indices to millimetres (4, 4); what shears in it is left out.

    Example:
        >>> volume_image(np.zeros((4, 5, 6)), np.diag([2.0, 1.0, 1.0, 1.0])).GetSpacing()
        (2.0, 1.0, 1.0)
    """
    # Here, because it takes long, and images in two dimensions do not need it.
    import SimpleITK

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # The axes are named as they come: SimpleITK need not know that they point right and anterior.
    image = SimpleITK.GetImageFromArray(voxels.transpose(2, 1, 0).astype(np.float32))
    image.SetSpacing(spacing.tolist())
    image.SetDirection(_nearest_rotation(affine[:3, :3] / spacing).flatten().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def sample_on_grid(
    image: Any, shape: Sequence[int], spacing: float, origin: Sequence[float] | np.ndarray, transform: Any = None
) -> np.ndarray:
    """Average an image over the width of a voxel of the grid, where it is finer, and interpolate it there.

    Args:
        image: of SimpleITK.
        shape: of the grid (X, Y, Z).
        spacing: of the grid, in millimetres.
        origin: its first voxel, in millimetres.
        transform: of SimpleITK, from places of the grid to those of the image; None where they are the same.

    Returns:
        The samples (X, Y, Z), with 0 outside the image.

    Example:
        >>> image = volume_image(np.ones((8, 8, 8)), np.eye(4))
        >>> sample_on_grid(image, (2, 2, 2), 2.0, [1.0, 1.0, 1.0]).round(3).max()
        np.float32(1.0)
    """
    import SimpleITK

    width = np.sqrt(np.maximum((0.42 * spacing) ** 2 - (0.42 * np.array(image.GetSpacing())) ** 2, 0))
    if width.max() > 0:
        image = SimpleITK.SmoothingRecursiveGaussian(image, np.maximum(width, 1e-3).tolist())
    sampled = SimpleITK.Resample(
        image,
        [int(size) for size in shape],
        SimpleITK.Transform(3, SimpleITK.sitkIdentity) if transform is None else transform,
        SimpleITK.sitkLinear,
        [float(place) for place in origin],
        [spacing] * 3,
        np.eye(3).flatten().tolist(),
        0.0,
    )
    return np.ascontiguousarray(SimpleITK.GetArrayFromImage(sampled).transpose(2, 1, 0))


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(matrix)
    return left @ right
