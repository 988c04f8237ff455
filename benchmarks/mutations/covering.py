# SPDX-License-Identifier: Apache-2.0
"""Which tests run which lines, and what each of them costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mutations.changes import Mutant
from benchmarks.mutations.workspace import OPTIONS, Clocks, Workspace

__all__ = ["Covering", "cover"]

# These compare the text of the code, so that they would notice a change of words.
READERS = ("test_docs.py", "test_readme.py", "test_package.py", "test_examples.py")
LONGEST_FILE = 1200.0


@dataclass
class Covering:
    """What is known of the tests.

    Args:
        seconds: processor time of every test that passes.
        lines: for every file and line of it, the tests that run it.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=dict)

    def add(self, record: dict[str, Any]) -> None:
        """Add what was found out about one test file."""
        failed = set(record["failed"])
        self.seconds |= {test: seconds for test, seconds in record["seconds"].items() if test not in failed}
        for file, rows in record["lines"].items():
            for line, tests in rows.items():
                self.lines.setdefault(file, {}).setdefault(int(line), set()).update(set(tests) - failed)

    def tests(self, mutant: Mutant, most_seconds: float) -> list[list[str]]:
        """Return the tests that run a mutant, file by file: the file that mirrors the code first, then the fastest.

        Args:
            mutant: what is to be noticed.
            most_seconds: of processor time; more tests are left out, but never all.
        """
        rows = self.lines.get(mutant.file, {})
        found = set()
        for line, tests in rows.items():
            if mutant.lines is None or mutant.lines[0] <= line <= mutant.lines[1]:
                found |= tests
        name = Path(mutant.file).stem
        if mutant.lines is None:
            # What runs at the import is read by tests that run no line of the file: an attribute of a class is.
            found |= {test for test in self.seconds if Path(test.split("::")[0]).stem == f"test_{name}"}
        by_file: dict[str, list[str]] = {}
        for test in sorted(found):
            by_file.setdefault(test.split("::")[0], []).append(test)
        cost = {file: sum(self.seconds[test] for test in tests) for file, tests in by_file.items()}
        order = sorted(by_file, key=lambda file: (name not in Path(file).stem, cost[file]))
        chosen: list[list[str]] = []
        for file in order:
            tests = []
            for test in sorted(by_file[file], key=lambda test: self.seconds[test]):
                if not (chosen or tests) or self.seconds[test] <= most_seconds:
                    tests.append(test)
                    most_seconds -= self.seconds[test]
            if tests:
                chosen.append(tests)
        return chosen


def cover(workspace: Workspace, files: Sequence[str], tests: Sequence[str], cache: Path, markers: str) -> Covering:
    """Run every test file once, on the code as it is, in a process of its own.

    Args:
        workspace: where.
        files: of the package, that are to be covered.
        tests: test files; of the files of the package, their docstrings' examples count, too.
        cache: folder of what was found out before; a record counts while package, test file and markers stay.
        markers: which tests count, as pytest's ``-m`` takes it.
    """
    covering = Covering()
    package = _digest(workspace.place, sorted(workspace.place.glob("monai_cadp/**/*.py")))
    shared = _digest(workspace.place, sorted(workspace.place.glob("tests/**/conftest.py")))
    cache.mkdir(parents=True, exist_ok=True)
    for test_file in [*files, *(name for name in tests if Path(name).name not in READERS)]:
        own = _digest(workspace.place, [workspace.place / test_file])
        kept = cache / f"{test_file.replace('/', '+')}.json"
        key = [package, shared, own, markers, list(files)]
        record = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        if record.get("key") != key:
            found = workspace.run(lambda name=test_file: _covered(workspace, files, name, markers), LONGEST_FILE)
            record = {"key": key, **(found or {"failed": [], "seconds": {}, "lines": {}})}
            kept.write_text(json.dumps(record), encoding="utf-8")
            said = "did not end" if found is None else f"{len(found['seconds'])} tests"
            print(f"covered by {test_file}: {said}, {sum(record['seconds'].values()):.1f} s", flush=True)
            if record["failed"]:
                print(f"  not counted, for they fail: {', '.join(record['failed'])}", flush=True)
        covering.add(record)
    return covering


def _covered(workspace: Workspace, files: Sequence[str], test_file: str, markers: str) -> dict[str, Any]:
    import coverage

    tracer = coverage.Coverage(data_file=None, include=[str(workspace.place / file) for file in files])
    clocks = Clocks(tracer.switch_context)
    tracer.start()
    pytest.main([*OPTIONS, "-m", markers, test_file], plugins=[clocks])
    tracer.stop()
    data = tracer.get_data()
    lines = {}
    for file in files:
        rows = data.contexts_by_lineno(str(workspace.place / file))
        lines[file] = {line: [test for test in tests if test] for line, tests in rows.items() if any(tests)}
    return {"failed": clocks.failed, "seconds": clocks.seconds, "lines": lines}


def _digest(place: Path, paths: Sequence[Path]) -> str:
    code = hashlib.sha256()
    for path in paths:
        code.update(str(path.relative_to(place)).encode() + b"\0" + path.read_bytes() + b"\0")
    return code.hexdigest()
