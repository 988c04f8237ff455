# SPDX-License-Identifier: Apache-2.0
"""From a volume and its mask, of any orientation, spacing and size, to a public grid."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from monai_cadp.data.decoded_image import DecodedImage
from monai_cadp.data.decoding import decode_image
from monai_cadp.data.public_grid import PublicGrid
from monai_cadp.data.resampling import bright_voxels, resampled, usable_affine
from monai_cadp.data.silence import Refusal, read_silently

__all__ = ["ReadLabelledVolume"]

# What the two percentiles become: what lies beyond them is not clipped at once.
DARK, BRIGHT = 0.1, 0.8


class ReadLabelledVolume:
    r"""Read an image and its mask as tensors (1, \*grid.spatial_shape): float32 in [0, 1], and int64 classes.

    Both are resampled to the public grid by their affines, whatever they say of orientation, spacing or shear: the
    image linearly, averaged before where the grid is coarser, the mask by its nearest voxel. The middle voxel of the
    image becomes the middle voxel of the grid, so that a volume of the grid's own spacing and axes is only cropped or
    padded, with what stands at its border; masks are padded with background.

    Intensities have a public range, as in computed tomography, or no unit, as in magnetic resonance: then two
    percentiles of what lies on the grid become 0.1 and 0.8. Percentiles look at this one volume alone: that happens
    before the mechanism, which bounds what any change of the volume can do.

    Args:
        grid: the public grid.
        num_mask_classes: with the background.
        intensity_range: the values (low, high) that become 0 and 1; None for percentiles.
        percentiles: see above.

    Raises:
        ValueError: if a parameter is out of range; when called, if a file is missing, damaged, of an unknown format, no
            single gray volume, says nothing of where its voxels lie, holds another class, or does not lie where the
            other one does. Errors never hold a path or a name.

    Example:
        >>> import tempfile, nibabel
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, voxels in (("image", np.random.rand(9, 9, 9)), ("mask", np.ones((9, 9, 9)))):
        ...         nibabel.save(nibabel.Nifti1Image(voxels.astype("float32"), np.eye(4)), f"{folder}/{name}.nii.gz")
        ...     read = ReadLabelledVolume(PublicGrid((4, 6, 4), spacing=1.0), num_mask_classes=3)
        ...     image, mask = read(f"{folder}/image.nii.gz", f"{folder}/mask.nii.gz")
        >>> image.shape, mask.unique().tolist()
        (torch.Size([1, 4, 6, 4]), [1])
    """

    def __init__(
        self,
        grid: PublicGrid,
        num_mask_classes: int,
        intensity_range: Sequence[float] | None = None,
        percentiles: Sequence[float] = (1.0, 99.0),
    ) -> None:
        if num_mask_classes < 2:
            raise ValueError(f"num_mask_classes is {num_mask_classes}; expected two or more, with the background.")
        for name, pair in (("intensity_range", intensity_range), ("percentiles", percentiles)):
            if pair is not None and not (len(pair) == 2 and -np.inf < pair[0] < pair[1] < np.inf):
                raise ValueError(f"{name} is {tuple(pair)}; expected two finite numbers (low, high) with low < high.")
        if not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ValueError(f"percentiles are {tuple(percentiles)}; expected numbers from 0 to 100.")
        self.grid, self.num_mask_classes = grid, num_mask_classes
        self.intensity_range, self.percentiles = intensity_range, percentiles

    def __call__(self, image: str | os.PathLike[str], mask: str | os.PathLike[str]) -> tuple[Tensor, Tensor]:
        """Read the files, or the folders of DICOM series, at these paths."""
        decoded = [decode_image(path, 3) for path in (image, mask)]
        return read_silently(
            lambda: self._on_grid(*decoded), "A volume could not be brought to the grid; check where its voxels lie."
        )

    def _on_grid(self, image: DecodedImage, mask: DecodedImage) -> tuple[Tensor, Tensor]:
        # Here, because it takes long.
        from scipy.ndimage import affine_transform

        image_affine, mask_affine = (usable_affine(one) for one in (image, mask))
        shape = tuple(self.grid.spatial_shape)
        affine = np.diag([self.grid.spacing] * 3 + [1.0])
        middle = (np.array(image.voxels.shape[1:]) - 1) // 2
        affine[:3, 3] = _moved(image_affine, middle) - self.grid.spacing * ((np.array(shape) - 1) // 2)
        on_grid = resampled(bright_voxels(image), image_affine, affine, shape, outside=None)
        classes = mask.voxels[0]
        if not np.isin(classes, np.arange(self.num_mask_classes)).all():
            raise Refusal(
                f"A mask holds something else than the classes 0 to {self.num_mask_classes - 1}; expected these, as "
                "num_mask_classes says."
            )
        place = _moved(np.linalg.inv(mask_affine), _moved(image_affine, middle))
        if not ((place > -1) & (place < np.array(classes.shape))).all():
            raise Refusal("A mask does not lie where its image does; expected both in one space.")
        to_mask = np.linalg.inv(mask_affine) @ affine
        classes = affine_transform(
            classes, to_mask[:3, :3], to_mask[:3, 3], shape, order=0, mode="constant", prefilter=False
        )
        return (
            torch.from_numpy(self._scaled(on_grid).astype(np.float32))[None],
            torch.from_numpy(classes.astype(np.int64))[None],
        )

    def _scaled(self, voxels: np.ndarray) -> np.ndarray:
        if self.intensity_range is not None:
            low, high = self.intensity_range
            return ((voxels - low) / (high - low)).clip(0, 1)
        low, high = np.percentile(voxels, self.percentiles)
        if not low < high:
            raise Refusal("A volume is the same nearly everywhere; expected an image.")
        return (DARK + (BRIGHT - DARK) * (voxels - low) / (high - low)).clip(0, 1)


def _moved(affine: np.ndarray, index: np.ndarray) -> np.ndarray:
    return affine[:3, :3] @ index + affine[:3, 3]
