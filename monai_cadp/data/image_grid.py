# SPDX-License-Identifier: Apache-2.0
"""Many small images as one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from monai_cadp.data.masks import split_masks

__all__ = ["image_grid", "outlined_slices", "save_image_grid"]

GAP = 2
SMALLEST_TILE = 64
# Pixels of a voxel whose mask is outlined.
OUTLINED_SIZE = 4
# Red, green and blue of the classes but the background, again and again.
OUTLINE_COLOURS = ((1.0, 0.35, 0.2), (0.2, 0.8, 1.0), (1.0, 0.85, 0.1), (0.5, 1.0, 0.4), (0.9, 0.4, 1.0))


def image_grid(images: Tensor, columns: int) -> np.ndarray:
    r"""Arrange images in rows.

    Args:
        images: (B, C, \*spatial) with intensities 0 to 1; of a volume the three central slices are shown side by
            side, and of several channels that are not red, green and blue the first.
        columns: number of images in a row.

    Returns:
        Pixels (height, width, 3), uint8.

    Raises:
        ValueError: if there is no image, or images have no pixels to show.

    Example:
        >>> image_grid(torch.rand(6, 1, 8, 8), columns=3).shape
        (134, 200, 3)
    """
    if len(images) == 0 or images.ndim not in (4, 5) or columns < 1:
        raise ValueError(
            f"The grid got images of shape {tuple(images.shape)}; expected (B, C, H, W) or (B, C, D, H, W)."
        )
    if images.ndim == 5:
        images = _central_slices(images)
    images = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    scale = -(-SMALLEST_TILE // min(images.shape[2:]))
    images = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    pixels = (torch.nan_to_num(images).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    height, width = pixels.shape[1] + GAP, pixels.shape[2] + GAP
    rows = -(-len(pixels) // columns)
    sheet = np.full((rows * height + GAP, columns * width + GAP, 3), 255, dtype=np.uint8)
    for index, tile in enumerate(pixels):
        top, left = GAP + index // columns * height, GAP + index % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def save_image_grid(images: Tensor, path: str | Path, columns: int) -> None:
    """Write :func:`image_grid` as a PNG file without metadata, making its folder if need be."""
    sheet = image_grid(images, columns)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)


def outlined_slices(joined: Tensor, num_mask_classes: int) -> Tensor:
    """Draw the three central slices of volumes side by side, with the outlines of their masks.

    Args:
        joined: volumes (B, C, D, H, W) whose last channels hold their masks; see ``join_masks``.
        num_mask_classes: with the background.

    Returns:
        Red, green and blue (B, 3, height, width), 0 to 1; a voxel has 4 x 4 pixels.

    Example:
        >>> outlined_slices(torch.rand(2, 3, 4, 6, 5), num_mask_classes=3).shape
        torch.Size([2, 3, 24, 56])
    """
    images, masks = split_masks(joined, num_mask_classes)
    slices, classes = (_central_slices(part.float()) for part in (images[:, :1], masks))
    slices, classes = (
        part.repeat_interleave(OUTLINED_SIZE, 2).repeat_interleave(OUTLINED_SIZE, 3) for part in (slices, classes)
    )
    edge = torch.zeros_like(classes, dtype=torch.bool)
    for axis in (2, 3):
        edge |= (classes != classes.roll(1, axis)) | (classes != classes.roll(-1, axis))
    colours = [OUTLINE_COLOURS[index % len(OUTLINE_COLOURS)] for index in range(num_mask_classes - 1)]
    painted = torch.tensor([(0.0, 0.0, 0.0), *colours])[classes[:, 0].long()].movedim(-1, 1)
    return torch.where(edge & (classes > 0), painted, slices.clamp(0, 1).expand(-1, 3, -1, -1))


def _central_slices(volumes: Tensor) -> Tensor:
    """Axial, coronal and sagittal central slices of volumes that point right, anterior, superior; those are up."""
    width, depth, height = volumes.shape[2:]
    slices = [volumes[..., height // 2], volumes[:, :, :, depth // 2], volumes[:, :, width // 2]]
    slices = [piece.transpose(2, 3).flip(2) for piece in slices]
    tallest = max(piece.shape[2] for piece in slices)
    return torch.cat([torch.nn.functional.pad(piece, (0, 0, 0, tallest - piece.shape[2])) for piece in slices], dim=3)
