# SPDX-License-Identifier: Apache-2.0
"""Parts of a data set that comes as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.utils.data import Dataset, Subset

__all__ = ["Part"]

SPLITS = ("train", "val", "test")


class Part(Subset):
    """A share of a data set, drawn at random and the same at every time.

    Args:
        images: the whole.
        split: "train", "val" or "test".
        shares: of the three, which add up to 1.
        seed: of the drawing; public.

    Raises:
        ValueError: if the split is unknown, the shares are no shares, or nothing is left for the split.

    Example:
        >>> parts = [Part(range(100), split) for split in ("train", "val", "test")]
        >>> [len(part) for part in parts], sorted(item for part in parts for item in part) == list(range(100))
        ([80, 10, 10], True)
    """

    def __init__(self, images: Dataset, split: str, shares: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> None:
        if split not in SPLITS:
            raise ValueError(f"The split is {split!r}; expected one of {', '.join(SPLITS)}.")
        if len(shares) != len(SPLITS) or min(shares) < 0 or not math.isclose(sum(shares), 1):
            raise ValueError(f"The shares are {list(shares)}; expected three numbers that add up to 1.")
        count = len(images)  # type: ignore[arg-type]
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
        index = SPLITS.index(split)
        start, end = (round(count * sum(shares[:number])) for number in (index, index + 1))
        if start == end:
            raise ValueError(f"Nothing of {count} images is left for {split}; expected more images, or another share.")
        super().__init__(images, order[start:end])
