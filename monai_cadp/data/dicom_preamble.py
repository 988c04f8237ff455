# SPDX-License-Identifier: Apache-2.0
"""How a DICOM file begins."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_dicom"]

# After 128 bytes of any content.
START, MARK = 128, b"DICM"


def is_dicom(path: Path) -> bool:
    """Return whether a file begins as a DICOM file does; raises OSError, which names it, if it may not be read.

    References:
        DICOM PS3.10, section 7.1 (DICOM file meta information).
    """
    with path.open("rb") as file:
        return file.read(START + len(MARK))[START:] == MARK
