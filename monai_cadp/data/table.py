# SPDX-License-Identifier: Apache-2.0
"""Tables in CSV files."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from itertools import accumulate

import numpy as np

from monai_cadp.data.table_file import read_table_file
from monai_cadp.data.table_rows import TableRows, check_split
from monai_cadp.data.table_schema import TableSchema
from monai_cadp.privacy import SubjectId

__all__ = ["Table"]


class Table(TableRows):
    r"""Items {"image": float32 (width,), "label": ..., "subject": ...} from one split of a CSV file.

    How the file may be written says :func:`~monai_cadp.data.table_file.read_table_file`. Which split a row is in
    depends on its place in the file, the fractions and the seed, and on nothing that the row holds; with subjects, on
    the place of the subject's first row: all rows of a subject are in one split.

    Args:
        file: the CSV file.
        schema: of its columns. Conditions may all be missing, for a network that is told one condition for all rows.
        split: "train", "val", "test", or "all" for the whole file.
        fractions: of the rows, or subjects, in train, val and test; they add up to 1.
        seed: of the order that is divided into splits; public.
        subject_column: name of a column, besides those of the schema, that says whose row it is; secret, and handed on
            for the budgets of a ledger only.
        item_column: name of a column, besides those of the schema, that tells the rows of a subject apart, such as the
            number of a visit. Without one a ledger knows a row by its place among the rows of its subject: then rows
            may be added behind others, but not change their order.

    Raises:
        ValueError: if the file is missing, damaged or empty, does not fit the schema, the split is unknown or has no
            rows, or fractions are not usable.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> schema = TableSchema([{"name": "age", "kind": "continuous", "lowest": 0, "highest": 100}])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.csv").write_text("age,patient\n50,A\n25,B\n")
        ...     table = Table(f"{folder}/a.csv", schema, split="all", subject_column="patient")
        >>> table[1]
        {'image': tensor([0.2500]), 'subject': 'B', 'item': 'row 0'}
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        schema: TableSchema,
        split: str = "train",
        *,
        fractions: Sequence[float] = (0.6, 0.2, 0.2),
        seed: int = 0,
        subject_column: str | None = None,
        item_column: str | None = None,
    ) -> None:
        check_split(split)
        if len(fractions) != 3 or not all(0 <= share <= 1 for share in fractions) or abs(sum(fractions) - 1) > 1e-6:
            raise ValueError(f"fractions is {tuple(fractions)}; expected shares of train, val and test, in all 1.")
        if item_column is not None and subject_column is None:
            raise ValueError("item_column was given without subject_column; give both, or the latter alone.")
        rows = read_table_file(file, schema)
        names = {column: _taken(rows, column, schema) for column in (subject_column, item_column) if column is not None}
        subjects = None if subject_column is None else names[subject_column]
        items = None if item_column is None else names[item_column]
        # Of the whole file, before it is split: every row fits, and is called the same in every split.
        super().__init__(rows, schema, subjects, items)
        people = list(range(len(rows))) if subjects is None else [SubjectId(subject) for subject in subjects]
        chosen = _chosen(people, split, fractions, seed)
        if not chosen:
            raise ValueError(f"The split {split!r} of {len(rows)} rows is empty; give more rows or other fractions.")
        self.rows = self.rows[chosen]
        self.labels = None if self.labels is None else self.labels[chosen]
        self._names = [self._names[index] for index in chosen]


def _taken(rows: list[dict[str, str]], column: str, schema: TableSchema) -> list[str]:
    """Take a column that is not the schema's out of the rows."""
    if column in schema.names:
        raise ValueError(f"The column {column!r} names subjects or rows, and is in the schema; take it out there.")
    if not all(column in row for row in rows):
        raise ValueError(f"The table file has no column {column!r}; name one that tells subjects or their rows apart.")
    return [row.pop(column) for row in rows]


def _chosen(groups: Sequence[Hashable], split: str, fractions: Sequence[float], seed: int) -> list[int]:
    """Return the indices of the rows whose groups are in a split."""
    if split == "all":
        return list(range(len(groups)))
    distinct = list(dict.fromkeys(groups))
    order = np.random.RandomState(seed).permutation(len(distinct))
    first, second, _ = (round(share * len(distinct)) for share in accumulate(fractions))
    parts = {"train": order[:first], "val": order[first:second], "test": order[second:]}
    members = {distinct[index] for index in parts[split]}
    return [index for index, group in enumerate(groups) if group in members]
