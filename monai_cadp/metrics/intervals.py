# SPDX-License-Identifier: Apache-2.0
"""How certain a figure is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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
    figure: Callable[[Tensor], float],
    num_samples: int,
    *,
    people: Tensor | None = None,
    num_bootstraps: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return a figure with the interval that resampling gives it.

    Args:
        figure: from indices of samples (n,), some of them several times, to the figure.
        num_samples: n.
        people: whose each sample is (n,), as numbers: people are drawn, each with all their samples; None for samples
            of n people.
        num_bootstraps: how often samples are drawn again.
        seed: of the drawing.

    Returns:
        The figure of all samples, and the 2.5 and 97.5 % quantiles of those of the drawn ones.

    Raises:
        ValueError: if there is no sample, or it is not said of each whose it is.

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
    if people is not None and people.shape != (num_samples,):
        raise ValueError(
            f"People came in the shape {tuple(people.shape)} for {num_samples} samples; expected one each."
        )
    generator = torch.Generator().manual_seed(seed)
    owner = torch.arange(num_samples) if people is None else people.cpu().unique(return_inverse=True)[1]
    # Samples, sorted by whose they are.
    samples = owner.argsort(stable=True).split(owner.bincount().tolist())

    def drawn_again() -> Tensor:
        chosen = torch.randint(len(samples), (len(samples),), generator=generator)
        return chosen if people is None else torch.cat([samples[person] for person in chosen.tolist()])

    drawn = [figure(drawn_again()) for _ in range(num_bootstraps)]
    low, high = torch.tensor(drawn, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return Estimate(figure(torch.arange(num_samples)), low, high)


def bootstrap_mean(
    values: Tensor, *, people: Tensor | None = None, num_bootstraps: int = 1000, seed: int = 0
) -> Estimate:
    """Return the mean of values (n,), one for each sample, with its interval; see :func:`bootstrap`.

    Example:
        >>> bootstrap_mean(torch.tensor([True, True, True, False])).value
        0.75
    """
    values = values.double().cpu()
    resampled: dict[str, Any] = {"people": people, "num_bootstraps": num_bootstraps, "seed": seed}
    return bootstrap(lambda drawn: float(values[drawn].mean()), len(values), **resampled)
