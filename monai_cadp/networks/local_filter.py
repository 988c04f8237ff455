# SPDX-License-Identifier: Apache-2.0
"""A filter that makes edges stronger or weaker by their direction, their scale and their place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

__all__ = ["LocalFilter"]

# Of the finest scale, in cycles a pixel; each coarser one has half of it.
FINEST, MOST_SCALES = 0.35, 4
# Over half a turn, and the power of the cosine of the angle to each.
DIRECTIONS, SHARPNESS = 8, 8
# Places are cells of so many pixels, at most so many along an axis.
CELL, MOST_CELLS = 8, 16
# Images are mirrored at their borders.
MARGIN = 16
LARGEST_GAIN = 2.5
# Beside the mean strength of a band, what counts as none.
NO_STRENGTH = 0.01


class LocalFilter(nn.Module):
    r"""Split images into bands of one scale and direction each, and multiply these by gains that differ by place.

    A band is what a window of the Fourier transform lets pass: an octave, times a power of the cosine of the angle to
    a direction. The squares of all windows add up to 1 from the coarsest octave upwards, so that

    .. math:: y = x + \sum_b w_b * ((g_b - 1) \cdot (w_b * x))

    is x where all gains are 1, and has g times the band where they are g. Gains are known for the middles of cells, and
    interpolated between these. A new filter has gains of 1.

    Args:
        channels: of the images.
        spatial_shape: of the images, (H, W).

    References:
        Freeman, Adelson: The design and use of steerable filters, PAMI 1991.
        Portilla, Simoncelli: A parametric texture model based on joint statistics of complex wavelet coefficients, IJCV
        2000 (images are given the strength of bands that others have).

    Example:
        >>> local_filter = LocalFilter(1, (32, 32))
        >>> x = torch.rand(2, 1, 32, 32)
        >>> torch.equal(local_filter(x), x)
        True
    """

    gains: Tensor

    def __init__(self, channels: int, spatial_shape: Sequence[int]) -> None:
        super().__init__()
        self.spatial_shape = tuple(spatial_shape)
        smallest = min(self.spatial_shape)
        # The coarsest has two waves across the image at least.
        self.num_scales = max(0, min(MOST_SCALES, 1 + math.floor(math.log2(FINEST * smallest / 2))))
        down, across = (max(1, min(MOST_CELLS, size // CELL)) for size in self.spatial_shape)
        self.cells = (down, across)
        self.margin = min(MARGIN, smallest - 1)
        bands = self.num_scales * DIRECTIONS
        self.register_buffer("gains", torch.ones(channels, bands, *self.cells))

    def forward(self, x: Tensor) -> Tensor:
        """Filter images (B, C, H, W)."""
        if bool((self.gains == 1).all()):
            return x
        spectrum = self._spectrum(x)
        change = torch.zeros_like(spectrum)
        for gain, window in zip(self.gains.unbind(1), self._windows(x), strict=True):
            places = nn.functional.interpolate(gain[None] - 1, size=self.spatial_shape, mode="bilinear")
            places = nn.functional.pad(places, [self.margin] * 4, mode="replicate")
            change += window * torch.fft.rfft2(places * self._inverse(window * spectrum))
        return x + self._cropped(self._inverse(change))

    def strengths(self, x: Tensor) -> Tensor:
        """Return how strong every band of images (B, C, H, W) is in every cell: (B, C, bands, *cells).

        It is the root of the mean magnitude, which a few strong edges do not decide.
        """
        spectrum = self._spectrum(x)
        found = x.new_zeros(*x.shape[:2], *self.gains.shape[1:])
        for band, window in enumerate(self._windows(x)):
            found[:, :, band] = self._in_cells(window * spectrum)
        return found

    def _in_cells(self, spectrum: Tensor) -> Tensor:
        band = self._cropped(self._inverse(spectrum))
        return nn.functional.adaptive_avg_pool2d(band.abs(), self.cells).sqrt()

    @torch.no_grad()
    def strengthen(self, wanted: Tensor, found: Tensor) -> None:
        """Multiply gains by how much stronger bands should be than they were found: (C, bands, *cells) both."""
        least = NO_STRENGTH * wanted.mean(tuple(range(2, wanted.ndim)), keepdim=True)
        ratio = ((wanted + least) / (found + least).clamp(min=torch.finfo(found.dtype).tiny)).square()
        self.gains.mul_(ratio.to(self.gains)).clamp_(1 / LARGEST_GAIN, LARGEST_GAIN)

    def _spectrum(self, x: Tensor) -> Tensor:
        return torch.fft.rfft2(nn.functional.pad(x, [self.margin] * 4, mode="reflect"))

    def _inverse(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft2(spectrum, s=[size + 2 * self.margin for size in self.spatial_shape])

    def _cropped(self, x: Tensor) -> Tensor:
        height, width = self.spatial_shape
        return x[..., self.margin : self.margin + height, self.margin : self.margin + width]

    def _windows(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the window of every band, scale by scale, finest first."""
        height, width = (size + 2 * self.margin for size in self.spatial_shape)
        down = torch.fft.fftfreq(height, device=x.device, dtype=x.dtype)[:, None]
        across = torch.fft.rfftfreq(width, device=x.device, dtype=x.dtype)
        radius = torch.hypot(down, across).clamp(min=torch.finfo(x.dtype).tiny)
        octave = torch.log2(radius / FINEST)
        angles = math.pi / DIRECTIONS * torch.arange(DIRECTIONS, device=x.device, dtype=x.dtype)[:, None, None]
        towards = ((down * angles.sin() + across * angles.cos()) / radius).abs() ** SHARPNESS
        # Of no frequency, there is no direction.
        towards = towards / towards.square().sum(0).sqrt().clamp(min=torch.finfo(x.dtype).tiny)
        for scale in range(self.num_scales):
            within = torch.cos(math.pi / 2 * (octave + scale).clamp(-1, 1))
            if scale == 0:
                within = torch.where(octave > 0, torch.ones_like(within), within)
            yield from within * towards
