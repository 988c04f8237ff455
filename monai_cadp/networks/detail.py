# SPDX-License-Identifier: Apache-2.0
"""The flow of one level of details, given the coarser image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from monai_cadp.networks.chain import Chain
from monai_cadp.networks.coupling import AffineCoupling
from monai_cadp.networks.reversible import ReversibleModule
from monai_cadp.networks.subnets import ConvSubnet

__all__ = ["ChannelScale", "DetailFlow"]


class ChannelScale(ReversibleModule):
    """Divide every channel by its public or fitted standard deviation, after taking its mean away.

    Args:
        dims_in: one shape (C, *spatial).
        dims_c: not used.
        per_voxel: whether every voxel has a mean and a deviation of its own, for images that share a space.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        dims_in: Sequence[Sequence[int]],
        dims_c: Sequence[Sequence[int]] | None = None,
        *,
        per_voxel: bool = False,
    ) -> None:
        super().__init__(dims_in, dims_c)
        shape = tuple(dims_in[0]) if per_voxel else (dims_in[0][0], *(1 for _ in dims_in[0][1:]))
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
        return -(self.scale.log().sum() * (x[0].numel() // self.scale.numel())).expand(x.shape[0])

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes are kept."""
        return input_dims


class DetailFlow(Chain):
    """The flow of a level's details: a scale per channel, then couplings conditioned on the coarser image.

    The first coupling has no passive channel: it is the conditional affine map that predicts every detail's mean and
    scale from the coarser image alone. The following ones transform one third of the channels each, given the others.
    Its conditions are (coarser image, embedded condition).

    Where images share a space (the same organ, brought to the same grid), a place means something: scales are those of
    a voxel, the coarser image is seen as its deviation from the mean one, and learned maps tell the convolutions where
    they are.

    Args:
        channels: number of detail channels.
        context_channels: number of channels of the coarser image.
        spatial_shape: size of the details, that of the coarser image.
        num_couplings: number of couplings, the first one included.
        width: hidden channels of the convolutions.
        depth: further convolutions of the first coupling.
        num_maps: learned maps of the shared space; 0 where images share none.
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
        depth: int,
        num_maps: int,
        embedding_size: int,
    ) -> None:
        subnet = partial(
            ConvSubnet,
            context_channels=context_channels + num_maps,
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
            deep = partial(subnet, depth=depth if index == 0 else 0)
            couplings.append(AffineCoupling(dims, conditions, passive=passive, subnet=deep))
        super().__init__([ChannelScale(dims, per_voxel=num_maps > 0), *couplings])
        self.context_scale = ChannelScale([conditions[0]], per_voxel=True) if num_maps else None
        self.maps = nn.Parameter(0.1 * torch.randn(num_maps, *spatial_shape)) if num_maps else None

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | None]:
        """Map details to latents, or back with ``rev``; FrEIA's calling convention."""
        context, embedding = c
        if self.context_scale is not None and self.maps is not None:
            (context,), _ = self.context_scale([context], jac=False)
            context = torch.cat([context, self.maps.expand(context.shape[0], *self.maps.shape)], dim=1)
        return super().forward(x_or_z, [context, embedding], rev, jac)

    @property
    def scale(self) -> ChannelScale:
        """The scale of the details, fitted to data and not trained."""
        return cast(ChannelScale, self.steps[0])
