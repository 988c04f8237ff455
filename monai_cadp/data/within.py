# SPDX-License-Identifier: Apache-2.0
"""What a data set knows that others are made of."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

__all__ = ["all_within", "within"]

# What a data set holds others by: Subset and ConcatDataset of torch, Dataset of MONAI, and WithMasks.
HELD_BY = ("dataset", "datasets", "data", "images")


def within(images: Any, name: str) -> Any:
    """Return what a data set, or those that it is a part or a transformed version of, have in common under a name.

    Args:
        images: any data set.
        name: of an attribute.

    Returns:
        Its value; None where none has it, or they differ.

    Example:
        >>> within([{"label": 0}], "class_names") is None
        True
    """
    found = all_within(images, name)
    return found[0] if found and all(value == found[0] for value in found) else None


def all_within(images: Any, name: str) -> list[Any]:
    """Return what all data sets that one is made of have under a name.

    Args:
        images: any data set.
        name: of an attribute.

    Returns:
        Their values, in their order.

    Example:
        >>> from torch.utils.data import ConcatDataset
        >>> from monai_cadp.data import Digits
        >>> all_within(ConcatDataset([Digits("train"), Digits("test")]), "num_classes")
        [10, 10]
    """
    if hasattr(images, name):
        return [getattr(images, name)]
    if not isinstance(images, Dataset):
        return []
    held = [getattr(images, by) for by in HELD_BY if hasattr(images, by)]
    parts = [part for one in held for part in (one if isinstance(one, list | tuple) else [one])]
    return [value for part in parts for value in all_within(part, name)]
