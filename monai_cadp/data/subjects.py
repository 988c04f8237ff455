# SPDX-License-Identifier: Apache-2.0
"""Whose image a file is, by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from monai_cadp.data.decoding import IMAGE_SUFFIXES
from monai_cadp.privacy import SubjectId

__all__ = ["subjects_by_name", "without_ending"]

# What names of image files end in. No other point is cut: an id may hold points, as UIDs of DICOM do.
ENDINGS = (*IMAGE_SUFFIXES, ".dic", ".hdr", ".img", ".nhdr", ".npy", ".npz", ".raw", ".gz")


def subjects_by_name(names: Sequence[str], pattern: str) -> list[str]:
    """Return the subject of every file.

    Args:
        names: of files, or of folders with one DICOM series each; a path before a name has no part in it.
        pattern: regular expression whose first group is the subject in a file's own name without its ending.

    Raises:
        ValueError: if the pattern is no regular expression with a group, or finds no subject in a name.

    Example:
        >>> subjects_by_name(["CNV/CNV-1954-1.jpeg"], "^[A-Z]+-([0-9]+)-")
        ['1954']
    """
    try:
        expression = re.compile(pattern)
    except (re.error, TypeError):
        expression = re.compile("")
    if expression.groups < 1:
        raise ValueError("subject_pattern is no regular expression with a group; mark the subject by (...) in it.")
    found = [expression.search(without_ending(PurePath(name).name)) for name in names]
    subjects = [match[1] for match in found if match is not None and _names_somebody(match[1])]
    if len(subjects) < len(names):
        missing = len(names) - len(subjects)
        raise ValueError(f"subject_pattern finds no subject in the names of {missing} of {len(names)} files; mend it.")
    return subjects


def without_ending(name: str) -> str:
    """Return the name of a file without the ending of an image file; other points belong to the name.

    Example:
        >>> without_ending("scan.1.nii.gz"), without_ending("1.2.840.10008"), without_ending("1.2.840.10008.DCM")
        ('scan.1', '1.2.840.10008', '1.2.840.10008')
    """
    cut = name
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if name.lower().endswith(ending) and len(name) > len(ending):
            cut = name[: -len(ending)]
            break
    return cut


def _names_somebody(text: str | None) -> bool:
    try:
        SubjectId(text or "")
    except ValueError:
        return False
    return True
