# SPDX-License-Identifier: Apache-2.0
"""The area under the curve over pairs, for people who are drawn again and again."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["PairAUC"]


class PairAUC:
    """Tells pairs of one person from pairs of two by their similarity; pairs are sorted once, for all drawings.

    Args:
        similarity: of probes to gallery images (n, m).
        comparable: which pairs count (n, m).
        probe: whose each probe is (n,), as indices of people.
        gallery: whose each gallery image is (m,).

    Example:
        >>> similarity = torch.tensor([[0.9, 0.3], [0.5, 0.6]])
        >>> people = torch.arange(2)
        >>> PairAUC(similarity, torch.ones(2, 2, dtype=torch.bool), people, people)(torch.tensor([1, 1]))
        1.0
    """

    def __init__(self, similarity: Tensor, comparable: Tensor, probe: Tensor, gallery: Tensor) -> None:
        row, column = comparable.nonzero(as_tuple=True)
        self.probe, self.gallery = probe[row], gallery[column]
        self.same = self.probe == self.gallery
        # Pairs that are as similar share a rank.
        values, self.rank = similarity[comparable].unique(return_inverse=True)
        self.num_ranks = len(values)

    def __call__(self, times: Tensor) -> float:
        """Return the area where every person counts so many times (P,); somebody drawn twice is no pair with itself."""
        times = times.double()
        of_two = torch.where(self.same, 0.0, times[self.probe] * times[self.gallery])
        others = torch.zeros(self.num_ranks, dtype=torch.float64).index_add_(0, self.rank, of_two)
        less_similar = others.cumsum(0) - others / 2
        of_one = times[self.probe[self.same]]
        return float((of_one * less_similar[self.rank[self.same]]).sum() / (of_one.sum() * others.sum()))
