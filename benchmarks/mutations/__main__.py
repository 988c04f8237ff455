# SPDX-License-Identifier: Apache-2.0
"""How many small faults in the code of the promise the tests notice: a stated random sample, and every survivor.

python -m benchmarks.mutations --out results/mutations.json

Every mutant is one change of one statement (``changes.py``). Those of the sample are put, one at a time, into a copy of
the repository; a process that has torch and MONAI in memory is forked for each and runs the tests that cover the
changed line, those of the mirrored test file first, until one fails. The score is the share that was noticed.
``explained.yaml`` says of survivors, in one line each, why no test can or should notice them; they count as survivors
all the same, and a second score is without those that are equivalent to the code as it is.

(mutmut 3 leaves decorated functions and everything outside of functions alone, which here are ``draw``,
``PrivateMoments``, the ledger's contexts, constants and tables; cosmic-ray starts Python for every mutant, and torch
and MONAI take longer to import than the tests take to run.)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.mutations.changes import Mutant, mutants
from benchmarks.mutations.covering import Covering, cover
from benchmarks.mutations.workspace import OPTIONS, Clocks, Workspace

# The promise, and the way of a release to the disk; files that have moved are found where they are.
MUTATED = [
    "monai_cadp/privacy/**/*.py",
    "monai_cadp/release/**/*.py",
    "monai_cadp/data/dicom_writing.py",
    "monai_cadp/data/volume_files.py",
]
ROOT = Path(__file__).parent.parent.parent
SEED = 20261129
SMALLEST_STRATUM = 3
MOST_SECONDS = 40.0


class _Chosen(Clocks):
    """Runs chosen tests in their order, and ends with the first that fails."""

    def __init__(self, order: Sequence[str]) -> None:
        super().__init__()
        self.order = {test: index for index, test in enumerate(order)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.order), key=lambda item: self.order[item.nodeid]
        )


def sample(all_mutants: Iterable[Mutant], number: int) -> list[Mutant]:
    """Draw a sample that is stratified by file and grows with its number: whoever is in stays in.

    Every file gives its share of the number, and 3 at least; in a file the order is that of hashes of the seed and the
    mutant, so that a mutant's luck does not depend on what else is there.
    """
    by_file: dict[str, list[Mutant]] = {}
    for mutant in all_mutants:
        by_file.setdefault(mutant.file, []).append(mutant)
    total = sum(map(len, by_file.values()))
    chosen = []
    for listed in by_file.values():
        share = max(SMALLEST_STRATUM, round(number * len(listed) / total))
        chosen += sorted(listed, key=lambda m: hashlib.sha256(f"{SEED} {m.identity}".encode()).digest())[:share]
    # Mixed, so that an interrupted run has seen every file.
    random.Random(SEED).shuffle(chosen)
    return chosen


def judge(workspace: Workspace, mutant: Mutant, covering: Covering, log: Path | None = None) -> dict[str, Any]:
    """Put a mutant into the copy, run what covers it, and take it out again."""
    groups = covering.tests(mutant, MOST_SECONDS)
    if not groups:
        return {"verdict": "not covered", "by": None}
    order = [test for group in groups for test in group]
    source = (workspace.place / mutant.file).read_bytes()
    chosen = _Chosen(order)

    def work() -> dict[str, Any]:
        files = [group[0].split("::")[0] for group in groups]
        code = int(pytest.main([*OPTIONS, "-x", *files], plugins=[chosen]))
        return {"code": code, "by": chosen.failed[0] if chosen.failed else None, "ran": len(chosen.seconds)}

    workspace.change(mutant.file, mutant.apply(source))
    try:
        expected = sum(covering.seconds[test] for test in order)
        found = workspace.run(work, 30 + 5 * expected, log)
    finally:
        workspace.change(mutant.file, source)
    if found is None:
        return {"verdict": "noticed", "by": "time limit"}
    if found["code"] == 0:
        return {"verdict": "survived", "by": None, "tests": found["ran"]}
    return {"verdict": "noticed", "by": found["by"] or "the import"}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/mutations.json"))
    parser.add_argument("--number", type=int, default=400, help="size of the sample")
    parser.add_argument("--quick", action="store_true", help="a sample of 40, for a look")
    parser.add_argument("--only", default="", help="only files whose path holds this")
    parser.add_argument("--resume", action="store_true", help="keep what was found out about unchanged files")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="test files or folders that count")
    parser.add_argument("--markers", default="not slow", help="tests that count, as pytest's -m takes it")
    parser.add_argument("--work", type=Path, default=Path("runs/mutations"), help="folder for the copy and the cache")
    options = parser.parse_args()
    out, work = options.out.resolve(), options.work.resolve()
    files = sorted({str(path.relative_to(ROOT)) for glob in MUTATED for path in ROOT.glob(glob)})
    found = [m for file in files for m in mutants(file, (ROOT / file).read_text(encoding="utf-8"))]
    number = 40 if options.quick else options.number
    drawn = [mutant for mutant in sample(found, number) if options.only in mutant.file]
    os.nice(10)
    # So that an end from outside ends what runs, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    workspace = Workspace(ROOT, work / "copy")
    tests = sorted(
        {
            str(path.relative_to(ROOT))
            for given in options.tests
            for path in ([ROOT / given] if (ROOT / given).is_file() else (ROOT / given).rglob("test_*.py"))
        }
    )
    covering = cover(workspace, files, tests, work / "covering", options.markers)
    records = _judged(workspace, drawn, covering, work / "verdicts.jsonl", options.resume)
    result = report(found, drawn, records, options.only)
    from benchmarks.report import print_table, write_json

    print_table(result["files"])
    print(f"\nnoticed: {result['score']:.3f}; without equivalent mutants: {result['score_without_equivalent']:.3f}")
    write_json(out, result)


def _judged(
    workspace: Workspace, drawn: Sequence[Mutant], covering: Covering, kept: Path, resume: bool
) -> dict[str, dict[str, Any]]:
    """Judge every mutant; what was found out is kept at once, so that a run may be broken off."""
    known: dict[str, dict[str, Any]] = {}
    if resume and kept.exists():
        for line in kept.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            known[record["mutant"]] = record
    elif kept.exists():
        kept.unlink()
    records = {}
    for index, mutant in enumerate(drawn, 1):
        file = hashlib.sha256((workspace.place / mutant.file).read_bytes()).hexdigest()
        # A mutant that was noticed stays so while its file does; a survivor meets tests that are new.
        tests = sorted(test for group in covering.tests(mutant, MOST_SECONDS) for test in group)
        state = hashlib.sha256(json.dumps(tests).encode()).hexdigest()
        record = known.get(mutant.identity)
        if record is None or record["file"] != file or (record["verdict"] != "noticed" and record["state"] != state):
            record = {"mutant": mutant.identity, "file": file, "state": state, **judge(workspace, mutant, covering)}
            with kept.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(record) + "\n")
            print(
                f"{index}/{len(drawn)} {mutant.file}:{mutant.line} {record['verdict']} {record['by'] or ''}", flush=True
            )
            if record["verdict"] != "noticed":
                print(f"  - {mutant.before}\n  + {mutant.after}", flush=True)
        records[mutant.identity] = record
    return records


def report(
    found: Sequence[Mutant], drawn: Sequence[Mutant], records: dict[str, dict[str, Any]], only: str
) -> dict[str, Any]:
    """Return scores by file, and the survivors with what is known about them."""
    explained = {}
    for entry in yaml.safe_load((Path(__file__).parent / "explained.yaml").read_text(encoding="utf-8")) or []:
        explained[entry["where"], entry["after"]] = entry
    survivors = []
    noticed, drawn_of, equal = Counter[str](), Counter[str](), Counter[str]()
    for mutant in sorted(drawn, key=lambda mutant: (mutant.file, mutant.line)):
        record = records[mutant.identity]
        drawn_of[mutant.file] += 1
        if record["verdict"] == "noticed":
            noticed[mutant.file] += 1
            continue
        entry = explained.get((mutant.where, mutant.after), {})
        equal[mutant.file] += bool(entry.get("equivalent"))
        survivors.append(
            {
                "file": mutant.file,
                "line": mutant.line,
                "where": mutant.where,
                "before": mutant.before,
                "after": mutant.after,
                "verdict": record["verdict"],
                "equivalent": bool(entry.get("equivalent")),
                "why": entry.get("why", "not explained"),
            }
        )
    of_file = Counter(mutant.file for mutant in found)
    rows = [
        {
            "file": file.removeprefix("monai_cadp/"),
            "mutants": of_file[file],
            "drawn": drawn_of[file],
            "noticed": noticed[file],
            "equivalent": equal[file],
            "score": round(noticed[file] / drawn_of[file], 3),
        }
        for file in drawn_of
    ]
    total, hits, same = sum(drawn_of.values()), sum(noticed.values()), sum(equal.values())
    return {
        "sample": {"seed": SEED, "drawn": total, "of": len(found), "only": only or "all files"},
        "score": round(hits / total, 4),
        "score_without_equivalent": round(hits / (total - same), 4),
        "files": rows,
        "survivors": survivors,
    }


if __name__ == "__main__":
    main()
