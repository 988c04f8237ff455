# SPDX-License-Identifier: Apache-2.0
"""A grid of voxels that is the same for everybody, and therefore tells nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["PublicGrid"]


@dataclass(frozen=True)
class PublicGrid:
    """Voxels along the axes right, anterior, superior.

    Args:
        spatial_shape: three numbers of voxels.
        spacing: of the voxels in every direction, in millimetres.
        centre: of the grid, in millimetres of a public space.

    Raises:
        ValueError: if there are not three positive sizes, or the spacing is not positive.

    Example:
        >>> PublicGrid((48, 60, 48), spacing=3.0).affine[:3, 3]
        array([-70.5, -88.5, -70.5])
    """

    spatial_shape: Sequence[int]
    spacing: float
    centre: Sequence[float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if len(self.spatial_shape) != 3 or min(self.spatial_shape) < 1 or not self.spacing > 0:
            raise ValueError(
                f"A grid was asked for with the sizes {tuple(self.spatial_shape)} and the spacing {self.spacing}; "
                "expected three positive sizes and a positive spacing in millimetres."
            )
        if len(self.centre) != 3:
            raise ValueError(f"A grid was asked for with {len(self.centre)} coordinates of its centre; expected three.")

    @property
    def affine(self) -> np.ndarray:
        """The matrix (4, 4) from indices of voxels to millimetres."""
        affine = np.diag([self.spacing, self.spacing, self.spacing, 1.0])
        affine[:3, 3] = np.array(self.centre) - self.spacing * (np.array(self.spatial_shape) - 1) / 2
        return affine
