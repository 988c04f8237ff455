# SPDX-License-Identifier: Apache-2.0
"""Mixing of channels between couplings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_cadp.networks.reversible import ReversibleModule

__all__ = ["ChannelRotation"]


class ChannelRotation(ReversibleModule):
    r"""Mix the channels of every place by one fixed random orthogonal matrix; its log-determinant is 0.

    FrEIA's Fixed1x1Conv does so in 2D; this one does it in any number of dimensions.

    Args:
        dims_in: one shape (C, \*spatial).
        dims_c: not used.
        seed: of the matrix, which a checkpoint holds.

    References:
        Kingma, Dhariwal: Glow, NeurIPS 2018, section 3.2 (a learned matrix in the place of the fixed one).

    Example:
        >>> rotation = ChannelRotation([(3, 4, 4)], seed=0)
        >>> x = torch.randn(2, 3, 4, 4)
        >>> (y,), log_det = rotation([x])
        >>> (back,), _ = rotation([y], rev=True)
        >>> torch.allclose(back, x, atol=1e-6), log_det.tolist()
        (True, [0.0, 0.0])
    """

    matrix: Tensor

    def __init__(
        self, dims_in: Sequence[Sequence[int]], dims_c: Sequence[Sequence[int]] | None = None, *, seed: int
    ) -> None:
        super().__init__(dims_in, dims_c)
        size = dims_in[0][0]
        normal = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.register_buffer("matrix", torch.linalg.qr(normal).Q.float())

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | None]:
        """Map x to z, or back with ``rev``; FrEIA's calling convention."""
        (x,) = x_or_z
        matrix = self.matrix.T if rev else self.matrix
        y = (matrix @ x.flatten(2)).reshape(x.shape)
        return (y,), x.new_zeros(x.shape[0]) if jac else None

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes are kept."""
        return input_dims
