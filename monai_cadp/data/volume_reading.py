# SPDX-License-Identifier: Apache-2.0
"""From a scan of any orientation, spacing and size to a public grid."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from monai.transforms import Transform
from torch import Tensor

from monai_cadp.data.decoded_image import DecodedImage
from monai_cadp.data.decoding import decode_image
from monai_cadp.data.image_grid import image_grid
from monai_cadp.data.public_grid import PublicGrid
from monai_cadp.data.silence import Refusal, read_silently, silenced_descriptors
from monai_cadp.data.volume_sampling import sample_on_grid, volume_image

__all__ = ["ReadVolume", "brightened", "foreground", "readable_volume"]

# A voxel belongs to the head if it is brighter than this share of the bright ones.
FOREGROUND = 0.15
BRIGHT_PERCENTILE = 99.0
# Along an axis; smoothing needs them.
FEWEST_VOXELS = 4
# On which its curator sees a scan.
PICTURED = PublicGrid((128, 128, 128), spacing=2.0)


class ReadVolume(Transform):
    r"""Read one scan as a float32 tensor (1, \*grid.spatial_shape) with values in [0, 1].

    The scan is turned, moved so that its centre of mass lies where it should, resampled to the spacing of the grid, and
    cropped or padded with its darkest value to its size. Units of magnetic resonance mean nothing, so that the 99th
    percentile of what is not background becomes ``bright``. All of it looks at this one scan alone: it happens before
    the mechanism, which bounds what any change of the scan can do, and nothing of it comes out: a plain tensor, no
    meta.

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
        voxels, affine = readable_volume(decoded)
        head = foreground(voxels)
        voxels = brightened(voxels, head, self.bright)
        mass = affine[:3, :3] @ np.argwhere(head).mean(0) + affine[:3, 3]
        origin = mass - self.mass_centre - self.grid.spacing * (np.array(self.grid.spatial_shape) - 1) / 2
        with silenced_descriptors():
            image = volume_image(voxels, affine)
            sampled = sample_on_grid(image, self.grid.spatial_shape, self.grid.spacing, origin)
        return torch.from_numpy(sampled.clip(0, 1))[None]


def readable_volume(decoded: DecodedImage) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels of a decoded scan, 0 or more and bright where it is, and their affine.

    Args:
        decoded: the scan.

    Returns:
        The voxels (X, Y, Z), float64, and the matrix (4, 4) from their indices to millimetres.

    Raises:
        Refusal: if it is no single gray volume, or says nothing usable of where its voxels lie.
    """
    if len(decoded.voxels) != 1:
        raise Refusal(f"A scan has {len(decoded.voxels)} channels or times; expected one volume.")
    if decoded.affine is None:
        raise Refusal("A scan does not say where its voxels lie; give a NIfTI file, or the folder of a DICOM series.")
    voxels = np.nan_to_num(decoded.voxels[0].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    voxels = -voxels if decoded.is_inverted else voxels
    spacing = np.linalg.norm(decoded.affine[:3, :3], axis=0)
    if not np.isfinite(decoded.affine).all() or spacing.min() < 1e-3 or min(voxels.shape) < FEWEST_VOXELS:
        raise Refusal("A scan has no usable geometry; expected three axes of 4 voxels or more, in millimetres.")
    return voxels - voxels.min(), decoded.affine


def foreground(voxels: np.ndarray) -> np.ndarray:
    """Return which voxels (X, Y, Z) are not background, bool; raises :class:`Refusal` if none is."""
    found = voxels > FOREGROUND * np.percentile(voxels, 99.9)
    if not found.any():
        raise Refusal("A scan is the same everywhere; expected a head.")
    return found


def brightened(voxels: np.ndarray, where: np.ndarray, bright: float) -> np.ndarray:
    """Scale voxels so that the 99th percentile of some of them becomes ``bright``, and clip all to 0 to 1."""
    return (voxels * (bright / np.percentile(voxels[where], BRIGHT_PERCENTILE))).clip(0, 1)
