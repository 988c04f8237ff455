# SPDX-License-Identifier: Apache-2.0
"""Noise that makes quantised pixels a density which a flow can model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_cadp.privacy.randomness import SecretDraws, random_normal, random_uniform

__all__ = ["ColumnNoise", "GaussianNoise"]


# What noise may be drawn from: a seeded generator (None is torch's own), or a cryptographic stream for every image.
Draws = torch.Generator | SecretDraws | None


def _normal(x: Tensor, generator: Draws) -> Tensor:
    if isinstance(generator, SecretDraws):
        return random_normal(x)
    return torch.randn(x.shape, generator=generator, device=x.device)


def _uniform(x: Tensor, generator: Draws) -> Tensor:
    if isinstance(generator, SecretDraws):
        return random_uniform(x)
    return torch.rand(x.shape, generator=generator, device=x.device)


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

    def __call__(self, x: Tensor, generator: Draws = None) -> Tensor:
        """Return x plus noise."""
        return x + self.deviation * _normal(x, generator)


class ColumnNoise:
    """Spread the numbers of a table's encoded rows: uniformly over the step of a column that has one, normally else.

    Args:
        steps: for every number (width,) the distance of neighbouring values, or 0 where values are continuous.
        deviation: standard deviation of the noise on continuous columns, whose values lie between 0 and 1.

    Raises:
        ValueError: if a number is negative.

    Example:
        >>> noise = ColumnNoise(steps=[0.5, 0.0], deviation=0.01)
        >>> noise(torch.tensor([[0.25, 0.3]])).shape
        torch.Size([1, 2])
    """

    def __init__(self, steps: Sequence[float], deviation: float = 0.01) -> None:
        if not (deviation >= 0 and all(step >= 0 for step in steps)):
            raise ValueError(f"deviation is {deviation}, or a step is negative; expected numbers of at least 0.")
        self.steps = torch.tensor(list(steps))
        self.deviation = deviation

    def __call__(self, x: Tensor, generator: Draws = None) -> Tensor:
        """Return rows (B, width) plus noise."""
        steps = self.steps.to(x.device)
        uniform = _uniform(x, generator) - 0.5
        normal = _normal(x, generator)
        return x + torch.where(steps > 0, steps * uniform, self.deviation * normal)
