# SPDX-License-Identifier: Apache-2.0
"""What readers of images say about what they read, unsaid: it may be a name."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from monai_cadp.extras import MissingExtraError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Refusal", "read_silently", "silenced", "silenced_descriptors"]

Result = TypeVar("Result")
# No handler takes a record of this level: the lowest that one can ask for is 0.
BELOW_ALL_LEVELS = -1
OUTPUT, ERRORS = 1, 2


class Refusal(Exception):
    """A sentence that is safe to show."""


def read_silently(read: Callable[[], Result], reason: str) -> Result:
    """Return what ``read`` returns; of all that it says only a refusal comes out, or what is not installed.

    Args:
        read: reads a file, or looks into a folder.
        reason: what is said where it fails by an error of another kind.

    Raises:
        ValueError: if it fails; the error has no inner one, not even a suppressed one.

    Example:
        >>> read_silently(lambda: open("/patients/Mustermann.png"), "The file could not be read; look for another one.")
        Traceback (most recent call last):
        ValueError: The file could not be read; look for another one.
    """
    with silenced():
        try:
            return read()
        except (Refusal, MissingExtraError) as refusal:
            reason = str(refusal)
        except Exception:
            pass
    # Raised here: within the except clauses an inner error, which may hold a path, would be kept as its context. What a
    # library left open is closed by now, and its warnings are said in silence.
    raise ValueError(reason)


@contextmanager
def silenced() -> Iterator[None]:
    """Drop the log records and warnings that arise in this thread; those of other threads are heard as ever.

    Log records reach no handler, of whatever logger, file or level. Warnings are passed over even where a filter
    makes errors of them. May be entered again, and by several threads at once.

    Example:
        >>> with silenced():
        ...     logging.getLogger("pydicom").error("PatientName is Mustermann")
        ...     warnings.warn("Mustermann")
    """
    with _lock:
        if not _silence.threads:
            _silence.install()
        _silence.threads += 1
    _thread.depth = _depth() + 1
    try:
        yield
    finally:
        _thread.depth -= 1
        with _lock:
            _silence.threads -= 1
            if not _silence.threads:
                _silence.remove()


@contextmanager
def silenced_descriptors() -> Iterator[None]:
    """Drop what is written to the file descriptors 1 and 2, which libraries in C do past Python's streams.

    Descriptors belong to the whole process: what other threads print meanwhile is dropped as well, so that this is for
    the call of a library in C and nothing around it. What was printed before is flushed, and not lost. May be entered
    again, and by several threads at once: the last one to leave opens the descriptors. A process that is forked
    meanwhile has open ones, unless its own thread forked within.

    Example:
        >>> with silenced_descriptors():
        ...     written = os.write(2, b"MetaImage: Mustermann")
    """
    with _lock:
        if not _descriptors.users:
            _descriptors.close()
        _descriptors.users += 1
    _thread.users = getattr(_thread, "users", 0) + 1
    try:
        yield
    finally:
        with _lock:
            _thread.users -= 1
            _descriptors.users -= 1
            if not _descriptors.users:
                _descriptors.open()


def _depth() -> int:
    return getattr(_thread, "depth", 0)


class _WhileSilenced:
    """In the place of a regular expression in a filter of warnings: fits all messages in a silenced thread, else none.

    ``warnings.catch_warnings`` would silence all threads, and two of them would end up with each other's filters.
    """

    def match(self, message: str) -> bool:
        return _depth() > 0


class _Silence:
    """What drops records and warnings, in place while any thread is silenced."""

    def __init__(self) -> None:
        self.threads = 0
        self.warnings: Any = ("ignore", _WhileSilenced(), Warning, None, 0)

    def install(self) -> None:
        earlier = logging.getLogRecordFactory()

        def factory(name: str, *arguments: Any, **keywords: Any) -> logging.LogRecord:
            if _depth():
                return logging.LogRecord(name, BELOW_ALL_LEVELS, "", 0, "", (), None)
            return earlier(name, *arguments, **keywords)

        self.earlier, self.factory = earlier, factory
        logging.setLogRecordFactory(factory)
        self._filters().insert(0, self.warnings)

    def remove(self) -> None:
        # Somebody may have put another one in its place meanwhile; ours drops nothing any more.
        if logging.getLogRecordFactory() is self.factory:
            logging.setLogRecordFactory(self.earlier)
        with contextlib.suppress(ValueError):
            self._filters().remove(self.warnings)

    @staticmethod
    def _filters() -> list[Any]:
        return warnings.filters  # type: ignore[return-value]


class _Descriptors:
    """Standard output and error of the process, closed and opened."""

    def __init__(self) -> None:
        self.users = 0
        self.saved: dict[int, int | None] = {}

    def close(self) -> None:
        _flush()
        saved = {descriptor: _copy(descriptor) for descriptor in (OUTPUT, ERRORS)}
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in saved:
            if descriptor != nowhere:
                os.dup2(nowhere, descriptor)
        if nowhere not in saved:
            os.close(nowhere)
        self.saved = saved

    def open(self) -> None:
        # What waits in buffers goes nowhere, too.
        _flush()
        for descriptor, saved in self.saved.items():
            if saved is None:
                os.close(descriptor)
            else:
                os.dup2(saved, descriptor)
                os.close(saved)
        self.saved = {}


def _copy(descriptor: int) -> int | None:
    """Return another number for what a descriptor means; None where a process has no such descriptor."""
    try:
        # Above the three standard ones: the copy must not come to stand in the place of one that is missing.
        return os.dup(descriptor) if fcntl is None else fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, ERRORS + 1)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
    return None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # None in a process without a console, and closed, or without a reader, in others.
        with contextlib.suppress(Exception):
            stream.flush()
    for stream_of_c in _STREAMS_OF_C:
        _LIBRARY.fflush(stream_of_c)


def _streams_of_c() -> list[ctypes.c_void_p]:
    """The buffers of the C library for standard output and error, in a list; empty where they have other names."""
    found = []
    for name in ("stdout", "__stdoutp", "stderr", "__stderrp"):
        with contextlib.suppress(ValueError, AttributeError):
            found.append(ctypes.c_void_p.in_dll(_LIBRARY, name))
    return found


def _before_fork() -> None:
    _lock.acquire()


def _after_fork() -> None:
    # Only the thread that forked lives in the child.
    if _silence.threads and not _depth():
        _silence.remove()
    _silence.threads, own = _depth(), getattr(_thread, "users", 0)
    if _descriptors.users and not own:
        _descriptors.open()
    _descriptors.users = own
    _lock.release()


_thread = threading.local()
_lock = threading.RLock()
_silence = _Silence()
_descriptors = _Descriptors()
_LIBRARY: Any = ctypes.CDLL(None) if os.name == "posix" else None
_STREAMS_OF_C = _streams_of_c() if _LIBRARY is not None else []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_after_fork)
