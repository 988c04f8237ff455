# SPDX-License-Identifier: Apache-2.0
"""Images that are held in memory as one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_cadp.data.image_reading import fit_image

__all__ = ["ArrayImages"]


class ArrayImages(Dataset):
    r"""Items {"image": float32 (C, \*spatial) in [0, 1], "label": ...} from one array of images and one of labels.

    Args:
        images: (N, C, \*spatial), real numbers from 0 to ``largest_value``.
        labels: integers (N,) or (N, 1) for class indices (items: int64 tensors without dimensions); (N, K) for several
            labels at once (items: float32 tensors (K,)).
        largest_value: the public value that becomes 1.
        spatial_shape: size to which images are brought, or None to keep theirs.
        in_channels: 1 or 3 to convert to gray or color, or None to keep the channels.

    Raises:
        ValueError: if there are no images, the numbers of images and labels differ, or labels are not numbers.

    Example:
        >>> images = ArrayImages(np.zeros((5, 1, 4, 4), dtype=np.uint8), np.arange(5), largest_value=255)
        >>> len(images), images[2]["image"].shape, images[2]["label"]
        (5, torch.Size([1, 4, 4]), tensor(2))
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        largest_value: float,
        spatial_shape: Sequence[int] | None = None,
        in_channels: int | None = None,
    ) -> None:
        if labels.dtype.kind not in "biuf" or labels.ndim not in (1, 2) or 0 in labels.shape[1:]:
            raise ValueError(
                f"Labels came as {labels.dtype} of shape {labels.shape}; expected class indices or vectors, numbers of "
                "shape (N,), (N, 1) or (N, K)."
            )
        if len(images) == 0 or len(images) != len(labels):
            raise ValueError(
                f"There are {len(images)} images and {len(labels)} labels; expected as many, one at least."
            )
        self.images = torch.from_numpy(np.ascontiguousarray(images))
        self.labels = _checked_labels(labels)
        self.largest_value = largest_value
        self.spatial_shape = None if spatial_shape is None else tuple(spatial_shape)
        self.in_channels = in_channels
        self[0]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one image and its label."""
        image = self.images[index].float() / self.largest_value
        return {"image": fit_image(image, self.spatial_shape, self.in_channels), "label": self.labels[index].clone()}


def _checked_labels(labels: np.ndarray) -> Tensor:
    if labels.ndim == 2 and labels.shape[1] > 1:
        return torch.from_numpy(labels.astype(np.float32))
    if labels.dtype.kind == "f" or int(labels.min()) < 0:
        raise ValueError("Labels of shape (N,) are not class indices; expected integers from 0.")
    return torch.from_numpy(labels.reshape(len(labels)).astype(np.int64))
