# SPDX-License-Identifier: Apache-2.0
"""What tells the images of a subject apart, without a path."""

from __future__ import annotations

import hashlib

__all__ = ["item_code"]


def item_code(name: str) -> str:
    """Return a code of the name of an image; items travel with images, and names of files tell too much.

    Whoever guesses the name can check it: a code is no secret, and no part of what is released.

    Example:
        >>> len(item_code("CNV/CNV-1954-1.png"))
        32
    """
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
