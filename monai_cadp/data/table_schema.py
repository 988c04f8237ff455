# SPDX-License-Identifier: Apache-2.0
"""What is publicly known about a table: its columns, and which of them are conditions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from monai_cadp.data.table_column import CategoricalColumn, Column, OrdinalColumn

__all__ = ["TableSchema"]


class TableSchema:
    r"""The public description of a table; it turns rows into tensors, and any tensor into valid rows.

    Everything in a schema is public, and must be known without looking at the rows: a bound that is the largest value
    of a private column tells that value.

    Conditions are columns that are declared public: they are not encoded, the network is told them, and they are
    written back when a row is decoded. One condition whose values are listed becomes a class index; a continuous one,
    or several, become a float vector from -1 to 1.

    Args:
        columns: in the order of the table; as :class:`~monai_cadp.data.Column` or as plain data
            (:meth:`~monai_cadp.data.Column.from_dict`).
        condition: names of the columns that are public.

    Raises:
        ValueError: if a description is not usable, a name stands twice, a condition is no column, or no column is left.

    Example:
        >>> schema = TableSchema(
        ...     [
        ...         {"name": "age", "kind": "continuous", "lowest": 20, "highest": 100},
        ...         {"name": "grade", "kind": "ordinal", "values": [1, 2]},
        ...         {"name": "diagnosis", "kind": "categorical", "values": ["benign", "malignant"]},
        ...     ],
        ...     condition=["diagnosis"],
        ... )
        >>> rows = [{"age": "60", "grade": 2, "diagnosis": "malignant"}]
        >>> schema.encode(rows), schema.encode_condition(rows)
        (tensor([[0.5000, 0.7500]]), tensor([1]))
        >>> schema.decode(torch.tensor([[0.25, 1.3]]), torch.tensor([0]))
        [{'age': 40.0, 'grade': 2, 'diagnosis': 'benign'}]
    """

    def __init__(self, columns: Sequence[Column | Mapping[str, Any]], condition: Sequence[str] = ()) -> None:
        if isinstance(columns, str | Mapping) or not isinstance(columns, Sequence):
            raise ValueError(f"The columns are a {type(columns).__name__}; expected a list of columns.")
        self.columns = tuple(item if isinstance(item, Column) else Column.from_dict(item) for item in columns)
        names = self.names
        if len(set(names)) < len(names):
            raise ValueError("A column stands twice in the schema; give every name once.")
        listed = isinstance(condition, Sequence) and not isinstance(condition, str)
        if not listed or not all(isinstance(name, str) for name in condition) or len(set(condition)) < len(condition):
            raise ValueError("condition is not a list of different column names; expected one such as [diagnosis].")
        unknown = [name for name in condition if name not in names]
        if unknown:
            raise ValueError(f"The condition {unknown[0]!r} is no column of the schema; describe it among the columns.")
        self.conditions = tuple(column for column in self.columns if column.name in condition)
        self.encoded = tuple(column for column in self.columns if column.name not in condition)
        if not self.encoded:
            raise ValueError("The schema has no column besides its conditions; expected one at least to release.")

    @classmethod
    def read(cls, file: str | os.PathLike[str]) -> TableSchema:
        """Read a schema from a YAML file with ``columns`` and ``condition``.

        Raises:
            ValueError: if the file is missing, damaged, or describes no schema.
        """
        plain = None
        try:
            plain = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            pass
        # Raised here, outside the except clause, so that no inner error carries the path.
        if not isinstance(plain, Mapping) or not {"columns"} <= set(plain) <= {"columns", "condition"}:
            raise ValueError(
                "The schema file is missing, damaged or has other keys; expected YAML with columns and condition."
            )
        return cls(plain["columns"], plain.get("condition") or ())

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as plain data, as the constructor takes them."""
        return {
            "columns": [column.to_dict() for column in self.columns],
            "condition": [column.name for column in self.conditions],
        }

    @property
    def names(self) -> list[str]:
        """Names of all columns."""
        return [column.name for column in self.columns]

    @property
    def width(self) -> int:
        """Length of an encoded row."""
        return sum(column.width for column in self.encoded)

    @property
    def steps(self) -> list[float]:
        """For every number of an encoded row the step over which noise spreads it; 0 for continuous columns."""
        return [column.step for column in self.encoded for _ in range(column.width)]

    @property
    def num_classes(self) -> int | None:
        """Number of classes, where the condition is one column of listed values."""
        if len(self.conditions) != 1:
            return None
        (column,) = self.conditions
        return len(column.values) if isinstance(column, OrdinalColumn | CategoricalColumn) else None

    @property
    def condition_size(self) -> int | None:
        """Length of the condition, where it is a vector."""
        return None if self.num_classes or not self.conditions else sum(column.width for column in self.conditions)

    def column(self, name: str) -> Column:
        """Return the column of this name.

        Raises:
            ValueError: if there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise ValueError(f"The schema has no column {name!r}; expected one of {', '.join(self.names)}.")

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Tensor:
        """Return rows as numbers of a comparable size.

        Args:
            rows: values by the names of columns; conditions may be left out.

        Returns:
            Numbers (n, width) from 0 to 1, float32; the same ones for the same rows.

        Raises:
            ValueError: if rows lack a column, have one that the schema does not know, or hold a value that does not
                belong to it.
        """
        self._check_names(rows)
        return torch.cat([column.encode(_values(rows, column)) for column in self.encoded], dim=1)

    def encode_condition(self, rows: Sequence[Mapping[str, Any]]) -> Tensor | None:
        """Return class indices (n,), float vectors (n, condition_size), or None without conditions; errors as
        :meth:`encode`."""
        self._check_names(rows)
        if self.num_classes:
            (column,) = self.conditions
            assert isinstance(column, OrdinalColumn | CategoricalColumn)
            return column.indices(_values(rows, column))
        if not self.conditions:
            return None
        return torch.cat([2 * column.encode(_values(rows, column)) - 1 for column in self.conditions], dim=1)

    def decode(self, encoded: Tensor, condition: Tensor | None = None) -> list[dict[str, Any]]:
        """Return valid rows, whatever the numbers are.

        Args:
            encoded: (n, width).
            condition: as :meth:`encode_condition` returns it.

        Returns:
            Rows with all columns, in the order of the schema.

        Raises:
            ValueError: if a shape does not fit the schema.
        """
        shape, size = tuple(encoded.shape), self.condition_size
        if encoded.ndim != 2 or shape[1] != self.width:
            raise ValueError(f"The encoded rows have shape {shape}; expected (n, {self.width}).")
        found = None if condition is None else tuple(condition.shape)
        expected = None if not self.conditions else (shape[0],) if size is None else (shape[0], size)
        if found != expected:
            raise ValueError(f"The conditions of {shape[0]} rows have shape {found}; the schema expects {expected}.")
        values = _decoded(self.encoded, encoded)
        if self.num_classes:
            (column,) = self.conditions
            assert condition is not None and isinstance(column, OrdinalColumn | CategoricalColumn)
            values[column.name] = column.at(condition)
        elif condition is not None:
            values |= _decoded(self.conditions, (condition + 1) / 2)
        return [{name: values[name][index] for name in self.names} for index in range(shape[0])]

    def _check_names(self, rows: Sequence[Mapping[str, Any]]) -> None:
        unknown = {name for row in rows for name in row} - set(self.names)
        if unknown:
            # Not named: without a header line, the names are somebody's values.
            raise ValueError(
                f"The rows have {len(unknown)} columns that the schema does not know; describe them in the schema, "
                "name those of subjects and items as subject_column and item_column, or take them out of the table."
            )


def _values(rows: Sequence[Mapping[str, Any]], column: Column) -> list[Any]:
    if not any(column.name in row for row in rows):
        raise ValueError(f"The rows lack the column {column.name!r} of the schema; add it to the table.")
    return [row.get(column.name) for row in rows]


def _decoded(columns: Sequence[Column], encoded: Tensor) -> dict[str, list[Any]]:
    parts = encoded.split([column.width for column in columns], dim=1)
    return {column.name: column.decode(part) for column, part in zip(columns, parts, strict=True)}
