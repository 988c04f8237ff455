# SPDX-License-Identifier: Apache-2.0
"""What the flow of details is told about the coarser image: features of every place, seen among the whole image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn

__all__ = ["ContextNetwork"]

GROUPS = 8


class ContextNetwork(nn.Module):
    r"""A U-Net over a whole image, with coordinates and the embedded condition.

    Every sample is normalised by its own statistics alone (GroupNorm), so that no image has an influence on another.

    Args:
        in_channels: channels of the image.
        widths: hidden channels at full, half, quarter ... size, multiples of 8; the first are those of the output.
        spatial_dims: 2 or 3.
        embedding_size: length of the embedded condition; 0 for none.
        blocks: residual blocks at every size, on the way down and on the way up.

    References:
        Ronneberger, Fischer, Brox: U-Net, MICCAI 2015.
        Wu et al.: Group normalization, ECCV 2018.

    Example:
        >>> network = ContextNetwork(1, (16, 32), spatial_dims=2, embedding_size=3)
        >>> network(torch.rand(2, 1, 6, 10), torch.eye(3)[:2]).shape
        torch.Size([2, 16, 6, 10])
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], *, spatial_dims: int, embedding_size: int, blocks: int = 2
    ) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.first = conv(in_channels + spatial_dims, widths[0], kernel_size=3, padding=1)
        self.pool = Pool[Pool.AVG, spatial_dims](kernel_size=2, ceil_mode=True)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width = widths[0]
        for wider in widths:
            sizes = [width] + [wider] * blocks
            self.down.append(_blocks(sizes, spatial_dims, embedding_size))
            width = wider
        for narrower in reversed(widths[:-1]):
            sizes = [width + narrower] + [narrower] * blocks
            self.up.append(_blocks(sizes, spatial_dims, embedding_size))
            width = narrower
        self.norm = nn.GroupNorm(GROUPS, width)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        r"""Map images (B, C, \*spatial) and embedded conditions (B, E) to features (B, widths[0], \*spatial)."""
        h = self.first(torch.cat([x, _coordinates(x)], dim=1))
        kept: list[Tensor] = []
        for level, stage in enumerate(self.down):
            if level:
                h = self.pool(h)
            h = _through(stage, h, embedding)
            kept.append(h)
        kept.pop()
        for stage in self.up:
            same_size = kept.pop()
            h = nn.functional.interpolate(h, size=same_size.shape[2:], mode="nearest")
            h = _through(stage, torch.cat([h, same_size], dim=1), embedding)
        return nn.functional.silu(self.norm(h))


class _ResidualBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int, embedding_size: int) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.first_norm = nn.GroupNorm(GROUPS, in_channels)
        self.first = conv(in_channels, out_channels, kernel_size=3, padding=1)
        self.embed = nn.Linear(embedding_size, out_channels, bias=False) if embedding_size else None
        self.second_norm = nn.GroupNorm(GROUPS, out_channels)
        self.second = conv(out_channels, out_channels, kernel_size=3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)
        self.skip = conv(in_channels, out_channels, kernel_size=1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.first(nn.functional.silu(self.first_norm(x)))
        if self.embed is not None:
            bias = self.embed(embedding)
            h = h + bias.reshape(*bias.shape, *(1 for _ in h.shape[2:]))
        return self.skip(x) + self.second(nn.functional.silu(self.second_norm(h)))


def _blocks(sizes: Sequence[int], spatial_dims: int, embedding_size: int) -> nn.ModuleList:
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    return nn.ModuleList(_ResidualBlock(inside, out, spatial_dims, embedding_size) for inside, out in pairs)


def _through(stage: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
    for block in stage.children():
        h = block(h, embedding)
    return h


def _coordinates(x: Tensor) -> Tensor:
    """Return where every place lies along every axis, from -1 to 1: (B, n, *spatial)."""
    axes = [torch.linspace(-1, 1, size, device=x.device, dtype=x.dtype) for size in x.shape[2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(x.shape[0], -1, *x.shape[2:])
