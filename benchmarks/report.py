# SPDX-License-Identifier: Apache-2.0
"""How a benchmark says what it found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_cadp.reports import text_table

__all__ = ["print_table", "write_json"]


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows of equal columns."""
    print("\n" + text_table(rows))


def write_json(path: Path, result: Mapping[str, object]) -> None:
    """Write the result and say where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")
