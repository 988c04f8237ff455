# SPDX-License-Identifier: Apache-2.0
"""One door to every kind of data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import Dataset

from monai_cadp.data.class_folder import UNREADABLE, ClassFolder, FlatFolder, class_folder_names
from monai_cadp.data.datalist import ImageList
from monai_cadp.data.digits import Digits
from monai_cadp.data.folder_entries import entries_of, is_empty, is_note
from monai_cadp.data.medmnist import NpzImages
from monai_cadp.data.silence import read_silently

__all__ = ["open_images", "split_folder"]

SPLITS = ("train", "val", "test")
DATALIST_KEYS = {"train": "training", "val": "validation", "test": "test"}


def open_images(
    source: str | os.PathLike[str],
    split: str,
    spatial_shape: Sequence[int],
    in_channels: int = 1,
    intensity_range: tuple[float, float] | None = None,
    classes: Sequence[str] | None = None,
    datalist_key: str | None = None,
    subject_pattern: str | None = None,
    archive: str | None = None,
) -> Dataset:
    r"""Open a data set of images by what ``source`` is.

    =========================================  =================================================================
    source                                     data set
    =========================================  =================================================================
    ``"digits"``                               :class:`~monai_cadp.data.Digits`
    a ``.npz`` file                            :class:`~monai_cadp.data.NpzImages`
    a ``.json`` file                           :class:`~monai_cadp.data.ImageList`
    a folder with split/CLASS/ or CLASS/       :class:`~monai_cadp.data.ClassFolder`
    a folder with split/ or just image files   :class:`~monai_cadp.data.FlatFolder`
    =========================================  =================================================================

    A folder that has none of train, val and test is one set: it is returned whole for whichever split, so a network
    must not be trained and tested on it. Labels of class folders follow the folders of train where there are any, so
    that a class which is missing in test does not shift the labels.

    Args:
        source: "digits", or the path of a file or folder.
        split: "train", "val" or "test".
        spatial_shape: public size in voxels, (H, W) or three numbers.
        in_channels: channels of the images.
        intensity_range: the values (low, high) that become 0 and 1, for image files; see
            :class:`~monai_cadp.data.ReadImage`.
        classes: names of the class folders in the order of their labels.
        datalist_key: list of a ``.json`` file; "training", "validation" or "test" by the split if left out.
        subject_pattern: finds the subject in the names of a folder's files; see :class:`~monai_cadp.data.ClassFolder`.

        archive: name of a ``.npz`` file, which is taken where the source is a folder that holds it.

    Returns:
        A data set of items {"image": float32 (in_channels, \*spatial_shape) in [0, 1], "label": ..., "subject": ...};
        the last two where the source has them. It can be pickled for the workers of a loader.

    Raises:
        ValueError: if the source is missing or of no known kind, the split is missing, or a parameter does not belong
            to the kind.

    Example:
        >>> images = open_images("digits", split="train", spatial_shape=(16, 16))
        >>> images[0]["image"].shape
        torch.Size([1, 16, 16])
    """
    if split not in SPLITS:
        raise ValueError(f"The split is {split!r}; expected one of {', '.join(SPLITS)}.")
    path = Path(source)
    if archive is not None and os.path.isfile(path / archive):
        path = path / archive
    if str(source) != "digits" and not os.path.exists(path):
        raise ValueError(
            'The source does not exist or may not be read; give "digits", or the path of a folder, a .npz or a .json '
            "file."
        )
    is_folder = read_silently(path.is_dir, UNREADABLE)
    is_list = not is_folder and path.suffix.lower() == ".json"
    if classes is not None and not is_folder:
        raise ValueError("classes were given, but the source is not a folder; leave them out.")
    if subject_pattern is not None and not is_folder:
        raise ValueError("subject_pattern was given, but the source is not a folder; leave it out.")
    if datalist_key is not None and not is_list:
        raise ValueError("datalist_key was given, but the source is not a .json file; leave it out.")
    if is_folder:
        images = _open_folder(path, split, spatial_shape, in_channels, intensity_range, classes, subject_pattern)
        # The one that was given, above its splits.
        images.input_folders = [path]
        return images
    if is_list:
        key = datalist_key or DATALIST_KEYS[split]
        return ImageList(path, spatial_shape, in_channels, intensity_range, datalist_key=key)
    if str(source) != "digits" and path.suffix.lower() != ".npz":
        raise ValueError('The source is a file of no known kind; expected "digits", a folder, a .npz or a .json file.')
    if intensity_range is not None:
        raise ValueError("intensity_range was given, but the source has a fixed scale; leave it out.")
    if str(source) == "digits":
        return Digits(split, spatial_shape=spatial_shape, in_channels=in_channels)
    return NpzImages(path, split, spatial_shape=spatial_shape, in_channels=in_channels)


def split_folder(root: Path, split: str) -> Path:
    """Return the folder of a split; ``root`` itself, if it has none of train, val and test.

    Raises:
        ValueError: if there are others, and not this one, or something beside them that might hold images.
    """
    available = [name for name in SPLITS if read_silently((root / name).is_dir, UNREADABLE)]
    if not available:
        return root
    if split not in available:
        raise ValueError(f"The image folder has no split {split!r}; it has {', '.join(available)}.")
    count = read_silently(lambda: len(_beside(root, available)), UNREADABLE)
    if count:
        # None is named, for folders may be called after patients.
        raise ValueError(
            f"The image folder holds {count} files or folders beside {', '.join(available)}, which belong to no split, "
            "such as a second copy, or a folder valid in place of val; rename what is a split, and move the rest away."
        )
    return root / split


def _beside(root: Path, splits: Sequence[str]) -> list[Path]:
    """Return what lies beside the folders of splits and might hold images."""
    entries = [path for path in entries_of(root) if not is_note(path) and not is_empty(path)]
    # Not by their names: on some disks Train is train.
    return [path for path in entries if not (path.is_dir() and any(path.samefile(root / name) for name in splits))]


def _open_folder(
    root: Path,
    split: str,
    spatial_shape: Sequence[int],
    in_channels: int,
    intensity_range: tuple[float, float] | None,
    classes: Sequence[str] | None,
    subject_pattern: str | None,
) -> ClassFolder | FlatFolder:
    folder, has_train = split_folder(root, split), read_silently((root / "train").is_dir, UNREADABLE)
    if not class_folder_names(folder):
        if classes is not None:
            raise ValueError("classes were given, but the folder has no class folders; leave them out.")
        return FlatFolder(folder, spatial_shape, in_channels, intensity_range, subject_pattern)
    if classes is None and has_train:
        classes = class_folder_names(root / "train")
        if set(class_folder_names(folder)) - set(classes):
            # None is named, for folders may be called after patients.
            raise ValueError(
                f"The split {split!r} has class folders that train has not; call every one by its class, or move it "
                "away."
            )
    return ClassFolder(folder, spatial_shape, in_channels, intensity_range, classes, subject_pattern)
