# SPDX-License-Identifier: Apache-2.0
"""The flow of one level of details, given the coarser image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from FrEIA.modules import InvertibleModule
from torch import Tensor

from monai_cadp.networks.chain import Chain
from monai_cadp.networks.coupling import AffineCoupling
from monai_cadp.networks.subnets import ConvSubnet

__all__ = ["ChannelScale", "DetailFlow"]


class ChannelScale(InvertibleModule):
    """Divide every channel by its public or fitted standard deviation, after taking its mean away.

    Args:
        dims_in: one shape (C, *spatial).
        dims_c: not used.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dims_in: Sequence[Sequence[int]], dims_c: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__(dims_in, dims_c)
        shape = (dims_in[0][0], *(1 for _ in dims_in[0][1:]))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | None]:
        """Map x to (x - mean) / scale, or back with ``rev``; FrEIA's calling convention."""
        (x,) = x_or_z
        y = x * self.scale + self.mean if rev else (x - self.mean) / self.scale
        return (y,), (-self.log_det(x) if rev else self.log_det(x)) if jac else None

    def log_det(self, x: Tensor) -> Tensor:
        """Return the log-determinant (B,) of the forward map, the same for every sample."""
        return -(self.scale.log().sum() * x[0, 0].numel()).expand(x.shape[0])

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes are kept."""
        return input_dims


class DetailFlow(Chain):
    """The flow of a level's details: a scale per channel, then couplings conditioned on the coarser image.

    The first coupling has no passive channel: it is the conditional affine map that predicts every detail's mean and
    scale from the coarser image alone. The following ones transform one third of the channels each, given the others.
    Its conditions are (coarser image, embedded condition).

    Args:
        channels: number of detail channels.
        context_channels: number of channels of the coarser image.
        spatial_shape: size of the details, that of the coarser image.
        num_couplings: number of couplings, the first one included.
        width: hidden channels of the convolutions.
        embedding_size: length of the embedded condition; 0 for none.
    """

    def __init__(
        self,
        channels: int,
        context_channels: int,
        spatial_shape: Sequence[int],
        *,
        num_couplings: int,
        width: int,
        embedding_size: int,
    ) -> None:
        subnet = partial(
            ConvSubnet,
            context_channels=context_channels,
            spatial_dims=len(spatial_shape),
            width=width,
            embedding_size=embedding_size,
        )
        dims = [(channels, *spatial_shape)]
        conditions = [(context_channels, *spatial_shape), (embedding_size,)]
        couplings = []
        for index in range(num_couplings):
            active = range(channels) if index == 0 else range(index % 3, channels, 3)
            passive = [channel for channel in range(channels) if channel not in active]
            couplings.append(AffineCoupling(dims, conditions, passive=passive, subnet=subnet))
        super().__init__([ChannelScale(dims), *couplings])

    @property
    def scale(self) -> ChannelScale:
        """The scale per channel, fitted to data and not trained."""
        return cast(ChannelScale, self.steps[0])
