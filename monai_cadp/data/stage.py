# SPDX-License-Identifier: Apache-2.0
"""Where an output folder is collected before it appears."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["Stage", "check_output"]

LOCKED = ".lock"
# In the name of a stage.
CODE_BYTES = 8


class Stage:
    """A hidden folder beside a future output folder, with a lock beside it that is held by the process that fills it.

    Its owner alone may look into it. A process that is killed leaves its stage behind, and the system opens the lock;
    the next stage for the same output folder removes it. Stages that are still being filled are left alone.

    Args:
        output_dir: the future folder; the stage lies in its nearest parent that exists, on the same disk.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     stage = Stage(Path(parent, "released"))
        ...     _ = (stage.path / "image.png").write_bytes(b"released")
        ...     stage.remove()
        ...     list(Path(parent).iterdir())
        []
    """

    def __init__(self, output_dir: Path) -> None:
        parent, prefix = _place(output_dir)
        for abandoned in parent.glob(f"{glob.escape(prefix)}*{LOCKED}"):
            try:
                with FileLock(abandoned, timeout=0):
                    shutil.rmtree(abandoned.with_name(abandoned.name.removesuffix(LOCKED)), ignore_errors=True)
                    abandoned.unlink()
            except (Timeout, OSError):
                continue
        self.path = parent / f"{prefix}{secrets.token_hex(CODE_BYTES)}"
        # The lock comes before the folder and goes after it: whenever a process is killed, the lock names what is left.
        self._lock = FileLock(self.path.with_name(self.path.name + LOCKED))
        self._lock.acquire()
        # Nobody else looks in: the order in which drafts appear is that of the source.
        self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove the folder and what is left in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


def check_output(output: Path) -> None:
    """Refuse an output that can never be made, before anything is spent or written.

    Args:
        output: the future folder or file.

    Raises:
        ValueError: if its name is too long for what lies beside it until it is complete, or it has a file in the place
            of a folder, or a folder that may not be looked into.
    """
    parent, prefix = _place(output.absolute())
    # None is there, and so says the system, unless it cannot be.
    longest = parent / f"{prefix}{'0' * 2 * CODE_BYTES}{LOCKED}"
    try:
        for path in (output, longest):
            with contextlib.suppress(FileNotFoundError):
                os.lstat(path)
        return
    except (OSError, ValueError):
        pass
    # Raised here, outside the except clause, so that no inner error carries the path.
    raise ValueError(
        "The output cannot be made: its name is too long, or a file or what may not be looked into is on the way to "
        "it; give another output."
    )


def _place(output: Path) -> tuple[Path, str]:
    """Return where the stage of an output lies, and how its name begins."""
    # The root of a disk has no parent.
    return next((folder for folder in output.parents if os.path.isdir(folder)), output), f".{output.name}.release-"
