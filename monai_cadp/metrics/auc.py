# SPDX-License-Identifier: Apache-2.0
"""The area under the receiver operating characteristic."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["auc", "mean_auc"]


def auc(positives: Tensor, negatives: Tensor) -> float:
    r"""Return the area under the curve: how often one that is meant scores higher than one that is not.

    .. math:: \frac{1}{n m} \sum_{i,j} [x_i > y_j] + \tfrac{1}{2} [x_i = y_j]

    It is what scikit-learn's ``roc_auc_score`` returns. That one checks its arguments for longer than this takes, and
    every interval needs a thousand of them.

    Args:
        positives: scores x of those that are meant (n,).
        negatives: scores y of all others (m,).

    Returns:
        0 to 1; 0.5 where one of them is empty, for nothing is told then.

    Raises:
        ValueError: if a score is NaN, or the scores are not in one row each.

    References:
        Hanley, McNeil: The meaning and use of the area under a receiver operating characteristic (ROC) curve, Radiology
        143, 1982.

    Example:
        >>> auc(torch.tensor([0.9, 0.4]), torch.tensor([0.1, 0.4]))
        0.875
    """
    if positives.ndim != 1 or negatives.ndim != 1:
        raise ValueError(
            f"Scores came in the shapes {tuple(positives.shape)} and {tuple(negatives.shape)}; expected (n,) and (m,)."
        )
    if min(len(positives), len(negatives)) == 0:
        return 0.5
    positives, ordered = positives.detach().double().cpu(), negatives.detach().double().cpu().sort().values
    if positives.isnan().any() or ordered.isnan().any():
        raise ValueError("A score is NaN; expected numbers, larger for what is meant.")
    below = torch.searchsorted(ordered, positives) + torch.searchsorted(ordered, positives, right=True)
    return float(below.sum()) / (2 * len(positives) * len(negatives))


def mean_auc(scores: Tensor, labels: Tensor) -> float:
    """Return the mean area under the curve over all labels that apply to some samples and not to others.

    Args:
        scores: of every label (n, K), such as logits.
        labels: (n, K), 1 where they apply and 0 where they do not.

    Raises:
        ValueError: if there is no such label, or one is neither 0 nor 1.

    Example:
        >>> labels = torch.tensor([[1, 0], [0, 0], [1, 0]])
        >>> mean_auc(torch.tensor([[0.9, 0.1], [0.2, 0.3], [0.8, 0.5]]), labels)
        1.0
    """
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError("A label is neither 0 nor 1; leave out what is not known, such as -1 or NaN.")
    judged = [k for k in range(labels.shape[1]) if 0 < int(labels[:, k].sum()) < len(labels)]
    if not judged:
        raise ValueError("No label applies to some images and not to others; expected one that does, to be judged by.")
    areas = [auc(scores[labels[:, k] == 1, k], scores[labels[:, k] == 0, k]) for k in judged]
    return sum(areas) / len(areas)
