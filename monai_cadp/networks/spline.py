# SPDX-License-Identifier: Apache-2.0
"""A monotone curve for every number: what turns rare, large values into the tail of a normal distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from FrEIA.modules import InvertibleModule
from torch import Tensor, nn
from torch.nn import functional

from monai_cadp.networks.subnets import ConvSubnet

__all__ = ["SplineField"]

# Values are latents, whose bulk lies within a few units; a lesion may lie tens of units away. Further out the curve is
# the identity.
KNOTS = (-40.0, -20.0, -12.0, -8.0, -5.0, -3.5, -2.5, -1.5, 0.0, 1.5, 2.5, 3.5, 5.0, 8.0, 12.0, 20.0, 40.0)
# Bounds how steep and how flat a curve can be, and so what rounding does to its inverse.
CLAMP = 2.0


class SplineField(InvertibleModule):
    r"""Apply to every voxel a monotone rational-quadratic spline of its own, given learned maps and the condition.

    Affine maps of normal numbers are normal. A spline is not: a voxel that is ordinary in most images and far off in a
    few, such as one that a lesion may reach, gets the distribution that it has. It starts as the identity.

    Args:
        dims_in: one shape (C, \*spatial).
        dims_c: not used.
        width: hidden channels of the convolutions that give the curves.
        num_maps: learned maps from which they are given.
        embedding_size: length of the embedded condition; 0 for none.

    References:
        Durkan, Bekasov, Murray, Papamakarios: Neural spline flows, NeurIPS 2019, equations 4 to 8.

    Example:
        >>> field = SplineField([(1, 4, 6)], width=8, num_maps=2, embedding_size=0)
        >>> x = 3 * torch.randn(2, 1, 4, 6)
        >>> (y,), log_det = field([x], c=[None])
        >>> torch.allclose(y, x, atol=1e-4), log_det.shape
        (True, torch.Size([2]))
    """

    knots: Tensor

    def __init__(
        self,
        dims_in: Sequence[Sequence[int]],
        dims_c: Sequence[Sequence[int]] | None = None,
        *,
        width: int,
        num_maps: int,
        embedding_size: int,
    ) -> None:
        super().__init__(dims_in, dims_c)
        channels, *spatial_shape = dims_in[0]
        self.register_buffer("knots", torch.tensor(KNOTS), persistent=False)
        self.num_parameters = 3 * (len(KNOTS) - 1) - 1
        self.maps = nn.Parameter(0.1 * torch.randn(num_maps, *spatial_shape))
        self.subnet = ConvSubnet(
            0,
            self.num_parameters * channels,
            context_channels=num_maps,
            spatial_dims=len(spatial_shape),
            width=width,
            embedding_size=embedding_size,
        )

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | None]:
        """Map x (B, C, *spatial) along the curves, or back with ``rev``; the condition is (embedding,)."""
        (x,) = x_or_z
        maps = self.maps.expand(x.shape[0], *self.maps.shape)
        parameters = self.subnet(x[:, :0], maps, *c)
        parameters = parameters.reshape(x.shape[0], x.shape[1], self.num_parameters, *x.shape[2:]).movedim(2, -1)
        y, log_slope = _spline(x, parameters, self.knots, rev)
        return (y,), log_slope.flatten(1).sum(1) if jac else None

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes are kept."""
        return input_dims


def _spline(x: Tensor, parameters: Tensor, knots: Tensor, rev: bool) -> tuple[Tensor, Tensor]:
    """Return the curve (or its inverse) at x, and the logarithm of its slope there."""
    num_bins = len(knots) - 1
    low, high = float(knots[0]), float(knots[-1])
    shares = (knots.diff() / (high - low)).log()
    parameters = CLAMP * torch.tanh(parameters / CLAMP)
    widths, heights, slopes = parameters.split([num_bins, num_bins, num_bins - 1], dim=-1)
    across, up = (_cumulated(part + shares, low, high) for part in (widths, heights))
    # The slope is 1 where the parameter is 0, and at both ends, as it is outside.
    slopes = functional.pad(slopes, (1, 1)).exp()

    inside = (x > low) & (x < high)
    value = torch.where(inside, x, torch.zeros_like(x))
    index = torch.searchsorted((up if rev else across).contiguous(), value[..., None].contiguous())
    index = index.clamp(1, num_bins) - 1
    x0, x1, y0, y1, d0, d1 = (part.gather(-1, index + step)[..., 0] for part in (across, up, slopes) for step in (0, 1))
    slope = (y1 - y0) / (x1 - x0)
    bend = d0 + d1 - 2 * slope
    if rev:
        above = value - y0
        a = (y1 - y0) * (slope - d0) + above * bend
        b = (y1 - y0) * d0 - above * bend
        root = (b.square() + 4 * a * slope * above).clamp(min=0).sqrt()
        share = 2 * slope * above / (b + root)
        y = x0 + share * (x1 - x0)
    else:
        share = (value - x0) / (x1 - x0)
        y = y0 + (y1 - y0) * share * (slope * share + d0 * (1 - share)) / (slope + bend * share * (1 - share))
    flatness = slope + bend * share * (1 - share)
    rise = d1 * share.square() + 2 * slope * share * (1 - share) + d0 * (1 - share).square()
    log_slope = 2 * slope.log() + rise.log() - 2 * flatness.log()
    if rev:
        log_slope = -log_slope
    return torch.where(inside, y, x), torch.where(inside, log_slope, torch.zeros_like(x))


def _cumulated(logits: Tensor, low: float, high: float) -> Tensor:
    """Return increasing numbers (..., n + 1) from low to high."""
    inner = low + (high - low) * torch.softmax(logits, dim=-1)[..., :-1].cumsum(-1)
    return functional.pad(functional.pad(inner, (1, 0), value=low), (0, 1), value=high)
