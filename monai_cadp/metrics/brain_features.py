# SPDX-License-Identifier: Apache-2.0
"""What a neuroradiologist would measure in a brain volume, as numbers."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BRAIN_FEATURES", "BrainFeatures"]

#: Names of what ``BrainFeatures`` measures, in the order of its columns.
BRAIN_FEATURES = ("brain volume", "ventricle volume", "asymmetry")
# Intensities between background and brain, and between fluid and gray matter, with their softness.
AIR, BRAIN, FLUID, SOFTNESS = 0.15, 0.3, 0.47, 0.04
# Around the ventricles, in millimetres from the middle of the brain: sideways, back and front, down and up.
VENTRICLES = ((-22.0, 22.0), (-35.0, 45.0), (-12.0, 26.0))


class BrainFeatures:
    r"""Volumes of brain and ventricles, and how much further the brain reaches to the right than to the left.

    Volumes are soft counts: of voxels brighter than background, and of dark voxels inside a box around the ventricles.
    The asymmetry is the skewness of the places of brain voxels from left to right, which a shift of the head does not
    change.

    Args:
        spacing: of the voxels, in millimetres.

    Raises:
        ValueError: when called, if the volumes are not (B, 1, X, Y, Z).

    Example:
        >>> block = torch.zeros(1, 1, 40, 40, 40)
        >>> block[..., 10:20, 10:30, 10:30] = 0.8
        >>> [round(value, 1) for value in BrainFeatures(spacing=1.0)(block)[0, :2].tolist()]
        [4.0, 0.0]
    """

    def __init__(self, spacing: float) -> None:
        self.spacing = spacing

    def __call__(self, volumes: Tensor) -> Tensor:
        """Return features (B, 3) of volumes (B, 1, X, Y, Z): millilitres, millilitres, and a ratio."""
        if volumes.ndim != 5 or volumes.shape[1] != 1:
            raise ValueError(f"The volumes have shape {tuple(volumes.shape)}; expected (B, 1, X, Y, Z).")
        millilitres = self.spacing**3 / 1000
        brain = torch.sigmoid((volumes[:, 0] - BRAIN) / SOFTNESS)
        # What a sigmoid says of pure darkness is no brain.
        brain = (brain - torch.sigmoid(torch.tensor(-BRAIN / SOFTNESS))).clamp(min=0)
        box = volumes[:, 0]
        for axis, (low, high) in enumerate(VENTRICLES, 1):
            middle = (box.shape[axis] - 1) / 2
            first = max(round(middle + low / self.spacing), 0)
            box = box.narrow(axis, first, min(round((high - low) / self.spacing) + 1, box.shape[axis] - first))
        # Darker than fluid is air, or what a skull stripping took away.
        fluid = torch.sigmoid((FLUID - box) / SOFTNESS) * torch.sigmoid((box - AIR) / (SOFTNESS / 2))
        place = torch.arange(brain.shape[1], dtype=brain.dtype, device=brain.device)
        share = brain.sum((2, 3)) / brain.sum((1, 2, 3))[:, None].clamp(min=1e-6)
        place = place - (share * place).sum(1, keepdim=True)
        variance, third = (share * place.square()).sum(1), (share * place**3).sum(1)
        asymmetry = third / variance.clamp(min=1e-6) ** 1.5
        return torch.stack([brain.sum((1, 2, 3)) * millilitres, fluid.sum((1, 2, 3)) * millilitres, asymmetry], dim=1)
