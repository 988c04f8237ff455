# SPDX-License-Identifier: Apache-2.0
"""What lies in a folder of images, which is read or refused, and what lies there beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai_cadp.data.dicom_preamble import is_dicom

__all__ = ["entries_of", "is_empty", "is_note", "unclaimed"]

# What systems and programs make in any folder, in lower case; so is all that begins with a point.
OF_SYSTEMS = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "system volume information", "lost+found"),
        *("__macosx", "__pycache__", "#recycle", "#snapshot", "$recycle.bin"),
    }
)
# How the names of folders begin in which network drives keep thumbnails and versions.
OF_DRIVES = "@"
# What lies beside images, and nobody takes for one.
NOTE_SUFFIXES = (
    *(".txt", ".md", ".rst", ".rtf", ".pdf", ".htm", ".html", ".doc", ".docx", ".bib", ".cff", ".log", ".lnk", ".url"),
    *(".csv", ".csv.gz", ".tsv", ".tsv.gz", ".xls", ".xlsx", ".md5", ".sha1", ".sha256", ".bval", ".bvec"),
    *(".json", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".db", ".py", ".ipynb", ".sh", ".bak", "~"),
)
NOTE_NAMES = ("readme", "license", "licence", "changes", "changelog", "md5sums", "sha256sums")
# What a viewer finds the files of a medium by: DICOM, but no image.
INDEX_NAME = "dicomdir"
# Of files that hold the voxels of a header of text, under the header's name.
HEADER_SUFFIXES, VOXEL_SUFFIXES = (".mhd", ".nhdr"), (".raw", ".zraw", ".raw.gz", ".gz")


def entries_of(folder: Path) -> list[Path]:
    """Return what a folder holds but for what a system has made there, sorted; raises OSError, which names it."""
    return sorted(path for path in folder.iterdir() if not _is_of_system(path))


def _is_of_system(path: Path) -> bool:
    name = path.name.lower()
    return name.startswith(".") or name in OF_SYSTEMS or (name.startswith(OF_DRIVES) and path.is_dir())


def is_note(path: Path) -> bool:
    """Tell whether an entry of a folder is a text, a table, a program or the like, by its name, and no DICOM.

    Example:
        >>> is_note(Path("labels.CSV")), is_note(Path("README")), is_note(Path("film.gif"))
        (True, True, False)
    """
    if path.is_dir():
        return False
    name = path.name.lower()
    return name == INDEX_NAME or ((name.endswith(NOTE_SUFFIXES) or name in NOTE_NAMES) and not is_dicom(path))


def is_empty(path: Path) -> bool:
    """Tell whether an entry is a folder that holds notes at most, and folders of this kind."""
    return path.is_dir() and all(is_note(one) or (not one.is_symlink() and is_empty(one)) for one in entries_of(path))


def unclaimed(entries: Sequence[Path], images: Sequence[Path]) -> list[Path]:
    """Return the entries of a folder that are none of its images and no voxels of one, which belong to their header.

    Example:
        >>> unclaimed([Path("a.mhd"), Path("a.raw"), Path("b.raw"), Path("c.nii")], [Path("a.mhd"), Path("c.nii")])
        [PosixPath('b.raw')]
    """
    stems = [path.name[: path.name.rindex(".")] for path in images if path.name.lower().endswith(HEADER_SUFFIXES)]
    claimed = {path.name for path in images} | {stem + suffix for stem in stems for suffix in VOXEL_SUFFIXES}
    return [path for path in entries if path.name not in claimed]
