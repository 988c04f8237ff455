# SPDX-License-Identifier: Apache-2.0
"""Images as the means of square cells."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["cell_means", "checked_images", "painted_cells"]

POOLS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def checked_images(x: Tensor) -> Tensor:
    r"""Return images (B, C, \*spatial) clipped to intensities 0 to 1, with NaN as 0.

    Raises:
        ValueError: if there are not one to three spatial dimensions.
    """
    if x.ndim not in (3, 4, 5):
        raise ValueError(f"The images have shape {tuple(x.shape)}; expected (B, C, H, W) or (B, C, D, H, W).")
    return torch.nan_to_num(x.detach().float(), nan=0.0).clamp(0, 1)


def cell_means(x: Tensor, cell: int) -> Tensor:
    r"""Return the means of cells of ``cell`` pixels a side; those at the far border may be smaller."""
    return POOLS[x.ndim - 2](x, cell, ceil_mode=True, count_include_pad=False)


def painted_cells(means: Tensor, cell: int, shape: torch.Size) -> Tensor:
    r"""Return images (B, C, \*shape) whose cells have these means."""
    painted = cast(Tensor, nn.Upsample(scale_factor=cell, mode="nearest")(means))
    return painted[(slice(None), slice(None), *(slice(size) for size in shape))]
