# SPDX-License-Identifier: Apache-2.0
"""Noise that makes quantised pixels a density which a flow can model."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Dequantization", "GaussianNoise"]


class GaussianNoise:
    """Add normal noise of one standard deviation to every pixel.

    Args:
        deviation: standard deviation, in units of intensity.

    Raises:
        ValueError: if it is negative.
    """

    def __init__(self, deviation: float = 0.05) -> None:
        if not deviation >= 0:
            raise ValueError(f"deviation is {deviation}; expected a number of at least 0.")
        self.deviation = deviation

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return x plus noise."""
        return x + self.deviation * torch.randn(x.shape, generator=generator, device=x.device)


class Dequantization:
    """Spread every pixel uniformly over its quantisation step, which makes the likelihood that of discrete pixels.

    Args:
        levels: number of grey levels between intensities 0 and 1.

    Raises:
        ValueError: if there are fewer than two.

    References:
        Theis, van den Oord, Bethge: A note on the evaluation of generative models, ICLR 2016.
    """

    def __init__(self, levels: int = 256) -> None:
        if levels < 2:
            raise ValueError(f"levels is {levels}; expected at least 2.")
        self.levels = levels

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return x, scaled to leave room for the last step, plus uniform noise of one step."""
        noise = torch.rand(x.shape, generator=generator, device=x.device)
        return (x * (self.levels - 1) + noise) / self.levels
