# SPDX-License-Identifier: Apache-2.0
"""Which item the image in a file is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from monai_cadp.data.dicom_preamble import is_dicom, is_directory
from monai_cadp.data.folder_entries import entries_of, is_note
from monai_cadp.data.silence import silenced
from monai_cadp.extras import MissingExtraError, extra
from monai_cadp.privacy import ItemId, check_distinct

__all__ = ["file_item", "file_items"]

SECONDS_WITHOUT_BAR = 5.0
IMAGE_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def file_items(paths: Sequence[str | os.PathLike[str]], folder: str | os.PathLike[str] | None, what: str) -> list[str]:
    """Return the code of the item of every file, by which a ledger knows its image.

    Args:
        paths: of image files, and folders with one DICOM series each.
        folder: that was given, as in :func:`file_item`.
        what: the files and their order are, for errors.

    Returns:
        Codes that tell no path.

    Raises:
        ValueError: if two files are the same item; it names their positions.

    Example:
        >>> len(file_items(["data/CNV/a.png", "data/CNV/b.png"], "data", "files"))
        2
    """
    items = [file_item(path, folder) for path in tqdm(paths, "items", unit="file", delay=SECONDS_WITHOUT_BAR)]
    check_distinct(items, what)
    return [item.code for item in items]


def file_item(path: str | os.PathLike[str], folder: str | os.PathLike[str] | None) -> ItemId:
    """Return the item of one file: by the UIDs of a DICOM image or series, otherwise by its path in a folder.

    Args:
        path: of an image file, or of a folder with one DICOM series.
        folder: that was given, or that the path is relative to; None to take the path as it is.

    Example:
        >>> file_item("data/train/CNV/a.png", "data/train").canonical
        'train/CNV/a.png'
    """
    uids = _uids(Path(path))
    if uids:
        return ItemId.from_uids(*uids)
    return ItemId(os.fspath(path)) if folder is None else ItemId.from_file(path, folder)


def _uids(path: Path) -> list[str]:
    """Return the UIDs that name a DICOM image, or a series; none where there is no DICOM, or it lacks one."""
    names: tuple[str, ...] = IMAGE_UIDS
    files = [path]
    # What pydicom says of a damaged file may hold what stands in it.
    with silenced():
        try:
            if path.is_dir():
                names = IMAGE_UIDS[:2]
                files = [one for one in entries_of(path) if one.is_file() and not is_note(one)]
            return _uids_of_first(files, names)
        except MissingExtraError:
            # By its path it would be another item than by its UIDs, and paid for twice.
            raise
        except Exception:
            # Whatever is wrong with it shows when the image is read.
            return []


def _uids_of_first(files: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Return the UIDs of the first file, as the reader of a series counts them: without the directory of a medium."""
    for file in files:
        if not is_dicom(file):
            return []
        with extra("dicom", "Reading DICOM"):
            import pydicom
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(names))
        if not is_directory(header):
            uids = [str(header.get(name) or "").strip(" \0") for name in names]
            return uids if all(uids) else []
    return []
