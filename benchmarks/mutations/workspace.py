# SPDX-License-Identifier: Apache-2.0
"""A copy of the repository to break things in, and processes that run its tests with everything heavy in memory."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

__all__ = ["OPTIONS", "Clocks", "Workspace"]

# In place of the options of pyproject.toml: one process, for it is forked for every mutant.
OPTIONS = ["-q", "--doctest-modules", "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:xdist"]
OPTIONS += ["-o", "addopts=", "-o", "filterwarnings="]
# Modules that the package imports and that no mutant changes; what cannot be imported alone is left to the tests.
LIST_IMPORTS = """
import importlib, json, pkgutil, sys, monai_cadp
for module in pkgutil.walk_packages(monai_cadp.__path__, "monai_cadp."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(json.dumps([name for name in sys.modules if name.split(".")[0] not in ("monai_cadp", "__main__")]))
"""


class Clocks:
    """Measures, as a plugin of pytest, what every test costs, and tells which one failed first."""

    def __init__(self, begin: Callable[[str], None] = lambda _: None) -> None:
        self.begin = begin
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Take the processor time of a test and of its processes."""
        self.begin(item.nodeid)
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        result = yield
        later = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        self.seconds[item.nodeid] = sum(
            new.ru_utime + new.ru_stime - old.ru_utime - old.ru_stime for new, old in zip(later, usage, strict=True)
        )
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the tests that did not pass; one that skips itself has noticed nothing."""
        if report.failed or (report.skipped and report.when == "call" and not hasattr(report, "wasxfail")):
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep the files that could not be read."""
        if report.failed:
            self.failed.append(report.nodeid)


class Workspace:
    """A copy of what git knows of a repository, with all heavy libraries imported here and the package nowhere.

    Args:
        root: of the repository.
        place: of the copy; what is there is removed.
    """

    def __init__(self, root: Path, place: Path) -> None:
        self.root, self.place = root, place
        shutil.rmtree(place, ignore_errors=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            if (root / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, place / name)
        os.chdir(place)
        os.environ["PYTHONPATH"] = str(place)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        sys.path[:] = [str(place), *(entry for entry in sys.path if Path(entry or ".").resolve() != root.resolve())]
        listed = subprocess.run(
            [sys.executable, "-c", LIST_IMPORTS], cwd=place, capture_output=True, text=True, check=True
        ).stdout
        for name in json.loads(listed.splitlines()[-1]):
            try:
                importlib.import_module(name)
            except Exception:
                continue
        # What was compiled just now stays; a changed file is compiled in memory.
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

    def change(self, file: str, content: bytes) -> None:
        """Put another content into a file, which Python will not take for the compiled one."""
        path = self.place / file
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()
        path.write_bytes(content)

    def run(
        self, work: Callable[[], Mapping[str, Any]], processor_seconds: float, log: Path | None = None
    ) -> dict[str, Any] | None:
        """Do a piece of work in a process of its own.

        Args:
            work: what is done there; returns plain data.
            processor_seconds: after which the process is ended; ten times as much of the wall clock, too.
            log: where its output goes; None for nowhere.

        Returns:
            What work has returned; None if it did not end in time, or not well.
        """
        answer = self.place / "answer.json"
        answer.unlink(missing_ok=True)
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with open(log or os.devnull, "ab") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            signal.setitimer(signal.ITIMER_PROF, processor_seconds)
            try:
                answer.write_text(json.dumps(work()), encoding="utf-8")
            finally:
                os._exit(0)
        deadline = time.monotonic() + 10 * processor_seconds
        ended = False
        try:
            while not ended and time.monotonic() < deadline:
                time.sleep(0.02)
                ended = os.waitpid(process, os.WNOHANG)[0] != 0
        finally:
            # Of what tests have started, too, nothing stays.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            if not ended:
                os.waitpid(process, 0)
        return json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else None
