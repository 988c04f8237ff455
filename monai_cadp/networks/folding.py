# SPDX-License-Identifier: Apache-2.0
"""Folding neighbours into channels, in any number of dimensions."""

from __future__ import annotations

import itertools

from torch import Tensor

__all__ = ["fold", "unfold"]


def fold(x: Tensor) -> Tensor:
    r"""Turn every cell of 2 x 2 (x 2) neighbours into channels: (B, C, \*spatial) to (B, C 2^n, \*spatial / 2).

    Args:
        x: images with even spatial sizes.

    Returns:
        The same numbers in another order.

    Example:
        >>> import torch
        >>> x = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> fold(x)[0, :, 0, 0]
        tensor([0., 1., 4., 5.])
        >>> torch.equal(unfold(fold(x)), x)
        True
    """
    n, half = x.ndim - 2, [size // 2 for size in x.shape[2:]]
    cells = x.reshape(*x.shape[:2], *itertools.chain.from_iterable((size, 2) for size in half))
    cells = cells.permute(0, 1, *range(3, 3 + 2 * n, 2), *range(2, 2 + 2 * n, 2))
    return cells.reshape(x.shape[0], x.shape[1] * 2**n, *half)


def unfold(x: Tensor) -> Tensor:
    r"""Turn channels back into neighbours, the inverse of :func:`fold`.

    Args:
        x: (B, C 2^n, \*spatial).

    Returns:
        Images (B, C, 2 \*spatial).
    """
    n, half = x.ndim - 2, x.shape[2:]
    cells = x.reshape(x.shape[0], x.shape[1] // 2**n, *(2,) * n, *half)
    cells = cells.permute(0, 1, *itertools.chain.from_iterable((2 + n + axis, 2 + axis) for axis in range(n)))
    return cells.reshape(x.shape[0], x.shape[1] // 2**n, *(2 * size for size in half))
