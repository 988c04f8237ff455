# SPDX-License-Identifier: Apache-2.0
"""Parts of a data set that comes as one, with every subject in one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.utils.data import Dataset, Subset

from monai_cadp.data.people import people_of

__all__ = ["Part"]

SPLITS = ("train", "val", "test")


class Part(Subset):
    """A share of a data set, drawn at random and the same at every time; all images of a subject are in one part.

    Args:
        images: the whole. Where items have no ``subject``, every image is a subject of its own.
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
        people = _people(images)
        count = max(people, default=-1) + 1
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
        index = SPLITS.index(split)
        start, end = (round(count * sum(shares[:number])) for number in (index, index + 1))
        if start == end:
            raise ValueError(f"Nothing of {count} subjects is left for {split}; give more images, or another share.")
        places: list[list[int]] = [[] for _ in range(count)]
        for place, person in enumerate(people):
            places[person].append(place)
        super().__init__(images, [place for person in order[start:end] for place in places[person]])


def _people(images: Dataset) -> list[int]:
    count = len(images)  # type: ignore[arg-type]
    first = images[0] if count else None
    # Where the first item has no subject, none has: the others need not be read.
    return people_of(images) if isinstance(first, Mapping) and "subject" in first else list(range(count))
