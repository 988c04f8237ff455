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
        balanced: give every gallery image the same weight among pairs of two as it has among pairs of one.

    Example:
        >>> similarity = torch.tensor([[0.9, 0.3], [0.5, 0.6]])
        >>> people = torch.arange(2)
        >>> PairAUC(similarity, torch.ones(2, 2, dtype=torch.bool), people, people)(torch.tensor([1, 1]))
        1.0
    """

    def __init__(
        self, similarity: Tensor, comparable: Tensor, probe: Tensor, gallery: Tensor, *, balanced: bool = False
    ) -> None:
        row, column = comparable.nonzero(as_tuple=True)
        # Pairs of one and of two have the same weight within each part.
        self.part = column if balanced else torch.zeros_like(column)
        self.num_parts = len(gallery)
        self.probe, self.gallery = probe[row], gallery[column]
        self.same = self.probe == self.gallery
        # Pairs that are as similar share a rank.
        values, self.rank = similarity[comparable].unique(return_inverse=True)
        self.num_ranks = len(values)

    def __call__(self, times: Tensor) -> float:
        """Return the area where every person counts so many times (P,); somebody drawn twice is no pair with itself.

        Where there are no pairs of one or none of two, nothing is told, and the area is that of guessing.
        """
        times = times.double()
        of_one = torch.where(self.same, times[self.probe], 0.0)
        of_two = torch.where(self.same, 0.0, times[self.probe] * times[self.gallery])
        one, two = (
            torch.zeros(self.num_parts, dtype=torch.float64).index_add_(0, self.part, x) for x in (of_one, of_two)
        )
        of_one *= (two > 0)[self.part]
        of_two *= (one / two.where(two > 0, 1.0))[self.part]
        others = torch.zeros(self.num_ranks, dtype=torch.float64).index_add_(0, self.rank, of_two)
        less_similar = others.cumsum(0) - others / 2
        total = float(of_one.sum() * others.sum())
        return float((of_one * less_similar[self.rank]).sum()) / total if total > 0 else 0.5
