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
from monai_cadp.data.public_grid import PublicGrid
from monai_cadp.data.silence import Refusal, read_silently, silenced_descriptors

__all__ = ["ReadVolume"]

# A voxel belongs to the head if it is brighter than this share of the bright ones.
FOREGROUND = 0.15
BRIGHT_PERCENTILE = 99.0
# Along an axis; smoothing needs them.
FEWEST_VOXELS = 4


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

    def _on_grid(self, decoded: DecodedImage) -> Tensor:
        if len(decoded.voxels) != 1:
            raise Refusal(f"A scan has {len(decoded.voxels)} channels or times; expected one volume.")
        if decoded.affine is None:
            raise Refusal(
                "A scan does not say where its voxels lie; give a NIfTI file, or the folder of a DICOM series."
            )
        voxels = np.nan_to_num(decoded.voxels[0].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        voxels = -voxels if decoded.is_inverted else voxels
        spacing = np.linalg.norm(decoded.affine[:3, :3], axis=0)
        if not np.isfinite(decoded.affine).all() or spacing.min() < 1e-3 or min(voxels.shape) < FEWEST_VOXELS:
            raise Refusal("A scan has no usable geometry; expected three axes of 4 voxels or more, in millimetres.")
        voxels = voxels - voxels.min()
        head = voxels > FOREGROUND * np.percentile(voxels, 99.9)
        if not head.any():
            raise Refusal("A scan is the same everywhere; expected a head.")
        voxels = (voxels * (self.bright / np.percentile(voxels[head], BRIGHT_PERCENTILE))).clip(0, 1)
        mass = decoded.affine[:3, :3] @ np.argwhere(head).mean(0) + decoded.affine[:3, 3]
        with silenced_descriptors():
            return torch.from_numpy(self._resampled(voxels, decoded.affine, spacing, mass))[None]

    def _resampled(self, voxels: np.ndarray, affine: np.ndarray, spacing: np.ndarray, mass: np.ndarray) -> np.ndarray:
        # Here, because it takes long, and images in two dimensions do not need it.
        import SimpleITK

        # The axes of both images are named as they come: SimpleITK need not know that they point right and anterior.
        image = SimpleITK.GetImageFromArray(voxels.transpose(2, 1, 0).astype(np.float32))
        image.SetSpacing(spacing.tolist())
        image.SetDirection(_nearest_rotation(affine[:3, :3] / spacing).flatten().tolist())
        image.SetOrigin(affine[:3, 3].tolist())
        # Averaged before it is sampled more coarsely: the width of a voxel of the grid.
        width = np.sqrt(np.maximum((0.42 * self.grid.spacing) ** 2 - (0.42 * spacing) ** 2, 0))
        if width.max() > 0:
            image = SimpleITK.SmoothingRecursiveGaussian(image, np.maximum(width, 1e-3).tolist())
        shape = np.array(self.grid.spatial_shape)
        origin = mass - self.mass_centre - self.grid.spacing * (shape - 1) / 2
        resampled = SimpleITK.Resample(
            image,
            shape.tolist(),
            SimpleITK.Transform(3, SimpleITK.sitkIdentity),
            SimpleITK.sitkLinear,
            origin.tolist(),
            [self.grid.spacing] * 3,
            np.eye(3).flatten().tolist(),
            0.0,
        )
        return np.ascontiguousarray(SimpleITK.GetArrayFromImage(resampled).transpose(2, 1, 0)).clip(0, 1)


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(matrix)
    return left @ right
