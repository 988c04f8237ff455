# SPDX-License-Identifier: Apache-2.0
"""How a DICOM file begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["is_dicom", "is_directory"]

# After 128 bytes of any content.
START, MARK = 128, b"DICM"
# What a viewer finds the files of a medium by.
DIRECTORY = "1.2.840.10008.1.3.10"


def is_dicom(path: Path) -> bool:
    """Return whether a path is of a file that begins as DICOM does; raises OSError, which names it, if it is not read.

    References:
        DICOM PS3.10, section 7.1 (DICOM file meta information).
    """
    # Whoever opens a pipe waits for somebody who writes into it.
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(START + len(MARK))[START:] == MARK


def is_directory(header: Any) -> bool:
    """Return whether a header that pydicom has read is of the directory of a medium (DICOMDIR), whatever it is called.

    References:
        DICOM PS3.10, section 8.6 (Media Storage Directory).
    """
    return str(header.file_meta.get("MediaStorageSOPClassUID", "")) == DIRECTORY
