# SPDX-License-Identifier: Apache-2.0
"""Folders of image files, with or without one sub folder a class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_cadp.data.decoding import IMAGE_SUFFIXES
from monai_cadp.data.dicom_preamble import is_dicom
from monai_cadp.data.file_items import file_items
from monai_cadp.data.folder_entries import entries_of, is_empty, is_note, unclaimed
from monai_cadp.data.image_reading import ReadImage
from monai_cadp.data.silence import Refusal, read_silently
from monai_cadp.data.subjects import subjects_by_name
from monai_cadp.data.within import within

__all__ = ["ClassFolder", "FlatFolder", "class_folder_names", "class_names_of"]

UNREADABLE = "The image folder could not be read; check its path and its permissions."


class ClassFolder(Dataset):
    r"""Items {"image": float32 (C, \*spatial) in [0, 1], "label": int64} from one sub folder of image files a class.

    This is the layout of the OCT and chest X-ray sets of Kermany et al. (``root`` is then their ``train`` or ``test``)
    and of MedNIST. Files are read when an item is asked for. Notes (texts, tables, scripts) and what systems leave in
    folders (hidden files, ``Thumbs.db``, ``__MACOSX``, ``#recycle``, folders whose names begin with ``@``) are passed
    over and never a class; whatever else might be an image is refused. A folder of notes is no class; one without
    anything is, where others hold images. The names of the classes are public; the names of the files are not, and
    appear nowhere.

    Args:
        root: folder that holds the class folders.
        spatial_shape: public size in voxels.
        in_channels: 1 or 3; gray and color are converted.
        intensity_range: the values (low, high) that become 0 and 1; see :class:`~monai_cadp.data.ReadImage`.
        classes: names of the class folders in the order of their labels; sorted by name if left out. A class that is
            named here may have no folder in this split; a folder that is not named is an error.
        subject_pattern: regular expression that finds, as its first group, the subject in a file's name without its
            ending, such as ".png"; items have a "subject" then, and an "item", by which a ledger knows the image: a
            code of the name of ``root``, which may be a split, and the path in it, or of a DICOM file's UIDs.

    Raises:
        ValueError: if the folder is missing, a class folder is unknown, no image is found, something might be one that
            is not read, two files are the same item, or the pattern does not fit a name; when an item is read, as
            :class:`~monai_cadp.data.ReadImage`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name in ("DRUSEN", "CNV"):
        ...         Path(root, name).mkdir()
        ...         Image.new("L", (8, 8)).save(f"{root}/{name}/a.jpeg")
        ...     images = ClassFolder(root, spatial_shape=(4, 4))
        ...     images.class_names, len(images), images[1]["label"]
        (('CNV', 'DRUSEN'), 2, tensor(1))
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        spatial_shape: Sequence[int],
        in_channels: int = 1,
        intensity_range: tuple[float, float] | None = None,
        classes: Sequence[str] | None = None,
        subject_pattern: str | None = None,
    ) -> None:
        self.read_image = ReadImage(spatial_shape, in_channels, intensity_range)
        self.input_folders = [Path(root)]
        found = class_folder_names(root)
        read_silently(lambda: _check_beside(Path(root)), UNREADABLE)
        self.class_names = tuple(found if classes is None else classes)
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError("A class is named twice in classes; expected every name once.")
        num_unknown = len(set(found) - set(self.class_names))
        if num_unknown:
            # Not named: a folder that is no class may be called after a patient.
            raise ValueError(
                f"The image folder holds {num_unknown} sub folders that are not among the classes "
                f"{', '.join(self.class_names)}; call every one by its class, or move it away."
            )
        self._items = [
            (str(path), label)
            for label, name in enumerate(self.class_names)
            if name in found
            for path in _image_files(Path(root, name))
        ]
        if not self._items:
            raise ValueError(
                f"No image was found in the sub folders of {len(found)} classes; expected root/CLASS/image files."
            )
        self._subjects = _subjects(root, [path for path, _ in self._items], subject_pattern)

    @property
    def num_classes(self) -> int:
        """Number of classes, with or without images."""
        return len(self.class_names)

    @property
    def file_names(self) -> list[str]:
        """Path of every image, for its curator only."""
        return [path for path, _ in self._items]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Read one image; returns it, its label, and its subject where there is a pattern."""
        path, label = self._items[index]
        return {"image": self.read_image(path), "label": torch.tensor(label)} | self._subjects[index]


class FlatFolder(Dataset):
    r"""Items {"image": float32 (C, \*spatial) in [0, 1]} from one folder of image files without labels.

    Args:
        root: folder that holds the files; what is passed over and refused in it, :class:`ClassFolder` says.
        spatial_shape: public size in voxels.
        in_channels: channels of the tensors.
        intensity_range: the values (low, high) that become 0 and 1; see :class:`~monai_cadp.data.ReadImage`.
        subject_pattern: as in :class:`ClassFolder`.

    Raises:
        ValueError: if the folder is missing, holds no image, or something that might be one and is not read, two files
            are the same item, or the pattern does not fit a name; when an item is read, as
            :class:`~monai_cadp.data.ReadImage`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     Image.new("L", (8, 8)).save(f"{root}/a.png")
        ...     list(FlatFolder(root, spatial_shape=(4, 4))[0])
        ['image']
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        spatial_shape: Sequence[int],
        in_channels: int = 1,
        intensity_range: tuple[float, float] | None = None,
        subject_pattern: str | None = None,
    ) -> None:
        self.read_image = ReadImage(spatial_shape, in_channels, intensity_range)
        self.input_folders = [Path(root)]
        self._paths = [str(path) for path in _image_files(_existing(root))]
        if not self._paths:
            raise ValueError(f"The folder holds no image file; expected DICOM or one of {', '.join(IMAGE_SUFFIXES)}.")
        self._subjects = _subjects(root, self._paths, subject_pattern)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._paths)

    @property
    def file_names(self) -> list[str]:
        """Path of every image, for its curator only."""
        return list(self._paths)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Read one image; returns it, and its subject where there is a pattern."""
        return {"image": self.read_image(self._paths[index])} | self._subjects[index]


def class_folder_names(root: str | os.PathLike[str]) -> list[str]:
    """Return the sorted names of the sub folders of ``root`` that are classes, as in :class:`ClassFolder`.

    Args:
        root: folder that holds class folders.

    Returns:
        The names; empty for a flat folder, whose sub folders hold notes at most.

    Raises:
        ValueError: if there is no such folder.
    """
    folder = _existing(root)
    return read_silently(lambda: [path.name for path in _class_folders(folder)], UNREADABLE)


def class_names_of(images: Any) -> list[str] | None:
    """Return the names of the classes of a data set, in the order of their labels.

    Args:
        images: a :class:`ClassFolder`, or a part or a transformed version of one; any other data set.

    Returns:
        The names; None where classes have numbers only.

    Example:
        >>> class_names_of([{"label": 0}]) is None
        True
    """
    names = within(images, "class_names")
    return None if names is None else list(names)


def _existing(root: str | os.PathLike[str]) -> Path:
    if not read_silently(Path(root).is_dir, UNREADABLE):
        raise ValueError("The image folder does not exist; give the path of a folder.")
    return Path(root)


def _class_folders(root: Path) -> list[Path]:
    folders = [path for path in entries_of(root) if path.is_dir()]
    if all(is_empty(path) for path in folders):
        return []
    # One without anything may be a class of which this split has no image.
    return [path for path in folders if not is_empty(path) or not entries_of(path)]


def _image_files(folder: Path) -> list[Path]:
    return read_silently(lambda: _images_in(folder), UNREADABLE)


def _images_in(folder: Path) -> list[Path]:
    entries = [path for path in entries_of(folder) if not is_note(path)]
    folders = {path for path in entries if path.is_dir()}
    count = sum(not is_empty(path) for path in folders)
    if count:
        raise Refusal(
            f"{count} folders lie in a folder of images, of which files alone are read; move their images up "
            "into it, or the folders away."
        )
    files = [path for path in entries if path not in folders]
    images = [path for path in files if path.name.lower().endswith(IMAGE_SUFFIXES) or is_dicom(path)]
    others = unclaimed(files, images)
    if others:
        raise Refusal(
            f"{len(others)} files in a folder of images are neither DICOM nor of the formats "
            f"{', '.join(IMAGE_SUFFIXES)}, nor notes such as .txt or .csv; convert what is an image, and move the "
            "others away."
        )
    return images


def _check_beside(root: Path) -> None:
    """Refuse what lies beside class folders and might be an image, or is a link to a folder that is not there."""
    others = [path for path in entries_of(root) if not path.is_dir() and not is_note(path)]
    if others:
        raise Refusal(
            f"{len(others)} files, or links to what is not there, lie beside folders, which are taken for classes; "
            "move every image into the folder of its class, and what is no image away, or the folders."
        )


def _subjects(root: str | os.PathLike[str], paths: Sequence[str], pattern: str | None) -> Sequence[dict[str, str]]:
    """Return what items say of their subjects, nothing without a pattern, and refuse an image that is there twice."""
    items = file_items(paths, root, "files of the folder, in the order of their names,")
    if pattern is None:
        return [{}] * len(paths)
    subjects = subjects_by_name(paths, pattern)
    return [{"subject": subject, "item": item} for subject, item in zip(subjects, items, strict=True)]
