# SPDX-License-Identifier: Apache-2.0
"""One level of the orthonormal Haar wavelet, in any number of dimensions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from FrEIA.modules import InvertibleModule
from torch import Tensor

__all__ = ["HaarLevel"]


class HaarLevel(InvertibleModule):
    r"""Split an image into its coarse half-size image and the details that complete it; orthonormal, so log-det 0.

    Args:
        dims_in: one shape (C, \*spatial), every spatial size even.
        dims_c: not used.

    Raises:
        ValueError: if a spatial size is odd.

    References:
        Yu, Derpanis, Brubaker: Wavelet Flow, NeurIPS 2020.

    Example:
        >>> level = HaarLevel([(1, 4, 6)])
        >>> x = torch.randn(2, 1, 4, 6)
        >>> (coarse, details), _ = level([x])
        >>> coarse.shape, details.shape
        (torch.Size([2, 1, 2, 3]), torch.Size([2, 3, 2, 3]))
        >>> (back,), _ = level([coarse, details], rev=True)
        >>> torch.allclose(back, x, atol=1e-6)
        True
    """

    def __init__(self, dims_in: Sequence[Sequence[int]], dims_c: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__(dims_in, dims_c)
        self.channels, *spatial_shape = dims_in[0]
        if any(size % 2 for size in spatial_shape):
            raise ValueError(f"A Haar level got the spatial shape {tuple(spatial_shape)}; expected even sizes.")
        corners = torch.tensor(list(itertools.product((0, 1), repeat=len(spatial_shape))))
        signs = (1 - 2 * ((corners @ corners.T) % 2)).float()
        self.register_buffer("butterfly", signs / len(corners) ** 0.5, persistent=False)
        self.spatial_dims = len(spatial_shape)

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Map (image,) to (coarse, details), or back with ``rev``; FrEIA's calling convention."""
        log_det = x_or_z[0].new_zeros(x_or_z[0].shape[0]) if jac else None
        if rev:
            return (self._join(*x_or_z),), log_det
        return self._split(x_or_z[0]), log_det

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n = self.spatial_dims
        blocks = x.reshape(*x.shape[:2], *itertools.chain.from_iterable((size // 2, 2) for size in x.shape[2:]))
        blocks = blocks.permute(0, *range(3, 3 + 2 * n, 2), 1, *range(2, 2 + 2 * n, 2))
        half = blocks.shape[2 + n :]
        bands = (self.butterfly @ blocks.reshape(x.shape[0], 2**n, -1)).reshape(x.shape[0], 2**n * self.channels, *half)
        return bands[:, : self.channels], bands[:, self.channels :]

    def _join(self, coarse: Tensor, details: Tensor) -> Tensor:
        n, half = self.spatial_dims, coarse.shape[2:]
        bands = torch.cat([coarse, details], dim=1).reshape(coarse.shape[0], 2**n, -1)
        blocks = (self.butterfly @ bands).reshape(coarse.shape[0], *(2,) * n, self.channels, *half)
        order = itertools.chain.from_iterable((2 + n + axis, 1 + axis) for axis in range(n))
        return blocks.permute(0, 1 + n, *order).reshape(*coarse.shape[:2], *(2 * size for size in half))

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes of the coarse image and the details."""
        (channels, *spatial_shape) = input_dims[0]
        half = [size // 2 for size in spatial_shape]
        return [(channels, *half), ((2**self.spatial_dims - 1) * channels, *half)]
