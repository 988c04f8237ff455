# SPDX-License-Identifier: Apache-2.0
"""What libraries say while they read reaches nobody; what everybody else says does."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import pytest

from monai_cadp.data import silence
from monai_cadp.data.silence import read_silently, silenced, silenced_descriptors

CANARY = "Mustermann"
REASON = "The file could not be read; look for another one."
posix = pytest.mark.skipif(os.name != "posix", reason="descriptors are those of POSIX")


class Listener(logging.Handler):
    def __init__(self):
        super().__init__(level=0)
        self.heard = []

    def emit(self, record):
        self.heard.append(record.getMessage())


@pytest.fixture
def listener():
    listener = Listener()
    logging.getLogger().addHandler(listener)
    yield listener
    logging.getLogger().removeHandler(listener)


def said_by(program):
    """What a process writes to its descriptors 1 and 2, where the first is a pipe, behind buffers."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        # The module by itself: it needs none of the package's libraries, whose import takes seconds.
        env=os.environ | {"PYTHONPATH": str(Path(silence.__file__).parent)},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("name", ["pydicom", "nibabel.global", "PIL.TiffImagePlugin", "somebody.else"])
@pytest.mark.parametrize("level", [logging.DEBUG, logging.CRITICAL, logging.CRITICAL + 50])
def test_no_handler_hears_a_record_of_a_silenced_thread(listener, name, level):
    own = Listener()
    logging.getLogger(name).addHandler(own)
    with silenced():
        logging.getLogger(name).log(level, "PatientName %s", CANARY)
    logging.getLogger(name).removeHandler(own)
    assert not listener.heard and not own.heard


def test_the_test_above_would_hear_it(listener):
    logging.getLogger("pydicom").critical("PatientName %s", CANARY)
    assert listener.heard == [f"PatientName {CANARY}"]


def test_warnings_are_passed_over_even_where_they_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with silenced():
            warnings.warn(CANARY, stacklevel=1)
        with pytest.raises(UserWarning):
            warnings.warn("heard again", stacklevel=1)


def test_other_threads_are_heard_meanwhile(listener):
    inside, finished = threading.Event(), threading.Event()

    def read():
        with silenced():
            inside.set()
            finished.wait(10)
            logging.getLogger("pydicom").error(CANARY)

    thread = threading.Thread(target=read)
    thread.start()
    inside.wait(10)
    logging.getLogger("training").error("epoch 3")
    with pytest.warns(UserWarning, match="no release is recorded"):
        warnings.warn("no release is recorded", stacklevel=1)
    finished.set()
    thread.join()
    assert listener.heard == ["epoch 3"]


def test_everything_is_as_it_was_after_many_threads_came_and_went_in_any_order(listener):
    factory, filters = logging.getLogRecordFactory(), list(warnings.filters)

    def read():
        for _ in range(200):
            with silenced(), silenced():
                logging.getLogger("pydicom").error(CANARY)
            with pytest.raises(ValueError, match="could not be read"):
                read_silently(lambda: int(CANARY), REASON)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert logging.getLogRecordFactory() is factory and list(warnings.filters) == filters
    assert not listener.heard


def test_an_error_comes_out_without_the_inner_one_and_with_hearing():
    with pytest.raises(ValueError) as caught:
        read_silently(lambda: open(f"/{CANARY}"), REASON)
    assert caught.value.args == (REASON,)
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_an_interruption_is_no_failure_of_reading():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_silently(interrupt, REASON)


@posix
def test_descriptors_drop_what_c_and_python_write_within_and_nothing_else(capfd):
    library = ctypes.CDLL(None)
    print("before in Python")
    library.printf(b"before in C\n")
    with silenced_descriptors():
        library.printf(CANARY.encode())
        os.write(2, CANARY.encode())
        with pytest.raises(ZeroDivisionError), silenced_descriptors():
            os.write(1, CANARY.encode() * (1 // 0))
        os.write(1, CANARY.encode())
    library.printf(b"after in C\n")
    library.fflush(None)
    print("after in Python")
    heard = capfd.readouterr()
    assert CANARY not in heard.out + heard.err
    for text in ("before in Python", "before in C", "after in C", "after in Python"):
        assert text in heard.out


@posix
def test_descriptors_of_a_process_behind_buffers():
    """A pipe is no terminal: C keeps what was printed until its buffer is full or the process ends."""
    out, err = said_by(f"""
        import ctypes, os
        from silence import silenced_descriptors
        library = ctypes.CDLL(None)
        library.printf(b"before ")
        with silenced_descriptors():
            library.printf(b"{CANARY}")
            print("{CANARY}")
            os.write(2, b"{CANARY}")
        library.printf(b"after")
        """)
    assert (out, err) == ("before after", "")


@posix
@pytest.mark.parametrize("missing", [(1,), (2,), (1, 2), (0, 1, 2)])
def test_a_process_without_descriptors_neither_fails_nor_gets_any(missing):
    out, err = said_by(f"""
        import os
        from silence import silenced_descriptors
        report = os.dup(1)
        pipe = os.fdopen(os.dup(report), "w")
        for descriptor in {missing}:
            os.close(descriptor)
        with silenced_descriptors():
            os.write(1, b"{CANARY}"), os.write(2, b"{CANARY}")
        open_again = []
        for descriptor in (1, 2):
            try:
                os.fstat(descriptor)
                open_again.append(descriptor)
            except OSError:
                pass
        assert open_again == [d for d in (1, 2) if d not in {missing}], open_again
        pipe.write("done")
        pipe.close()
        os._exit(0)
        """)
    assert (out, err) == ("done", "")


@posix
def test_many_threads_share_the_descriptors_and_leave_them_open():
    out, err = said_by(f"""
        import os, threading
        from silence import silenced_descriptors
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        def read():
            for _ in range(100):
                with silenced_descriptors(), silenced_descriptors():
                    os.write(2, b"{CANARY}")
        threads = [threading.Thread(target=read) for _ in range(8)]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        assert before == after
        os.write(1, b"out"), os.write(2, b"err")
        """)
    assert (out, err) == ("out", "err")


@posix
def test_a_process_that_is_forked_while_another_thread_reads_is_heard():
    out, _ = said_by(f"""
        import logging, os, sys, threading
        from silence import silenced, silenced_descriptors
        inside, finished = threading.Event(), threading.Event()
        def read():
            with silenced(), silenced_descriptors():
                inside.set()
                finished.wait(10)
        thread = threading.Thread(target=read)
        thread.start()
        inside.wait(10)
        child = os.fork()
        if child == 0:
            with silenced(), silenced_descriptors():
                os.write(1, b"{CANARY}")
                logging.error("{CANARY}")
            os.write(1, b"child")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        finished.set()
        thread.join()
        os.write(1, b" parent")
        """)
    assert out == "child parent"


@posix
def test_a_process_that_is_forked_within_stays_silent_until_it_leaves():
    out, _ = said_by(f"""
        import os
        from silence import silenced, silenced_descriptors
        with silenced(), silenced_descriptors():
            child = os.fork()
            os.write(1, b"{CANARY}")
        if child == 0:
            os.write(1, b"child")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        os.write(1, b" parent")
        """)
    assert out == "child parent"
