# SPDX-License-Identifier: Apache-2.0
"""How many lines of the configurations stand in another place, too.

python -m benchmarks.repeated_lines --out results/repeated_lines.json

A line counts without its indentation and its comment. Every bundle is run, copied and read alone, so that what two
bundles share stands in both. Lines are counted that stand anywhere else; in another file of the same bundle or folder;
and in a run of eight that stands elsewhere as a whole: what was copied, and not merely said in the same words.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import print_table, write_json

ROOT = Path(__file__).parents[1]
PATTERNS = "bundles/*/configs/*.yaml", "configs/**/*.yaml"
RUN = 8
LARGEST_SHARE = 0.15


def lines(path: Path) -> list[str]:
    """Return what a configuration says, line by line, without indentation, comments and blank lines."""
    said = (re.sub(r"(^|\s)#.*", "", line).strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in said if line]


def repeated(files: Sequence[Sequence[str]]) -> list[int]:
    """Return for each file how many of its lines stand in another place of all files."""
    places = Counter(line for file in files for line in file)
    return [sum(places[line] > 1 for line in file) for file in files]


def copied(files: Sequence[Sequence[str]], run: int = RUN) -> list[int]:
    """Return for each file how many of its lines are part of a run of so many that stands in another place."""
    places = defaultdict(list)
    for number, file in enumerate(files):
        for start in range(len(file) - run + 1):
            places[tuple(file[start : start + run])].append((number, start))
    several = [found for found in places.values() if len(found) > 1]
    marked = {(number, start + step) for found in several for number, start in found for step in range(run)}
    return [sum(number == place for place, _ in marked) for number in range(len(files))]


def measure(root: Path) -> list[dict[str, object]]:
    """Return a row for every bundle or folder, and one of all."""
    paths = sorted(path for pattern in PATTERNS for path in root.glob(pattern))
    owners = [path.relative_to(root).parts[1] if "bundles" in path.parts else "configs" for path in paths]
    files = [lines(path) for path in paths]
    own: list[int] = [0] * len(files)
    for owner in set(owners):
        of_one = [number for number, one in enumerate(owners) if one == owner]
        # In another file, and not in another place of the same one.
        places = Counter(line for number in of_one for line in set(files[number]))
        for number in of_one:
            own[number] = sum(places[line] > 1 for line in files[number])
    counts = list(zip(map(len, files), repeated(files), own, copied(files), strict=True))
    names = "lines", "elsewhere, too", "in another file of the same", f"in runs of {RUN}"
    rows: list[dict[str, object]] = []
    for owner in [*dict.fromkeys(owners), "all"]:
        chosen = [count for count, one in zip(counts, owners, strict=True) if owner in (one, "all")]
        rows.append({"configurations": owner, **dict(zip(names, map(sum, zip(*chosen, strict=True)), strict=True))})
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/repeated_lines.json"))
    options = parser.parse_args()
    rows = measure(ROOT)
    print_table(rows)
    write_json(options.out, {"largest_share": LARGEST_SHARE, "rows": rows})


if __name__ == "__main__":
    main()
