# SPDX-License-Identifier: Apache-2.0
"""No connection of a ledger is open while its process forks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from sqlalchemy.engine import Engine

__all__ = ["closed_at_forks", "in_use"]

# SQLite remembers in the process's memory which locks it holds on a file. A child that inherits this memory with an
# open connection believes that it holds locks which are its parent's: its writes would be lost.
_engines: WeakSet[Engine] = WeakSet()
_lock = threading.RLock()


def closed_at_forks(engine: Engine) -> Engine:
    """Close an engine's connections whenever the process forks; both sides open new ones at their next use."""
    _engines.add(engine)
    return engine


@contextmanager
def in_use() -> Iterator[None]:
    """Keep the process from forking while a connection is used; threads take turns."""
    with _lock:
        yield


def _before_fork() -> None:
    _lock.acquire()
    for engine in list(_engines):
        engine.dispose()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)
