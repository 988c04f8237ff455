# SPDX-License-Identifier: Apache-2.0
"""Whether the right one is among the nearest, when an attacker sorts candidates."""

from __future__ import annotations

from torch import Tensor

__all__ = ["among_nearest"]


def among_nearest(similarity: Tensor, right: Tensor, k: int = 1) -> Tensor:
    """Return the chance that the right candidate is among the k most similar ones, ties in random order.

    Args:
        similarity: of every query to every candidate (n, m).
        right: which candidate is right (n,), as indices.
        k: candidates that the attacker may name.

    Returns:
        Chances (n,), float64: 0 or 1, and in between where several candidates are as similar as the right one.

    Raises:
        ValueError: if a similarity is NaN, with which nothing can be sorted, or k is not positive.

    Example:
        >>> import torch
        >>> among_nearest(torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.5, 0.0]]), torch.tensor([0, 1])).tolist()
        [1.0, 0.5]
    """
    if similarity.isnan().any():
        raise ValueError("A similarity is NaN; expected numbers, by which candidates can be sorted.")
    if k < 1:
        raise ValueError(f"k is {k}; expected 1 candidate or more.")
    own = similarity.gather(1, right[:, None])
    nearer, as_near = (similarity > own).sum(1), (similarity == own).sum(1)
    return ((k - nearer).double() / as_near).clamp(0, 1)
