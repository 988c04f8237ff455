# SPDX-License-Identifier: Apache-2.0
"""Images beside the average of those that were learnt from."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Standardise"]

# Of the largest deviation: where nothing ever happens, noise is not blown up.
SMALLEST_SHARE, SMALLEST_DEVIATION = 0.1, 1e-6


class Standardise(nn.Module):
    r"""Take away the mean of some images, and divide by their deviation, in every pixel.

    Where images share a space, what is unusual about one stands out.

    Args:
        images: (n, C, \*spatial).

    Example:
        >>> import torch
        >>> images = torch.rand(50, 1, 4, 4)
        >>> round(float(Standardise(images)(images).std()), 1)
        1.0
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        deviation = images.std(0, correction=0)
        smallest = max(SMALLEST_SHARE * float(deviation.max()), SMALLEST_DEVIATION)
        self.register_buffer("mean", images.mean(0))
        self.register_buffer("deviation", deviation.clamp(min=smallest))

    def forward(self, x: Tensor) -> Tensor:
        r"""Standardise images (B, C, \*spatial)."""
        return (x - self.mean) / self.deviation
