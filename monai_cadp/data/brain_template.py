# SPDX-License-Identifier: Apache-2.0
"""The average brain of the Montreal Neurological Institute, on any grid in its own space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from nibabel import Nifti1Image

__all__ = ["BRAIN_CENTRE", "BrainTemplate", "brain_template", "brain_template_file", "interpolate", "millimetres"]

# The middle of the brain in millimetres of the template's space (right, anterior, superior).
BRAIN_CENTRE = (0.0, -17.0, 5.0)
RESOLUTION = 2
# Fluid deep inside the brain is that of the ventricles; at the surface it lies between the folds.
VENTRICLE_BOX = ((-30.0, 30.0), (-58.0, 38.0), (-12.0, 34.0))


@dataclass(frozen=True)
class BrainTemplate:
    """T1 intensities and tissue shares, each (1, X, Y, Z), with 0 to 1 in every voxel.

    Args:
        t1: intensities of the average brain, without the skull.
        gray: share of gray matter.
        white: share of white matter.
        ventricles: share of the fluid in the ventricles.
    """

    t1: Tensor
    gray: Tensor
    white: Tensor
    ventricles: Tensor


@lru_cache(maxsize=4)
def brain_template(spatial_shape: tuple[int, int, int], spacing: float) -> BrainTemplate:
    """Load the template on a grid around the middle of the brain.

    Args:
        spatial_shape: voxels from left to right, back to front and bottom to top.
        spacing: of the voxels, in millimetres.

    Returns:
        The template.

    References:
        Fonov, Evans, McKinstry, Almli, Collins: Unbiased nonlinear average age-appropriate brain templates from birth
        to adulthood, NeuroImage 47, 2009. Copyright 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal
        Neurological Institute, McGill University.

    Example:
        >>> brain_template((24, 30, 24), spacing=6.8).t1.shape
        torch.Size([1, 24, 30, 24])
    """
    # Here, because it takes long, and releases do not need it.
    from nilearn import datasets

    t1, gray, white = (
        _on_grid(load(resolution=RESOLUTION), spatial_shape, spacing)
        for load in (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    t1 = t1 / t1.max()
    coordinates = millimetres(spatial_shape, spacing)
    inside = torch.ones_like(t1, dtype=torch.bool)
    for axis, (low, high) in enumerate(VENTRICLE_BOX):
        inside &= ((coordinates[axis] > low) & (coordinates[axis] < high))[None]
    fluid = (1 - gray - white).clamp(0, 1) * (t1 > 0.05)
    ventricles = torch.where(inside & (t1 < 0.55), fluid, torch.zeros(()))
    return BrainTemplate(t1, gray.clamp(0, 1), white.clamp(0, 1), ventricles)


def brain_template_file() -> Path:
    """Return the NIfTI file of the template that comes with nilearn: a real MR volume that anybody may see.

    Example:
        >>> brain_template_file().name
        'mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz'
    """
    from nilearn.datasets.struct import MNI152_FILE_PATH

    return Path(MNI152_FILE_PATH)


def millimetres(spatial_shape: Sequence[int], spacing: float) -> Tensor:
    """Return the places (3, X, Y, Z) of the voxels of a grid around the middle of the brain."""
    axes = [
        (torch.arange(size, dtype=torch.float32) - (size - 1) / 2) * spacing + centre
        for size, centre in zip(spatial_shape, BRAIN_CENTRE, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def _on_grid(image: Nifti1Image, spatial_shape: Sequence[int], spacing: float) -> Tensor:
    """Sample a NIfTI image, whose voxels lie along the axes of its space, on a grid around the middle of the brain."""
    array = torch.from_numpy(image.get_fdata(dtype=np.float32))
    affine = torch.from_numpy(image.affine).float()
    # Averaged first where the grid is coarser than the image.
    width = spacing / float(affine.diagonal()[:3].abs().mean())
    if width > 1:
        array = _blur(array, 0.42 * (width**2 - 1) ** 0.5)
    origin, step = affine[:3, 3].reshape(3, 1, 1, 1), affine.diagonal()[:3].reshape(3, 1, 1, 1)
    return interpolate(array[None], (millimetres(spatial_shape, spacing) - origin) / step, outside="zeros")


def interpolate(image: Tensor, index: Tensor, outside: str) -> Tensor:
    """Interpolate (C, X, Y, Z) at fractional indices (3, ...); outside there is nothing ("zeros"), or the "border"."""
    size = torch.tensor(image.shape[1:], dtype=torch.float32).reshape(3, 1, 1, 1)
    grid = (2 * index / (size - 1) - 1).flip(0).permute(1, 2, 3, 0)[None]
    return functional.grid_sample(image[None], grid, padding_mode=outside, align_corners=True)[0]


def _blur(array: Tensor, deviation: float) -> Tensor:
    radius = max(1, round(3 * deviation))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation) ** 2)
    kernel = kernel / kernel.sum()
    volume = array[None, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(kernel)
        padding = [0, 0, 0]
        padding[axis] = radius
        volume = functional.conv3d(volume, kernel.reshape(shape), padding=padding)
    return volume[0, 0]
