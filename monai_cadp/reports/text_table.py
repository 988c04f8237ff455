# SPDX-License-Identifier: Apache-2.0
"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["text_table"]


def text_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as lines of aligned columns, in the order in which columns first appear.

    Example:
        >>> print(text_table([{"name": "a", "epsilon": 8.0}, {"name": "long"}]))
        name  epsilon
        a     8.0
        long
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)
