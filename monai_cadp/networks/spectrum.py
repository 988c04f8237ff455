# SPDX-License-Identifier: Apache-2.0
"""The cosine transform of images, and filters in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["cosine_transform", "inverse_cosine_transform", "orthonormal_cosines", "smoothed_over_frequencies"]


def cosine_transform(x: Tensor) -> Tensor:
    r"""Return the orthonormal cosine transform (DCT-II) of images along all spatial axes.

    It sees an image mirrored at its borders, so that a filter in it carries nothing from one side to the other.

    Args:
        x: images (B, C, \*spatial).

    Returns:
        Coefficients of the same shape, the mean first along every axis.

    References:
        Ahmed, Natarajan, Rao: Discrete cosine transform, IEEE Transactions on Computers 23, 1974.

    Example:
        >>> x = torch.rand(2, 1, 6, 8)
        >>> torch.allclose(inverse_cosine_transform(cosine_transform(x)), x, atol=1e-5)
        True
    """
    return _along_axes(x, [orthonormal_cosines(size, size).T.to(x) for size in x.shape[2:]])


def inverse_cosine_transform(coefficients: Tensor) -> Tensor:
    r"""Return the images (B, C, \*spatial) of coefficients; see :func:`cosine_transform`."""
    return _along_axes(
        coefficients, [orthonormal_cosines(size, size).to(coefficients) for size in coefficients.shape[2:]]
    )


def smoothed_over_frequencies(values: Tensor, deviation: float) -> Tensor:
    r"""Return values (C, \*spatial), one for each frequency, averaged over their neighbours.

    Args:
        values: what is averaged.
        deviation: of the normal weights, in frequencies.

    Example:
        >>> smoothed_over_frequencies(torch.ones(1, 4, 4), 2.0).mean().item()
        1.0
    """
    return _along_axes(values[None], [_weights(size, deviation).to(values) for size in values.shape[1:]])[0]


def orthonormal_cosines(size: int, rank: int) -> Tensor:
    """Return the lowest ``rank`` cosines of an axis as columns (size, rank), float64.

    Example:
        >>> columns = orthonormal_cosines(4, 2)
        >>> torch.allclose(columns.T @ columns, torch.eye(2, dtype=torch.float64))
        True
    """
    position = torch.arange(size, dtype=torch.float64)[:, None] + 0.5
    basis = torch.cos(math.pi / size * position * torch.arange(rank, dtype=torch.float64))
    return basis / basis.norm(dim=0)


def _along_axes(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply each spatial axis by its matrix."""
    for axis, matrix in enumerate(matrices, start=2):
        x = (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return x


def _weights(size: int, deviation: float) -> Tensor:
    places = torch.arange(size, dtype=torch.float64)
    return torch.softmax(-(((places[:, None] - places) / deviation) ** 2) / 2, dim=1)
