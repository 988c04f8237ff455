# SPDX-License-Identifier: Apache-2.0
"""How certain a figure is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Estimate", "bootstrap", "bootstrap_mean"]


class Estimate(NamedTuple):
    """A figure and its 95 % interval.

    Args:
        value: on all samples.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def to_dict(self, digits: int = 4) -> dict[str, object]:
        """Return the figure and its interval, rounded, as plain data."""
        return {"value": round(self.value, digits), "interval": [round(self.low, digits), round(self.high, digits)]}


def bootstrap(
    figure: Callable[[Tensor], float], num_samples: int, *, num_bootstraps: int = 1000, seed: int = 0
) -> Estimate:
    """Return a figure with the interval that resampling gives it.

    Args:
        figure: from indices of samples (n,), some of them several times, to the figure.
        num_samples: n.
        num_bootstraps: how often samples are drawn again.
        seed: of the drawing.

    Returns:
        The figure of all samples, and the 2.5 and 97.5 % quantiles of those of the drawn ones.

    Raises:
        ValueError: if there is no sample.

    References:
        Efron: Bootstrap methods: another look at the jackknife, Annals of Statistics 7, 1979.

    Example:
        >>> right = torch.tensor([True] * 90 + [False] * 10)
        >>> estimate = bootstrap(lambda drawn: float(right[drawn].float().mean()), len(right))
        >>> round(estimate.value, 2), 0.8 < estimate.low < 0.9 < estimate.high < 1
        (0.9, True)
    """
    if num_samples < 1:
        raise ValueError(f"A figure was asked for of {num_samples} samples; expected 1 or more.")
    generator = torch.Generator().manual_seed(seed)
    drawn = [figure(torch.randint(num_samples, (num_samples,), generator=generator)) for _ in range(num_bootstraps)]
    low, high = torch.tensor(drawn, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return Estimate(figure(torch.arange(num_samples)), low, high)


def bootstrap_mean(values: Tensor, *, num_bootstraps: int = 1000, seed: int = 0) -> Estimate:
    """Return the mean of values (n,), one for each sample, with its interval; see :func:`bootstrap`.

    Example:
        >>> bootstrap_mean(torch.tensor([True, True, True, False])).value
        0.75
    """
    values = values.double().cpu()
    return bootstrap(lambda drawn: float(values[drawn].mean()), len(values), num_bootstraps=num_bootstraps, seed=seed)
