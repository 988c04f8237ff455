# SPDX-License-Identifier: Apache-2.0
"""How much of an image's content a release still has, beyond what its class says."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pixel_cosine", "within_class_correlation"]


def within_class_correlation(original: Tensor, released: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return the Pearson correlation of every feature between originals and releases, class means taken away.

    Args:
        original: features (n, k) of originals.
        released: features (n, k) of their releases.
        labels: classes (n,), or None for one class.

    Returns:
        Correlations (k,); 0 where a feature does not vary.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> x = torch.randn(100, 2)
        >>> within_class_correlation(x, 3 * x + 1)
        tensor([1., 1.])
    """
    if original.shape != released.shape or original.ndim != 2 or (labels is not None and len(labels) != len(original)):
        raise ValueError(
            f"The features have shapes {tuple(original.shape)} and {tuple(released.shape)}; expected (n, k) twice, "
            "and labels (n,)."
        )
    labels = torch.zeros(len(original), dtype=torch.long) if labels is None else labels
    a, b = _centred(original.double(), labels), _centred(released.double(), labels)
    scale = (a.square().sum(0) * b.square().sum(0)).sqrt()
    return torch.where(scale > 0, (a * b).sum(0) / scale.clamp(min=1e-300), 0.0).float()


def pixel_cosine(original: Tensor, released: Tensor) -> float:
    r"""Return the mean cosine between originals and releases (n, \*shape), each set minus its own mean image.

    Example:
        >>> x = torch.rand(10, 1, 4, 4)
        >>> round(pixel_cosine(x, x), 3)
        1.0
    """
    a, b = original.flatten(1).double(), released.flatten(1).double()
    return torch.nn.functional.cosine_similarity(a - a.mean(0), b - b.mean(0)).mean().item()


def _centred(features: Tensor, labels: Tensor) -> Tensor:
    classes, groups = labels.unique(return_inverse=True)
    sums = torch.zeros(len(classes), features.shape[1], dtype=features.dtype).index_add_(0, groups, features)
    return features - (sums / groups.bincount()[:, None])[groups]
