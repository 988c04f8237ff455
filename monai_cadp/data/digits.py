# SPDX-License-Identifier: Apache-2.0
"""Handwritten digits that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_cadp.data.array_images import ArrayImages
from monai_cadp.extras import extra

__all__ = ["Digits"]


class Digits(ArrayImages):
    """1797 real digits of 8 x 8 pixels in ten classes, ready without a download; the split is fixed: 60, 20 and 20 %.

    Args:
        split: "train", "val" or "test"; each class is split in the same proportions.
        spatial_shape: size to which images are brought, or None for (8, 8).
        in_channels: 3 for color, or None for the one channel they have.

    Raises:
        ValueError: if the split is unknown.

    References:
        Alpaydin, Kaynak: Optical recognition of handwritten digits, UCI Machine Learning Repository, 1998.

    Example:
        >>> digits = Digits("val")
        >>> len(digits), digits[0]["image"].shape
        (359, torch.Size([1, 8, 8]))
    """

    num_classes = 10

    def __init__(
        self, split: str = "train", *, spatial_shape: Sequence[int] | None = None, in_channels: int | None = None
    ) -> None:
        with extra("studies", "The data set of digits"):
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        images, labels = load_digits(return_X_y=True)
        train, rest = train_test_split(np.arange(len(labels)), test_size=0.4, stratify=labels, random_state=0)
        val, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=0)
        splits = {"train": train, "val": val, "test": test}
        if split not in splits:
            raise ValueError(f"The split is {split!r}; expected one of {', '.join(splits)}.")
        chosen = splits[split]
        super().__init__(
            images[chosen].astype(np.uint8).reshape(-1, 1, 8, 8),
            labels[chosen],
            largest_value=16,
            spatial_shape=spatial_shape,
            in_channels=in_channels,
        )
