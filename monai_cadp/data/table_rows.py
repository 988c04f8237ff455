# SPDX-License-Identifier: Apache-2.0
"""Rows of a table that are held in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from monai_cadp.data.table_schema import TableSchema
from monai_cadp.privacy import ItemId, SubjectId, check_distinct

__all__ = ["SPLITS", "TableRows", "check_split"]

SPLITS = ("train", "val", "test", "all")


class TableRows(Dataset):
    """Items {"image": float32 (width,), "label": ...} from rows: what data sets of images give, for a table.

    The label is the condition, where the schema has one and the rows hold it: an int64 tensor without dimensions, or
    float32 (condition_size,).

    Args:
        rows: values by the names of columns.
        schema: of the table.
        subjects: whose row each is, for a ledger; secret. Items have a "subject" then, and an "item".
        items: which of the subject's rows each is; counted in their order if left out.

    Raises:
        ValueError: if there are no rows, a row does not fit the schema, or a subject or item is missing or stands
            twice.

    Example:
        >>> schema = TableSchema([{"name": "age", "kind": "continuous", "lowest": 0, "highest": 100}])
        >>> rows = TableRows([{"age": 50}, {"age": 20}], schema)
        >>> len(rows), rows[0]
        (2, {'image': tensor([0.5000])})
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        schema: TableSchema,
        subjects: Sequence[str] | None = None,
        items: Sequence[str] | None = None,
    ) -> None:
        if not rows:
            raise ValueError("The table has no rows; expected one at least.")
        self.schema = schema
        self.rows: Tensor = schema.encode(rows)
        held = any(column.name in row for row in rows for column in schema.conditions)
        self.labels = schema.encode_condition(rows) if held else None
        self._names = [{}] * len(rows) if subjects is None else _named(subjects, items)
        if len(self._names) != len(rows):
            raise ValueError(f"There are {len(self._names)} subjects for {len(rows)} rows; expected one for each.")

    @property
    def has_subjects(self) -> bool:
        """Whether items say whose rows they are."""
        return bool(self._names[0])

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Return one row, its label, and its subject where there is one."""
        item: dict[str, Tensor | str] = {"image": self.rows[index].clone()}
        if self.labels is not None:
            item["label"] = self.labels[index].clone()
        return item | self._names[index]

    def decoded(self) -> list[dict[str, Any]]:
        """Return all rows as the schema knows them, with values clipped to their bounds.

        Raises:
            ValueError: if the schema has a condition that the rows do not hold.
        """
        return self.schema.decode(self.rows, self.labels)


def check_split(split: str) -> None:
    """Raise ValueError unless a split is one of those that tables have."""
    if split not in SPLITS:
        raise ValueError(f"The split is {split!r}; expected one of {', '.join(SPLITS)}.")


def _named(subjects: Sequence[str], items: Sequence[str] | None) -> list[dict[str, str]]:
    """Return what items say of their subjects."""
    given = [value for values in (subjects, items or ()) for value in values if isinstance(value, str)]
    missing = sum(not value.strip() for value in given)
    if missing:
        raise ValueError(
            f"{missing} of {len(subjects)} rows have no subject or no item; fill the columns that name them."
        )
    people = [SubjectId(subject) for subject in subjects]
    if items is None:
        seen: Counter[SubjectId] = Counter()
        places = []
        for person in people:
            places.append(f"row {seen[person]}")
            seen[person] += 1
        items = places
    else:
        which = [ItemId(item) for item in items]
        check_distinct(zip(people, which, strict=True), "rows of the table, in their order,")
    return [{"subject": subject, "item": item} for subject, item in zip(subjects, items, strict=True)]
