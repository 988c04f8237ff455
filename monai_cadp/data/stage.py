# SPDX-License-Identifier: Apache-2.0
"""Where an output folder is collected before it appears."""

from __future__ import annotations

import glob
import secrets
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["Stage"]

LOCKED = ".lock"


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
        parent = next(folder for folder in output_dir.parents if folder.is_dir())
        prefix = f".{output_dir.name}.release-"
        for abandoned in parent.glob(f"{glob.escape(prefix)}*{LOCKED}"):
            try:
                with FileLock(abandoned, timeout=0):
                    shutil.rmtree(abandoned.with_name(abandoned.name.removesuffix(LOCKED)), ignore_errors=True)
                    abandoned.unlink()
            except (Timeout, OSError):
                continue
        self.path = parent / f"{prefix}{secrets.token_hex(8)}"
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
