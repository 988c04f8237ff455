# SPDX-License-Identifier: Apache-2.0
"""Files that are their owner's alone, from the first byte on."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["OTHERS", "check_folder", "check_private", "create_private", "new_private", "sync_folder", "write_private"]

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def create_private(path: str | os.PathLike[str]) -> int:
    """Make a new file that its owner alone may read and write, and return its descriptor.

    It is so from the first moment, whatever the process's umask is; a link of this name is not followed.

    Args:
        path: of the file; it must not exist.

    Raises:
        OSError: if it exists or could not be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     os.close(create_private(f"{folder}/secret"))
        ...     oct(os.stat(f"{folder}/secret").st_mode & 0o777)
        '0o600'
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)


@contextmanager
def new_private(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name, or takes the place of an older one, when it is complete.

    Until then, and after it, its owner alone may read it. It is on the disk before it appears, also after a power cut;
    after an error there is nothing new.

    Args:
        path: of the file.

    Raises:
        OSError: if it could not be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with os.fdopen(create_private(temporary), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    # Or a power cut could undo the new name.
    sync_folder(path.parent)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Have the names in a folder on the disk before anything else is done, where the system can do that."""
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_private(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a whole file as :func:`new_private` does; text in UTF-8."""
    with new_private(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def check_private(status: os.stat_result, what: str) -> None:
    """Raise ValueError if a file may be read or written by others than its owner; ``what`` is said of it."""
    if os.name == "posix" and status.st_mode & OTHERS:
        raise ValueError(
            f"{what} may be read or written by others than its owner; if nobody has had it, type chmod 600 and its "
            "name."
        )


def check_folder(path: str | os.PathLike[str], what: str) -> None:
    """Raise ValueError if everybody may write into the folder of a file, or of a link to it: they could put another one
    in its place."""
    folders = {os.path.dirname(place) for place in (os.path.abspath(path), os.path.realpath(path))}
    if os.name == "posix" and any(os.stat(folder).st_mode & stat.S_IWOTH for folder in folders):
        raise ValueError(
            f"{what} lies in a folder into which everybody may write; use a folder of your own, or type chmod o-w and "
            "the name of this one."
        )
