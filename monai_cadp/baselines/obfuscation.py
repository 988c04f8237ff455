# SPDX-License-Identifier: Apache-2.0
"""Blur and mosaic: what newspapers do, and what promises nothing."""

from __future__ import annotations

import math

from monai.networks.layers.simplelayers import GaussianFilter
from torch import Tensor, nn

from monai_cadp.baselines.cells import cell_means, checked_images, painted_cells

__all__ = ["GaussianBlur", "Mosaic"]


class GaussianBlur(nn.Module):
    """Blur images; every release is a function of its original, so no epsilon is large enough.

    Args:
        deviation: of the Gaussian, in pixels.

    Raises:
        ValueError: if the deviation is not positive.

    Example:
        >>> import torch
        >>> GaussianBlur(2.0)(torch.rand(2, 1, 10, 8)).shape
        torch.Size([2, 1, 10, 8])
    """

    guarantee = None

    def __init__(self, deviation: float) -> None:
        super().__init__()
        if not 0 < deviation < math.inf:
            raise ValueError(f"deviation is {deviation}; expected a positive number of pixels.")
        self.deviation = deviation

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        r"""Blur images (B, C, \*spatial), clipped to intensities 0 to 1; the condition is not used."""
        x = checked_images(x)
        return GaussianFilter(x.ndim - 2, self.deviation)(x).clamp(0, 1)


class Mosaic(nn.Module):
    """Paint every cell of an image with its mean; every release is a function of its original.

    Args:
        cell: pixels a side of a cell.

    Raises:
        ValueError: if the cell is not a positive number of pixels.

    Example:
        >>> import torch
        >>> Mosaic(4)(torch.rand(2, 1, 10, 8)).shape
        torch.Size([2, 1, 10, 8])
    """

    guarantee = None

    def __init__(self, cell: int) -> None:
        super().__init__()
        if isinstance(cell, bool) or not isinstance(cell, int) or cell < 1:
            raise ValueError(f"cell is {cell!r}; expected an integer of 1 or more.")
        self.cell = cell

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        r"""Paint images (B, C, \*spatial), clipped to intensities 0 to 1; the condition is not used."""
        x = checked_images(x)
        return painted_cells(cell_means(x, self.cell), self.cell, x.shape[2:])
