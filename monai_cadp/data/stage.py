# SPDX-License-Identifier: Apache-2.0
"""Where an output folder is collected before it appears."""

from __future__ import annotations

import glob
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["Stage"]

LOCK = "lock"


class Stage:
    """A hidden folder beside a future output folder, locked by the process that fills it.

    A process that is killed leaves its stage behind, and the system opens the lock; the next stage for the same output
    folder removes it. Stages that are still being filled are left alone.

    Args:
        output_dir: the future folder; the stage lies in its nearest parent that exists, on the same disk.

    Example:
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
        for abandoned in parent.glob(f"{glob.escape(prefix)}*"):
            try:
                with FileLock(abandoned / LOCK, timeout=0):
                    shutil.rmtree(abandoned, ignore_errors=True)
            except (Timeout, OSError):
                continue
        # Locked before it has the name by which others look for it.
        new = Path(tempfile.mkdtemp(prefix=".release-", dir=parent))
        self._lock = FileLock(new / LOCK)
        self._lock.acquire()
        self.path = new.rename(parent / f"{prefix}{new.name.rpartition('-')[2]}")

    def remove(self) -> None:
        """Remove the folder and what is left in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()
