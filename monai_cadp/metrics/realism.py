# SPDX-License-Identifier: Apache-2.0
"""How much releases look like originals, as a set: distance, precision and recall of features."""

from __future__ import annotations

import torch
from monai.metrics import FIDMetric
from torch import Tensor

__all__ = ["frechet_distance", "lies_among", "precision_recall"]


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Return the Frechet distance of two sets of features (n, k), as if both were normal.

    References:
        Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter: GANs trained by a two time-scale update rule converge to a
        local Nash equilibrium, NeurIPS 2017.

    Example:
        >>> features = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        >>> frechet_distance(features, features) < 1e-3 < frechet_distance(features, features + 1)
        True
    """
    return float(FIDMetric()(one.double(), other.double()))


def precision_recall(originals: Tensor, releases: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Return the share of releases that lie among the originals, and of originals that lie among the releases.

    A point lies among a set if it is as near to one of its points as that point's k-th neighbour in the set. Low
    precision means releases that look like no original; low recall means originals of whose kind nothing is released.

    Args:
        originals: features (n, k).
        releases: features (m, k), of the same network.
        neighbours: k, below n and m.

    Returns:
        Precision and recall, 0 to 1.

    Raises:
        ValueError: if a set has no more points than neighbours.

    References:
        Kynkaanniemi, Karras, Laine, Lehtinen, Aila: Improved precision and recall metric for assessing generative
        models, NeurIPS 2019.

    Example:
        >>> features = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        >>> precision_recall(features, features + 100)
        (0.0, 0.0)
    """
    shares = (lies_among(*sets, neighbours) for sets in ((releases, originals), (originals, releases)))
    precision, recall = (float(share.float().mean()) for share in shares)
    return precision, recall


def lies_among(points: Tensor, among: Tensor, neighbours: int = 3) -> Tensor:
    """Return which of the points (n, k) lie among others (m, k), as :func:`precision_recall` counts them (n,)."""
    if not 1 <= neighbours < len(among):
        raise ValueError(
            f"{neighbours} neighbours were asked for among {len(among)} points; expected 1 or more, and less than "
            "there are points."
        )
    # A point is its own nearest neighbour.
    radius = torch.cdist(among, among).kthvalue(neighbours + 1, dim=1).values
    return (torch.cdist(points, among) <= radius).any(dim=1)
