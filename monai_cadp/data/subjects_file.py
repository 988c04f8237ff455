# SPDX-License-Identifier: Apache-2.0
"""Whose scan a file is, by a list that is never printed."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence

__all__ = ["subjects_by_file"]

HEADER = ["file", "subject"]


def subjects_by_file(names: Sequence[str], file: str | os.PathLike[str]) -> list[str]:
    """Return the subjects of files, by a CSV file with the columns ``file`` and ``subject``.

    Every cell is text as it stands: 007 is not 7 here, nor 1_12 a number. The file may name more than these items.

    Args:
        names: of files or folders, as they stand in the first column.
        file: the CSV file, UTF-8 with a header line.

    Returns:
        For each name its subject.

    Raises:
        ValueError: if the file is missing or of another form, names a file twice, or says nothing of one of the names.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "subjects.csv")
        ...     _ = file.write_text("file,subject\\nscan.nii.gz,1_12\\n")
        ...     subjects_by_file(["scan.nii.gz"], file)
        ['1_12']
    """
    rows = _rows(file)
    if rows is None or not rows or rows[0] != HEADER or any(len(row) != 2 for row in rows):
        raise ValueError("The file of subjects is missing or of another form; expected a CSV file with file,subject.")
    cells = [(name.strip(), subject) for name, subject in rows[1:]]
    named = dict(cells)
    if len(named) < len(cells):
        raise ValueError(f"{len(cells) - len(named)} lines of the file of subjects name a file again; name each once.")
    missing = sum(not named.get(name, "").strip() for name in names)
    if missing:
        raise ValueError(
            f"The file of subjects says nothing of {missing} of {len(names)} scans; add a line file,subject for each, "
            "with the name of the file or folder and its ending."
        )
    return [named[name] for name in names]


def _rows(file: str | os.PathLike[str]) -> list[list[str]] | None:
    try:
        with open(file, encoding="utf-8-sig", newline="") as content:
            return [row for row in csv.reader(content, strict=True) if row]
    except (OSError, ValueError, csv.Error):
        # What the inner error says names the path, or holds a line.
        return None
