# SPDX-License-Identifier: Apache-2.0
"""A small denoiser that brings what a network draws nearer to the images it has learnt from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from monai_cadp.networks.context import ContextNetwork
from monai_cadp.networks.detail import ChannelScale
from monai_cadp.networks.folding import fold, unfold

__all__ = ["Refiner"]

# Deviations of the noise, of images with deviation 1: those that are learnt, and the one from which drawing goes down.
SMALLEST_NOISE, LARGEST_NOISE, FIRST_NOISE = 0.02, 1.0, 0.4
STEPS = 6
# Of the steps: large ones where there is much noise, small ones where there is little.
CURVATURE = 5.0
NUM_WAVES = 16
EMBEDDING_SIZE = 128
GOLDEN = (math.sqrt(5) - 1) / 2


class Refiner(nn.Module):
    r"""Add noise to an image that was drawn, and take it away again in a few steps of a learned denoiser.

    A flow has to be invertible, and a denoiser has not: it knows better which images there are. The denoiser of images
    x with noise of deviation sigma and condition c is

    .. math:: D(x; \sigma, c) = \frac{x}{\sigma^2 + 1} + \frac{\sigma}{\sqrt{\sigma^2 + 1}}
              F\Big(\frac{x}{\sqrt{\sigma^2 + 1}}; \sigma, c\Big)

    with a U-Net F, and the steps follow :math:`dx / d\sigma = (x - D(x; \sigma, c)) / \sigma` from 0.4 to 0 by Heun's
    method. White noise hides what is small and hardly what is large, so that the image keeps its content. An untrained
    refiner changes nothing.

    What is drawn depends on latents that are independent of the original but for what a mechanism has let pass. The
    noise is made from these latents, so a refined image is a function of them: post-processing, and the same latents
    give the same image.

    Args:
        channels: of the image.
        spatial_shape: of the image; cells of 2 x 2 (x 2) neighbours are folded where all sizes are even.
        widths: hidden channels of the U-Net at full, half ... size.
        embedding_size: length of the embedded condition; 0 for none.

    References:
        Karras, Aittala, Aila, Laine: Elucidating the design space of diffusion-based generative models, NeurIPS 2022,
        table 1 and algorithm 1.
        Meng et al.: SDEdit, ICLR 2022 (noise, then denoise, to make an image realistic).

    Example:
        >>> refiner = Refiner(1, (8, 8), widths=(8, 16), embedding_size=2)
        >>> images, embedding, latents = torch.randn(3, 1, 8, 8), torch.eye(2)[[0, 1, 1]], torch.randn(3, 64)
        >>> refiner.error(images, embedding).shape
        torch.Size([3])
        >>> torch.equal(refiner(images, embedding, latents), images)
        True
    """

    def __init__(
        self, channels: int, spatial_shape: Sequence[int], *, widths: Sequence[int], embedding_size: int
    ) -> None:
        super().__init__()
        dims = len(spatial_shape)
        self.is_folded = all(size % 2 == 0 for size in spatial_shape)
        size = channels * (2**dims if self.is_folded else 1)
        conv = Conv[Conv.CONV, dims]
        self.scale = ChannelScale([(channels, *spatial_shape)])
        self.embed = nn.Sequential(
            nn.Linear(NUM_WAVES + embedding_size, EMBEDDING_SIZE),
            nn.SiLU(),
            nn.Linear(EMBEDDING_SIZE, EMBEDDING_SIZE),
            nn.SiLU(),
        )
        self.features = ContextNetwork(size, widths, spatial_dims=dims, embedding_size=EMBEDDING_SIZE, blocks=1)
        self.last = conv(widths[0], size, kernel_size=3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        layout = torch.channels_last if dims == 2 else torch.channels_last_3d
        for part in (self.features, self.last):
            part.to(memory_format=layout)  # type: ignore[call-overload]

    def error(self, x: Tensor, embedding: Tensor) -> Tensor:
        r"""Return how far the denoiser misses images to which noise was added, as it is trained to miss them little.

        Noise is drawn anew in training mode, and is always the same in evaluation mode.

        Args:
            x: images (B, C, \*spatial).
            embedding: their embedded conditions (B, E).

        Returns:
            The mean square error of F, for each image (B,).
        """
        (x,), _ = self.scale([x], jac=False)
        if self.training:
            share, noise = torch.rand(len(x), device=x.device, dtype=x.dtype), torch.randn_like(x)
        else:
            # Evenly spread, however many images there are.
            share = (GOLDEN * torch.arange(1, len(x) + 1, device=x.device)).remainder(1).to(x.dtype)
            rows = [torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(index)) for index in range(len(x))]
            noise = torch.stack(rows).to(x) if rows else torch.zeros_like(x)
        deviation = SMALLEST_NOISE * (LARGEST_NOISE / SMALLEST_NOISE) ** share
        sigma = _like(deviation, x)
        missed = (self._denoised(x + sigma * noise, deviation, embedding) - x).square().flatten(1).mean(1)
        return missed * (deviation.square() + 1) / deviation.square()

    @torch.no_grad()
    def forward(self, x: Tensor, embedding: Tensor, latents: Tensor) -> Tensor:
        r"""Refine images.

        Args:
            x: images (B, C, \*spatial).
            embedding: their embedded conditions (B, E).
            latents: those that the images were drawn from (B, D).

        Returns:
            Images (B, C, \*spatial).
        """
        if not self.is_trained:
            return x
        (x,), _ = self.scale([x], jac=False)
        x = x + FIRST_NOISE * _noise_of(latents, x)
        for now, then in _steps():
            slope = self._slope(x, now, embedding)
            ahead = x + (then - now) * slope
            if then > 0:
                slope = (slope + self._slope(ahead, then, embedding)) / 2
                ahead = x + (then - now) * slope
            x = ahead
        (x,), _ = self.scale([x], rev=True, jac=False)
        return x

    @property
    def is_trained(self) -> bool:
        """Whether it has learnt anything."""
        return bool(self.last.weight.any())

    def _slope(self, x: Tensor, deviation: float, embedding: Tensor) -> Tensor:
        return (x - self._denoised(x, x.new_full((len(x),), deviation), embedding)) / deviation

    def _denoised(self, x: Tensor, deviation: Tensor, embedding: Tensor) -> Tensor:
        place = torch.log(deviation / SMALLEST_NOISE) / math.log(LARGEST_NOISE / SMALLEST_NOISE)
        waves = torch.cos(math.pi * place[:, None] * torch.arange(NUM_WAVES, device=x.device))
        told = self.embed(torch.cat([waves, embedding], dim=1))
        sigma = _like(deviation, x)
        total = sigma.square() + 1
        h = x / total.sqrt()
        h = self.last(self.features(fold(h) if self.is_folded else h, told))
        return x / total + sigma / total.sqrt() * (unfold(h) if self.is_folded else h)


def _steps() -> list[tuple[float, float]]:
    """Return from which deviation to which every step goes."""
    first, last = FIRST_NOISE ** (1 / CURVATURE), SMALLEST_NOISE ** (1 / CURVATURE)
    deviations = [(first + index / (STEPS - 1) * (last - first)) ** CURVATURE for index in range(STEPS)]
    return list(zip(deviations, [*deviations[1:], 0.0], strict=True))


def _noise_of(latents: Tensor, x: Tensor) -> Tensor:
    """Return white noise like x, for each image a function of its latents."""
    rows = []
    # Of two zeros, one is negative.
    for row in latents.detach().cpu() + 0.0:
        key = np.frombuffer(hashlib.sha256(row.contiguous().numpy().tobytes()).digest()[:16], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key))
        rows.append(torch.from_numpy(generator.standard_normal(tuple(x.shape[1:]), dtype=np.float32)))
    return torch.stack(rows).to(x) if rows else torch.zeros_like(x)


def _like(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *(1 for _ in x.shape[1:]))
