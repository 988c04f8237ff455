# SPDX-License-Identifier: Apache-2.0
"""Size and shape of what is drawn in a 2D image, as numbers that a person understands."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SHAPE_FEATURES", "shape_features"]

#: Names of what ``shape_features`` measures, in the order of its columns.
SHAPE_FEATURES = ("area", "slant", "width", "height")
# Fainter pixels are background.
FAINTEST = 0.3


def shape_features(images: Tensor) -> Tensor:
    r"""Return area, slant, width and height of the bright parts of images.

    With pixels x below 0.3 set to 0: the area is the sum of x; with centred coordinates weighted by x, the slant is
    cov(row, column) / (var(row) + 0.1), the width is the deviation of columns, the height the deviation of rows.

    Args:
        images: (B, C, H, W) with intensities 0 to 1; channels are averaged.

    Returns:
        Features (B, 4), in pixels; of an empty image 0.

    Raises:
        ValueError: if the images are not 2D.

    Example:
        >>> bar = torch.zeros(1, 1, 5, 5)
        >>> bar[0, 0, :, 2] = 1
        >>> shape_features(bar)
        tensor([[5.0000, 0.0000, 0.0000, 1.4142]])
    """
    if images.ndim != 4:
        raise ValueError(f"The images have shape {tuple(images.shape)}; expected (B, C, H, W).")
    x = images.mean(1)
    x = torch.where(x < FAINTEST, 0.0, x)
    rows = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)[:, None]
    columns = torch.arange(x.shape[2], dtype=x.dtype, device=x.device)[None]
    area = x.sum((1, 2))
    weight = x / area.clamp(min=1e-12)[:, None, None]
    rows = rows - (weight * rows).sum((1, 2), keepdim=True)
    columns = columns - (weight * columns).sum((1, 2), keepdim=True)
    row_variance = (weight * rows.square()).sum((1, 2))
    column_variance = (weight * columns.square()).sum((1, 2))
    slant = (weight * rows * columns).sum((1, 2)) / (row_variance + 0.1)
    return torch.stack([area, slant, column_variance.sqrt(), row_variance.sqrt()], dim=1)
