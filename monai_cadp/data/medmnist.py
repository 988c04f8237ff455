# SPDX-License-Identifier: Apache-2.0
"""Data sets in the file format of MedMNIST."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from monai_cadp.data.array_images import ArrayImages
from monai_cadp.privacy import ItemId, SubjectId

__all__ = ["NpzImages"]


class NpzImages(ArrayImages):
    r"""One split of a ``.npz`` file in MedMNIST's format, as items {"image": (C, \*spatial) in [0, 1], "label": ...}.

    The file holds ``{split}_images``, uint8, of shape (N, H, W), (N, H, W, C), (N, D, H, W) or (N, D, H, W, C) with C 1
    or 3, and ``{split}_labels`` of shape (N,), (N, 1) or (N, K). Where it holds ``{split}_patients`` of shape (N,) or
    (N, 1), texts or integers, items have a "subject" and an "item", a code of their place in the file. Files with
    pickled objects are refused.

    Args:
        file: the ``.npz`` file.
        split: "train", "val" or "test".
        spatial_shape: size to which images are brought, or None to keep theirs.
        in_channels: 1 or 3 to convert to gray or color, or None to keep the channels.
        max_items: read the first ones only, or None for all.

    Raises:
        ValueError: if the file is missing, damaged, holds other arrays, has no such split, or its patients are no
            ids.

    References:
        Yang et al.: MedMNIST v2, Scientific Data 10, 2023.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     arrays = {"train_images": np.zeros((3, 8, 8), np.uint8), "train_labels": np.ones((3, 1), np.uint8)}
        ...     np.savez(f"{folder}/a.npz", **arrays)
        ...     images = NpzImages(f"{folder}/a.npz", split="train")
        >>> len(images), images[0]["image"].shape, images[0]["label"]
        (3, torch.Size([1, 8, 8]), tensor(1))
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        split: str = "train",
        *,
        spatial_shape: Sequence[int] | None = None,
        in_channels: int | None = None,
        max_items: int | None = None,
    ) -> None:
        if max_items is not None and max_items < 1:
            raise ValueError(f"max_items is {max_items}; expected a positive number, or None for all items.")
        images, labels, patients = _load(file, split)
        if images.dtype != np.uint8:
            raise ValueError(f"The .npz file holds images of dtype {images.dtype}; expected uint8, as in MedMNIST.")
        images = _channels_first(images)
        if labels.ndim == 0:
            raise ValueError("The .npz file holds a single label; expected labels of shape (N,), (N, 1) or (N, K).")
        self._subjects = [] if patients is None else _subjects(patients, len(images))
        self._place = f"{os.path.basename(os.path.realpath(file))}/{split}"
        super().__init__(
            images[:max_items],
            labels[:max_items],
            largest_value=255,
            spatial_shape=spatial_shape,
            in_channels=in_channels,
        )

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:  # type: ignore[override]
        """Return one image and its label, and its subject where the file says it."""
        item: dict[str, Tensor | str] = dict(super().__getitem__(index))
        if self._subjects:
            place = range(len(self._subjects))[index]
            item |= {"subject": self._subjects[place], "item": ItemId(f"{self._place}/{place}").code}
        return item


def _load(file: str | os.PathLike[str], split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    if not os.path.isfile(file):
        raise ValueError("The .npz file does not exist or may not be read; check its path and its permissions.")
    needed = (f"{split}_images", f"{split}_labels")
    names: list[str] | None = None
    try:
        # Opened here: NumPy leaves a damaged file open, and the warning about that holds its path.
        with open(file, "rb") as content, np.load(content, allow_pickle=False) as archive:
            if set(needed) <= set(archive.files):
                patients = archive[f"{split}_patients"] if f"{split}_patients" in archive.files else None
                return archive[needed[0]], archive[needed[1]], patients
            names = archive.files
    except Exception:
        pass
    # Raised here, outside the except clause, so that no inner error carries the path.
    if names is None:
        raise ValueError(
            "The .npz file is damaged, no archive of NumPy, or holds pickled objects; expected arrays of numbers in "
            "MedMNIST's format, as numpy.savez writes them."
        )
    missing = " and no ".join(name for name in needed if name not in names)
    available = [name for name in ("train", "val", "test") if {f"{name}_images", f"{name}_labels"} <= set(names)]
    raise ValueError(
        f"The .npz file has no {missing}, which the split {split!r} needs; add what is missing, or choose a split that "
        f"is whole, of which it has {', '.join(available) or 'none'}."
    )


def _subjects(patients: np.ndarray, count: int) -> list[str]:
    """Return patients as text, which is exact for integers."""
    if patients.shape not in ((count,), (count, 1)) or patients.dtype.kind not in "iuUS":
        raise ValueError(
            f"The .npz file holds patients of shape {patients.shape} and dtype {patients.dtype}; expected texts or "
            f"integers of shape ({count},): one for each image, and no floats, which lose how an id is written."
        )
    flat = patients.reshape(count)
    texts = np.char.decode(flat, "utf-8", "surrogateescape") if flat.dtype.kind == "S" else flat.astype(str)
    for text in texts:
        SubjectId(text)
    return [str(text) for text in texts]


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim not in (3, 4, 5) or (images.ndim == 5 and images.shape[-1] not in (1, 3)):
        raise ValueError(
            f"The .npz file holds images of shape {images.shape}; expected (N, H, W), (N, H, W, C), (N, D, H, W) or "
            "(N, D, H, W, C) with 1 or 3 channels."
        )
    if images.ndim > 3 and images.shape[-1] in (1, 3):
        return np.moveaxis(images, -1, 1)
    return images[:, None]
