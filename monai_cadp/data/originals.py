# SPDX-License-Identifier: Apache-2.0
"""The images that are to be released."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import Dataset

from monai_cadp.data.class_folder import class_folder_names
from monai_cadp.data.source import SPLITS, open_images, split_folder

__all__ = ["open_originals"]


def open_originals(
    source: str | os.PathLike[str],
    split: str | None,
    spatial_shape: Sequence[int],
    in_channels: int = 1,
    intensity_range: tuple[float, float] | None = None,
    subject_pattern: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    r"""Open images for a release: a split that the source has, or all of a source that has none.

    Args:
        source: as for :func:`~monai_cadp.data.open_images`.
        split: "train", "val" or "test"; None for test, or for all of a folder without splits.
        spatial_shape: public size in voxels.
        in_channels: channels of the images.
        intensity_range: as for :func:`~monai_cadp.data.open_images`.
        subject_pattern: as for :func:`~monai_cadp.data.open_images`.
        class_names: of the model's classes, in the order of their labels: class folders are known by them, whichever
            there are, and no other is taken. Other sources have numbers. None to sort class folders by their names.

    Returns:
        A data set of items {"image": float32 (in_channels, \*spatial_shape) in [0, 1], "label": ..., "subject": ...}.

    Raises:
        ValueError: as :func:`~monai_cadp.data.open_images`, and if a split is asked for of a folder that has none,
            or a class folder is called by no name of a class.

    Example:
        >>> len(open_originals("digits", split=None, spatial_shape=(8, 8)))
        360
    """
    # Not by methods of the path, which fail for names that are too long.
    is_folder = os.path.isdir(source)
    if split is not None and is_folder and not any(os.path.isdir(os.path.join(source, name)) for name in SPLITS):
        raise ValueError(
            "One split is to be read, but the image folder has none of train, val and test; give a folder that has "
            "them, or leave the option split out."
        )
    split = split or "test"
    if not is_folder or not class_folder_names(split_folder(Path(source), split)):
        class_names = None
    return open_images(source, split, spatial_shape, in_channels, intensity_range, class_names, None, subject_pattern)
