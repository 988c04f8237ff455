# SPDX-License-Identifier: Apache-2.0
"""Faces with forty attributes, in the layout in which they are published."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_cadp.data.image_reading import ReadImage, fit_image
from monai_cadp.privacy import ItemId

__all__ = ["CelebA"]

SPLITS = ("train", "val", "test")
ALIGNED_SHAPE = (218, 178)


class CelebA(Dataset):
    r"""Items {"image": float32 (3, \*spatial_shape) in [0, 1], "label": float32 (K,)} of aligned faces.

    The folder is that of the publishers: ``img_align_celeba/000001.jpg`` and so on, ``list_attr_celeba.txt`` and
    ``list_eval_partition.txt``; with ``identity_CelebA.txt`` items have a "subject" and an "item" too. The central
    square of a face is brought to the size asked for. A label has a 1 for every attribute that a face shows.

    Args:
        root: the folder.
        split: "train", "val" or "test", as the publishers divide the faces.
        spatial_shape: public size in pixels.
        attributes: names of the attributes that make the label, in this order; all forty if left out.

    Raises:
        ValueError: if a list is missing or damaged, or the split or an attribute is unknown; when an item is read, as
            :class:`~monai_cadp.data.ReadImage`.

    References:
        Liu, Luo, Wang, Tang: Deep learning face attributes in the wild, ICCV 2015.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        spatial_shape: Sequence[int] = (128, 128),
        attributes: Sequence[str] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"The split is {split!r}; expected one of {', '.join(SPLITS)}.")
        self._folder = Path(root)
        partition = _table(self._folder / "list_eval_partition.txt")
        _, names, *rows = _lines(self._folder / "list_attr_celeba.txt")
        self.attribute_names = tuple(names if attributes is None else attributes)
        unknown = set(self.attribute_names) - set(names)
        if unknown or len(set(self.attribute_names)) != len(self.attribute_names):
            raise ValueError(
                f"{len(unknown)} attributes are unknown or named twice; expected some of {', '.join(names)}."
            )
        self._files = [row[0] for row in rows if partition.get(row[0]) == str(SPLITS.index(split))]
        if not self._files or any(len(row) != len(names) + 1 for row in rows):
            raise ValueError(f"The lists name no face of the split {split!r}, or are damaged; download them again.")
        columns = [names.index(name) + 1 for name in self.attribute_names]
        shown = {row[0]: [float(row[column] == "1") for column in columns] for row in rows}
        self._labels = torch.tensor([shown[name] for name in self._files])
        identities = self._folder / "identity_CelebA.txt"
        self._identities = _table(identities) if identities.exists() else None
        if self._identities is not None and not set(self._files) <= self._identities.keys():
            raise ValueError("identity_CelebA.txt does not name every face; download it again, or leave it out.")
        self._read, self._shape = ReadImage(ALIGNED_SHAPE, 3), tuple(spatial_shape)

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Read one face; returns it, its attributes, and whose it is where that is known."""
        name = self._files[index]
        image = self._read(self._folder / "img_align_celeba" / name)
        height, width = ALIGNED_SHAPE
        square = image[:, (height - width) // 2 : (height + width) // 2]
        item: dict[str, Tensor | str] = {
            "image": fit_image(square, self._shape, 3),
            "label": self._labels[index].clone(),
        }
        if self._identities is not None:
            item |= {"subject": self._identities[name], "item": ItemId(name).code}
        return item


def _lines(path: Path) -> list[list[str]]:
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        lines = []
    if len(lines) < 2:
        # The name is that of a published list, and no path.
        raise ValueError(f"{path.name} is missing or damaged; expected the folder as its publishers give it.")
    return lines


def _table(path: Path) -> dict[str, str]:
    return {line[0]: line[-1] for line in _lines(path)}
