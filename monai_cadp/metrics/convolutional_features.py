# SPDX-License-Identifier: Apache-2.0
"""The convolutions that every small network of an evaluation begins with."""

from __future__ import annotations

import math

from monai.networks.layers.factories import Conv, Pool
from torch import nn

__all__ = ["convolutional_features"]


def convolutional_features(shape: tuple[int, ...]) -> tuple[nn.Sequential, int]:
    r"""Make convolutions that halve an image until few pixels are left.

    Args:
        shape: of an image (C, \*spatial), in two or three dimensions.

    Returns:
        The network, from images (B, C, \*spatial) to features (B, n), and n.

    Example:
        >>> convolutional_features((1, 28, 28))[1]
        1568
    """
    channels, *sizes = shape
    conv, pool = Conv[Conv.CONV, len(sizes)], Pool[Pool.MAX, len(sizes)]
    layers: list[nn.Module] = []
    width = 16
    # Always look at neighbourhoods once.
    while not layers or (min(sizes) >= 8 and width <= 64):
        layers += [conv(channels, width, 3, padding=1), nn.ReLU(), pool(2)]
        channels, width, sizes = width, 2 * width, [size // 2 for size in sizes]
    return nn.Sequential(*layers, nn.Flatten()), channels * math.prod(sizes)
