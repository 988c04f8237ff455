# SPDX-License-Identifier: Apache-2.0
"""What a data set knows that others are made of."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

__all__ = ["within"]

# What a data set holds another one by: Subset of torch, Dataset of MONAI, and WithMasks.
HELD_BY = ("dataset", "data", "images")


def within(images: Any, name: str) -> Any:
    """Return what a data set, or the one that it is a part or a transformed version of, has under a name.

    Args:
        images: any data set.
        name: of an attribute.

    Returns:
        Its value; None where none has it.

    Example:
        >>> within([{"label": 0}], "class_names") is None
        True
    """
    while not hasattr(images, name):
        inner = next((getattr(images, held) for held in HELD_BY if hasattr(images, held)), None)
        if not isinstance(images, Dataset) or not isinstance(inner, Dataset):
            return None
        images = inner
    return getattr(images, name)
