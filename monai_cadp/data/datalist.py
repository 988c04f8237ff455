# SPDX-License-Identifier: Apache-2.0
"""Images named in a list, as MONAI writes them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_cadp.data.file_items import file_items
from monai_cadp.data.image_reading import ReadImage
from monai_cadp.privacy import SubjectId

__all__ = ["ImageList", "checked_entries", "labels_of", "load_datalist"]


class ImageList(Dataset):
    r"""Items {"image": float32 (C, \*spatial) in [0, 1], "label": ..., "subject": ...} from a MONAI datalist.

    A datalist is a list of {"image": path, "label": number}, or a JSON file with such lists under keys ("training",
    "validation"...). The label is a class index (items: int64 tensors without dimensions) or a list of numbers (items:
    float32 tensors (K,)). "label" and "subject" may be left out of all entries, not of some. The subject says whose
    image it is, as needed by a budget per patient: a text, even where it looks like a number. It is secret and
    handed on for that use only, and so is the "item", by which a ledger knows the image: a code of the name of
    ``base_dir`` and the path in it, or of a DICOM file's UIDs. Every other key is dropped.

    Args:
        datalist: the list, or the path of the JSON file.
        spatial_shape: public size in voxels.
        in_channels: channels of the tensors.
        intensity_range: the values (low, high) that become 0 and 1; see :class:`~monai_cadp.data.ReadImage`.
        base_dir: folder to which paths are relative; the folder of the JSON file if left out.
        datalist_key: which list of a JSON file.

    Raises:
        ValueError: if the list is missing, damaged or empty, lacks the key, or holds entries of another form or the
            same image twice; when an item is read, as :class:`~monai_cadp.data.ReadImage`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (8, 8)).save(f"{folder}/a.png")
        ...     images = ImageList([{"image": "a.png", "label": 2}], spatial_shape=(4, 4), base_dir=folder)
        ...     images[0]["image"].shape, images[0]["label"]
        (torch.Size([1, 4, 4]), tensor(2))
    """

    def __init__(
        self,
        datalist: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
        spatial_shape: Sequence[int],
        in_channels: int = 1,
        intensity_range: tuple[float, float] | None = None,
        *,
        base_dir: str | os.PathLike[str] | None = None,
        datalist_key: str = "training",
    ) -> None:
        self.read_image = ReadImage(spatial_shape, in_channels, intensity_range)
        if isinstance(datalist, str | os.PathLike):
            base_dir = Path(datalist).parent if base_dir is None else base_dir
            datalist = load_datalist(Path(datalist), datalist_key)
        entries = checked_entries(datalist)
        self._paths = [os.path.join(base_dir or "", entry["image"]) for entry in entries]
        self._items = file_items(self._paths, base_dir or None, "entries of the datalist, in their order,")
        self._labels = labels_of(entries)
        self._subjects = [entry["subject"] for entry in entries if "subject" in entry]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._paths)

    @property
    def file_names(self) -> list[str]:
        """Path of every image, for its curator only."""
        return list(self._paths)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Read one image; returns it with its label and subject, where the list has them."""
        item: dict[str, Tensor | str] = {"image": self.read_image(self._paths[index])}
        if self._labels:
            item["label"] = self._labels[index].clone()
        if self._subjects:
            item |= {"subject": self._subjects[index], "item": self._items[index]}
        return item


def load_datalist(path: Path, key: str) -> Any:
    """Return one list of a JSON file; raises ValueError, without a path, where there is none."""
    if not os.path.isfile(path):
        raise ValueError("The datalist file does not exist or may not be read; check its path and its permissions.")
    content = None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    # Raised here, outside the except clause, so that no inner error carries the path or the content.
    if not isinstance(content, dict):
        raise ValueError(
            "The datalist file holds no JSON object, or may not be read; expected lists of entries under keys such as "
            '"training".'
        )
    if key not in content:
        raise ValueError(
            f"The datalist file has no list {key!r}; call one of its lists so, or choose another by the datalist_key "
            "or the split."
        )
    return content[key]


def checked_entries(datalist: Any, paths: Sequence[str] = ("image",)) -> Sequence[Mapping[str, Any]]:
    """Return a datalist all of whose entries have these paths; raises ValueError, naming positions only."""
    if not isinstance(datalist, list | tuple) or not datalist:
        came = "empty" if isinstance(datalist, list | tuple) else "no list"
        form = ", ".join(f'"{key}": path' for key in paths)
        raise ValueError(f"The datalist is {came}; expected a list of entries {{{form}}}, one for each image.")
    for number, entry in enumerate(datalist, 1):
        for key in paths:
            if not isinstance(entry, Mapping) or not isinstance(entry.get(key), str | os.PathLike):
                raise ValueError(
                    f'Entry {number} of {len(datalist)} of the datalist has no text under "{key}"; expected the path '
                    "of one file."
                )
    for key in ("label", "subject"):
        count = sum(key in entry for entry in datalist)
        if count not in (0, len(datalist)):
            raise ValueError(
                f'{count} of {len(datalist)} entries of the datalist have "{key}"; expected all or none: add the '
                "others, or remove these."
            )
    for entry in datalist:
        if "subject" in entry:
            SubjectId(entry["subject"])
    return datalist


def labels_of(entries: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    """Return the labels of entries that have any, class indices () or vectors (K,); raises ValueError for others."""
    labels = [_label(entry["label"]) for entry in entries if "label" in entry]
    if len({(label.dtype, label.shape) for label in labels}) > 1:
        raise ValueError("The datalist mixes kinds of labels; expected class indices, or lists of one length.")
    return labels


def _label(value: Any) -> Tensor:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return torch.tensor(value)
    if isinstance(value, list | tuple) and value and all(isinstance(entry, int | float) for entry in value):
        return torch.tensor(value, dtype=torch.float32)
    raise ValueError("A label of the datalist is neither a class index from 0 nor a list of numbers; expected one.")
