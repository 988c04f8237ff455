# SPDX-License-Identifier: Apache-2.0
"""How alike an original and its release look to a network, beyond what any two images of a class have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from monai_cadp.metrics.intervals import Estimate, bootstrap_mean

__all__ = ["PerceptualSimilarity", "perceptual_similarity"]


class PerceptualSimilarity(NamedTuple):
    """How alike originals and releases are, from -1 to 1.

    Args:
        pairs: of an original and its release.
        shuffled: of an original and the release of another one of its class: the zero line.
        above: the first minus the second, on the same originals.
    """

    pairs: Estimate
    shuffled: Estimate
    above: Estimate


@torch.no_grad()
def perceptual_similarity(
    originals: Tensor,
    releases: Tensor,
    features: Callable[[Tensor], Tensor],
    labels: Tensor | None = None,
    *,
    people: Tensor | None = None,
    num_bootstraps: int = 1000,
    seed: int = 0,
) -> PerceptualSimilarity:
    r"""Return the mean cosine between features of originals and of releases, each set minus its own mean.

    Beside it stands the mean over all pairs of an original and a release of another original of its class, to which a
    release that says nothing but its class comes on average.

    Args:
        originals: (n, C, \*spatial).
        releases: of the originals, in the same order.
        features: images (B, C, \*spatial) to (B, k), such as ``train_classifier(...)[:-1]``.
        labels: classes (n,), two originals or more in each; None for one class.
        people: whose each original is (n,), as numbers, for the intervals; None for originals of n people.
        num_bootstraps: how often people are drawn again for the intervals, each with all their originals.
        seed: of the drawing.

    Returns:
        The similarities with their intervals.

    Raises:
        ValueError: if shapes do not fit, or a class has one original only.

    References:
        Zhang, Isola, Efros, Shechtman, Wang: The unreasonable effectiveness of deep features as a perceptual metric,
        CVPR 2018 (cosines of features as likeness).

    Example:
        >>> x = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> similarity = perceptual_similarity(x, x, torch.nn.Flatten())
        >>> round(similarity.pairs.value, 3), abs(similarity.shuffled.value) < 0.1
        (1.0, True)
    """
    if labels is None:
        labels = torch.zeros(len(originals), dtype=torch.long, device=originals.device)
    if originals.shape != releases.shape or labels.shape != originals.shape[:1]:
        raise ValueError(
            f"Originals, releases and labels came in the shapes {tuple(originals.shape)}, {tuple(releases.shape)} and "
            f"{tuple(labels.shape)}; expected the same shape twice, and (n,)."
        )
    _, groups, counts = labels.unique(return_inverse=True, return_counts=True)
    if len(counts) == 0 or int(counts.min()) < 2:
        raise ValueError(
            "A class has one original or none; expected two or more, so that each has another's release beside it."
        )
    a, b = (_directions(torch.cat([features(x) for x in images.split(64)])) for images in (originals, releases))
    pairs = (a * b).sum(1)
    sums = b.new_zeros(len(counts), b.shape[1]).index_add_(0, groups, b)
    shuffled = ((a * sums[groups]).sum(1) - pairs) / (counts[groups] - 1)
    resampled: dict[str, Any] = {"people": people, "num_bootstraps": num_bootstraps, "seed": seed}
    return PerceptualSimilarity(*(bootstrap_mean(of, **resampled) for of in (pairs, shuffled, pairs - shuffled)))


def _directions(features: Tensor) -> Tensor:
    features = features.flatten(1).double()
    return normalize(features - features.mean(0), dim=1)
