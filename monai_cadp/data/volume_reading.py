# SPDX-License-Identifier: Apache-2.0
"""From a scan of any orientation, spacing and size to a public grid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.transforms import Transform
from torch import Tensor

from monai_cadp.data.decoded_image import DecodedImage
from monai_cadp.data.decoding import decode_image
from monai_cadp.data.image_grid import image_grid
from monai_cadp.data.public_grid import PublicGrid
from monai_cadp.data.resampling import bright_voxels, resampled, usable_affine
from monai_cadp.data.silence import Refusal, read_silently

__all__ = ["ReadVolume", "Scan", "scan_of"]

# A voxel belongs to the head if it is brighter than this share of the bright ones.
FOREGROUND = 0.15
BRIGHT_PERCENTILE = 99.0
# Along an axis: fewer are a picture.
FEWEST_VOXELS = 4
# On which its curator sees a scan.
PICTURED = PublicGrid((128, 128, 128), spacing=2.0)


class ReadVolume(Transform):
    r"""Read one scan as a float32 tensor (1, \*grid.spatial_shape) with values in [0, 1].

    The scan is resampled by its affine, shear included, so that its centre of mass lies where it should, and cropped or
    padded with its darkest value to the size of the grid. Surroundings of one value, as of a scan that was standardised
    within a mask, count as darkest. Units of magnetic resonance mean nothing, so that the 99th percentile of what is
    not background becomes ``bright``. All of it looks at this one scan alone: it happens before the mechanism, which
    bounds what any change of the scan can do, and nothing of it comes out: a plain tensor, no meta.

    Args:
        grid: the public grid.
        mass_centre: where the centre of mass goes, in millimetres from the middle of the grid.
        bright: what the 99th percentile of the head becomes.

    Raises:
        ValueError: when called, if the file is missing, damaged, of an unknown format, no single gray volume, or says
            nothing of where its voxels lie. Errors never hold a path or a name.

    Example:
        >>> import tempfile, nibabel
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scan = np.random.rand(20, 30, 25).astype(np.float32)
        ...     nibabel.save(nibabel.Nifti1Image(scan, np.diag([-2.0, 2.0, 2.0, 1.0])), f"{folder}/scan.nii.gz")
        ...     ReadVolume(PublicGrid((8, 10, 8), spacing=6.0))(f"{folder}/scan.nii.gz").shape
        torch.Size([1, 8, 10, 8])
    """

    def __init__(self, grid: PublicGrid, mass_centre: Sequence[float] = (0.0, 0.0, 0.0), bright: float = 0.85) -> None:
        if len(mass_centre) != 3:
            raise ValueError(f"mass_centre has {len(mass_centre)} coordinates; expected three, in millimetres.")
        if not 0 < bright <= 1:
            raise ValueError(f"bright is {bright}; expected a number above 0, at most 1.")
        self.grid, self.mass_centre, self.bright = grid, np.array(mass_centre, dtype=float), bright

    def __call__(self, path: str | os.PathLike[str]) -> Tensor:
        r"""Read the file, or the folder of a DICOM series, at ``path``."""
        decoded = decode_image(path, 3)
        return read_silently(
            lambda: self._on_grid(decoded), "A scan could not be brought to the grid; check where its voxels lie."
        )

    def picture(self, path: str | os.PathLike[str]) -> np.ndarray | None:
        """Return three central slices of a scan as pixels (height, width, 3), uint8, for its curator only.

        Args:
            path: the file, or the folder of a DICOM series.

        Returns:
            The pixels; None where the scan cannot be read at all.
        """
        try:
            return image_grid(ReadVolume(PICTURED)(path)[None], columns=1)
        except ValueError:
            return None

    def _on_grid(self, decoded: DecodedImage) -> Tensor:
        scan = scan_of(decoded)
        centre = (scan.mass_centre - self.mass_centre).tolist()
        affine = PublicGrid(self.grid.spatial_shape, self.grid.spacing, centre).affine
        on_grid = resampled(
            scan.brightened(self.bright), scan.affine, affine, tuple(self.grid.spatial_shape), outside=0.0
        )
        return torch.from_numpy(np.ascontiguousarray(on_grid).clip(0, 1))[None]


@dataclass(frozen=True)
class Scan:
    """One scan on its own voxels.

    Args:
        voxels: float32 array (X, Y, Z), 0 or more, bright where the scan is.
        head: which voxels are not background, bool.
        affine: from indices to millimetres right, anterior, superior (4, 4).
    """

    voxels: np.ndarray
    head: np.ndarray
    affine: np.ndarray

    @property
    def mass_centre(self) -> np.ndarray:
        """Where the middle of what is not background lies, in millimetres."""
        return self.affine[:3, :3] @ np.argwhere(self.head).mean(0) + self.affine[:3, 3]

    def brightened(self, bright: float) -> np.ndarray:
        """Return the voxels, 0 to 1, the 99th percentile of what is not background being ``bright``."""
        scale = np.float32(bright / np.percentile(self.voxels[self.head], BRIGHT_PERCENTILE))
        return (self.voxels * scale).clip(0, 1)


def scan_of(decoded: DecodedImage) -> Scan:
    """Tell a decoded scan from its background; raises :class:`Refusal` if it is no volume, or is nowhere."""
    affine = usable_affine(decoded)
    voxels = bright_voxels(decoded)
    if min(voxels.shape) < FEWEST_VOXELS:
        raise Refusal("A scan has no usable geometry; expected three axes of 4 voxels or more.")
    outside = _outside_of_a_mask(voxels)
    voxels = np.where(outside, 0, voxels - voxels.min())
    head = ~outside if outside.any() else voxels > FOREGROUND * np.percentile(voxels, 99.9)
    if not voxels.any():
        raise Refusal("A scan is the same everywhere; expected a head.")
    return Scan(voxels, head, affine)


def _outside_of_a_mask(voxels: np.ndarray) -> np.ndarray:
    """Return which voxels have the one value of a scan's surroundings, where some voxels are darker than that.

    Such is a scan that was standardised within a mask: it is 0 outside, and brighter there than in half of the head.
    """
    faces = np.concatenate([voxels.take((0, -1), axis).ravel() for axis in range(3)])
    values, counts = np.unique(faces, return_counts=True)
    surroundings = values[counts.argmax()]
    if 2 * counts.max() <= len(faces) or surroundings == voxels.min():
        return np.zeros(voxels.shape, dtype=bool)
    return voxels == surroundings
