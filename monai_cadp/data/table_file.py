# SPDX-License-Identifier: Apache-2.0
"""The rows of a CSV file, however its program writes them."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence

from monai_cadp.data.table_column import ContinuousColumn
from monai_cadp.data.table_schema import TableSchema

__all__ = ["read_table_file"]

SEPARATORS = (",", ";", "\t", "|")
# The first line by which Excel is told.
STATED_SEPARATOR = re.compile(r"sep=(.)\s*")
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
# What pandas and R call a column that numbers the rows.
INDEX_NAMES = ("", "Unnamed: 0")


def read_table_file(file: str | os.PathLike[str], schema: TableSchema) -> list[dict[str, str]]:
    """Return the rows of a CSV file by the names of its columns.

    Cells may be separated by commas, semicolons, tabs or bars, whichever finds the most columns of the schema in the
    header line, or as a first line ``sep=;`` says. Lines before the header that begin with # are passed over, and so is
    a first column without a name that numbers the rows.

    Args:
        file: CSV in UTF-8 with a header line.
        schema: of the table; its names are looked for.

    Raises:
        ValueError: if the file is missing, empty or damaged, two columns have one name, rows are of different lengths,
            or numbers have decimal commas; names no value and no unknown column.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> schema = TableSchema([{"name": "age", "kind": "continuous", "lowest": 0, "highest": 100}])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.csv").write_text("# made by hand\\nage;ward\\n50;A\\n")
        ...     read_table_file(f"{folder}/a.csv", schema)
        [{'age': '50', 'ward': 'A'}]
    """
    table: list[list[str]] = []
    try:
        with open(file, encoding="utf-8-sig", newline="") as content:
            table = _cells(list(io.StringIO(content.read(), newline="")), schema.names)
    except (OSError, ValueError):
        pass
    # Raised here, outside the except clause, so that no inner error carries the path or the content.
    if not table:
        raise ValueError("The table file is missing, empty or damaged; expected CSV in UTF-8 with a header line.")
    header, *rows = table
    if len(set(header)) < len(header):
        raise ValueError("Two columns of the table file have one name; give every column a name of its own.")
    uneven = sum(len(row) != len(header) for row in rows)
    if uneven:
        raise ValueError(
            f"{uneven} of {len(rows)} rows of the table file do not have the {len(header)} cells of the header line; "
            "correct them."
        )
    if header[0] in INDEX_NAMES and header[0] not in schema.names and _counts([row[0] for row in rows]):
        header, rows = header[1:], [row[1:] for row in rows]
    named = [dict(zip(header, row, strict=True)) for row in rows]
    for column in schema.columns:
        if isinstance(column, ContinuousColumn):
            commas = sum(bool(DECIMAL_COMMA.fullmatch(row.get(column.name, ""))) for row in named)
            if commas:
                raise ValueError(
                    f"{commas} of {len(named)} values of the column {column.name!r} have a decimal comma; write "
                    "decimal points."
                )
    return named


def _cells(lines: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    stated = STATED_SEPARATOR.fullmatch(lines[0]) if lines else None
    lines = lines[1:] if stated else lines
    while lines and (not lines[0].strip() or (lines[0].startswith("#") and lines[0].strip() not in names)):
        lines = lines[1:]
    separators = SEPARATORS if stated is None else (stated[1],)
    tables = [table for one in separators if (table := _parsed(lines, one))]
    return max(tables, key=lambda table: len({*table[0]} & {*names}), default=[])


def _parsed(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Return the cells of all lines; none where quotes do not fit the separator."""
    try:
        reader = csv.reader(lines, delimiter=separator, strict=True)
        return [[cell.strip() for cell in line] for line in reader if line]
    except csv.Error:
        return []


def _counts(cells: Sequence[str]) -> bool:
    """Tell whether cells number their rows, from 0 or from 1."""
    return list(cells) in ([str(n) for n in range(start, start + len(cells))] for start in (0, 1))
