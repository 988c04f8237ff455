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
# Share of an image that its mask covers at least, and of its labelled voxels that lie within an image unless it covers
# nearly all of it.
LEAST_COVERED, LEAST_WITHIN, NEARLY_ALL = 0.25, 0.5, 0.9
# Share of a mask by which the middle of an image of the same size may be off the mask's; a crop has another size.
FARTHEST_MIDDLE = 0.25
# Of a crop, by how much a step of its voxels may differ from one of its image's.
STEP_TOLERANCE = 0.01
# Places along an axis, and labelled voxels, that are looked at.
PLACES, LABELLED = 24, 100_000


class ReadLabelledVolume:
    r"""Read an image and its mask as tensors (1, \*grid.spatial_shape): float32 in [0, 1], and int64 classes.

    Both are resampled to the public grid by their affines, whatever they say of orientation, spacing or shear: the
    image linearly, averaged before where the grid is coarser, the mask by its nearest voxel. The middle voxel of the
    image becomes the middle voxel of the grid, so that a volume of the grid's own spacing and axes is only cropped or
    padded, with what stands at its border; masks are padded with background. A mask may have a grid of its own, over a
    quarter of its image or more, and around its middle if it has as many voxels: else its header is that of something
    else. A crop of the image's own voxels, and a DICOM segmentation, which leaves out empty frames, may cover less. Of
    an image that is a crop of the mask, the mask may hold no label.

    Intensities have a public range, as in computed tomography, or no unit, as in magnetic resonance: then two
    percentiles of what lies on the grid become 0.1 and 0.8. Percentiles look at this one volume alone: that happens
    before the mechanism, which bounds what any change of the volume can do. What a file says to be bright where its
    values are small is turned over.

    Args:
        grid: the public grid.
        num_mask_classes: with the background.
        intensity_range: the values (low, high) of the file that become 0 and 1; None for percentiles.
        percentiles: see above.

    Raises:
        ValueError: if a parameter is out of range; when called, if a file is missing, damaged, of an unknown format, no
            single gray volume, is the same everywhere, says nothing of where its voxels lie, holds another class, or
            does not lie where the other one does. Errors never hold a path or a name.

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
        _check_place(classes, image.voxels.shape[1:], np.linalg.inv(image_affine) @ mask_affine, mask.is_segmentation)
        to_mask = np.linalg.inv(mask_affine) @ affine
        classes = affine_transform(
            classes, to_mask[:3, :3], to_mask[:3, 3], shape, order=0, mode="constant", prefilter=False
        )
        return (
            torch.from_numpy(self._scaled(on_grid, image.is_inverted).astype(np.float32))[None],
            torch.from_numpy(classes.astype(np.int64))[None],
        )

    def _scaled(self, voxels: np.ndarray, is_inverted: bool) -> np.ndarray:
        if self.intensity_range is not None:
            # Of inverted files the voxels are the negative values.
            low, high = sorted(-value if is_inverted else value for value in self.intensity_range)
            scaled = ((voxels - low) / (high - low)).clip(0, 1)
            if not scaled.min() < scaled.max():
                raise Refusal(
                    "A volume is the same everywhere within intensity_range; expected an image, and the range in the "
                    "units of its file."
                )
            return scaled
        low, high = np.percentile(voxels, self.percentiles)
        if not low < high:
            raise Refusal("A volume is the same nearly everywhere; expected an image.")
        return (DARK + (BRIGHT - DARK) * (voxels - low) / (high - low)).clip(0, 1)


def _check_place(classes: np.ndarray, shape: tuple[int, ...], to_image: np.ndarray, is_segmentation: bool) -> None:
    """Refuse a mask that hardly covers its image and is no crop of it, or whose labels lie outside.

    Args:
        classes: of the mask (a, b, c).
        shape: of the image.
        to_image: affine from indices of the mask to those of the image (4, 4).
        is_segmentation: whether frames without a label may be left out.
    """
    to_mask = np.linalg.inv(to_image)
    places = (np.indices((PLACES,) * 3).reshape(3, -1).T + 0.5) / PLACES * shape - 0.5
    covered = _share_within(places, to_mask, classes.shape)
    labelled = np.flatnonzero(classes)
    labelled = np.stack(np.unravel_index(labelled[:: 1 + len(labelled) // LABELLED], classes.shape), axis=-1)
    within = _share_within(labelled, to_image, shape) if len(labelled) else 1.0
    middle = (_moved(to_mask, (np.array(shape) - 1) / 2) + 0.5) / classes.shape - 0.5
    may_be_small = is_segmentation or _is_crop(classes.shape, to_image, shape)
    # The mask of a whole body may belong to a part of it, and hold all of its labels beyond.
    if (
        (covered < NEARLY_ALL and within < LEAST_WITHIN)
        or (covered < LEAST_COVERED and not may_be_small)
        or (sorted(classes.shape) == sorted(shape) and np.abs(middle).max() > FARTHEST_MIDDLE)
    ):
        raise Refusal(
            "A mask does not lie where its image does, or covers a small part of it alone; expected both over one "
            "field of view: correct the header that is wrong, or pad the mask with background."
        )


def _is_crop(part: tuple[int, ...], to_image: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Tell whether a volume of the shape ``part`` has the voxels of an image, in any order of axes, and lies within."""
    corners = np.indices((2,) * 3).reshape(3, -1).T * (np.array(part) - 1)
    steps = np.abs(to_image[:3, :3])
    is_same = np.abs(steps - steps.round()).max() < STEP_TOLERANCE and (steps.round().sum(0) == 1).all()
    return bool(is_same) and _share_within(corners, to_image, shape) == 1


def _share_within(indices: np.ndarray, affine: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the share of indices (n, 3) that an affine takes into the voxels of a volume."""
    places = _moved(affine, indices.T)
    return float(((places >= -0.5) & (places <= np.array(shape) - 0.5)).all(1).mean())


def _moved(affine: np.ndarray, index: np.ndarray) -> np.ndarray:
    return (affine[:3, :3] @ index).T + affine[:3, 3]
