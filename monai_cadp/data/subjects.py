# SPDX-License-Identifier: Apache-2.0
"""Whose image a file is, by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from monai_cadp.data.item_code import item_code

__all__ = ["subjects_by_name"]


def subjects_by_name(names: Sequence[str], pattern: str) -> list[dict[str, str]]:
    """Return what items say of their subjects.

    Args:
        names: of files, relative to the data set: the same ones wherever it lies and however its path is spelled, so
            that a ledger meets an image again.
        pattern: regular expression whose first group is the subject in a file's own name without its ending.

    Returns:
        For each name the "subject", and the "item", a code of the name.

    Raises:
        ValueError: if the pattern is no regular expression with a group, or finds no subject in a name.

    Example:
        >>> subjects_by_name(["CNV/CNV-1954-1.jpeg"], "^[A-Z]+-([0-9]+)-")[0]["subject"]
        '1954'
    """
    try:
        expression = re.compile(pattern)
    except re.error:
        expression = re.compile("")
    if expression.groups < 1:
        raise ValueError("subject_pattern is no regular expression with a group; mark the subject by (...) in it.")
    found = [expression.search(PurePath(name).name.split(".")[0]) for name in names]
    missing = sum(match is None or not match[1] for match in found)
    if missing:
        raise ValueError(f"subject_pattern finds no subject in the names of {missing} of {len(names)} files; mend it.")
    return [{"subject": m[1], "item": item_code(name)} for m, name in zip(found, names, strict=True) if m is not None]
