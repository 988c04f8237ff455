# SPDX-License-Identifier: Apache-2.0
"""What is predicted from the rows of a table, and what it is predicted from."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_cadp.data import ContinuousColumn, TableSchema
from monai_cadp.data.table_column import CategoricalColumn, OrdinalColumn
from monai_cadp.metrics import ROW_MODELS

__all__ = ["RowTask"]


class RowTask:
    """One column to be predicted from all others, conditions among them.

    Args:
        schema: of the table.
        target: name of the column, a condition or any other; None for the one condition.
        model: "linear" for logistic or ridge regression, "forest" for a random forest.

    Raises:
        ValueError: if the target is no column, it was left out and there is not exactly one condition, or the model is
            unknown.

    Example:
        >>> from monai_cadp.data import ScikitTable
        >>> table = ScikitTable("breast_cancer")
        >>> features, target = RowTask(table.schema).design(table.rows, table.labels)
        >>> features.shape, target.dtype
        (torch.Size([341, 30]), torch.int64)
    """

    def __init__(self, schema: TableSchema, target: str | None = None, model: str = "linear") -> None:
        if target is None and len(schema.conditions) != 1:
            raise ValueError(
                f"The table has {len(schema.conditions)} conditions and no target was given; name the column to be "
                "predicted."
            )
        if model not in ROW_MODELS:
            raise ValueError(f"The model is {model!r}; expected one of {', '.join(ROW_MODELS)}.")
        self.schema, self.model = schema, model
        self.target = schema.column(schema.conditions[0].name if target is None else target)

    @property
    def measure(self) -> str:
        """What is measured: accuracy of classes, or R2 of numbers."""
        return "r2" if isinstance(self.target, ContinuousColumn) else "accuracy"

    def design(self, encoded: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return features (n, k) and target (n,) of rows, as a reader of the released file has them."""
        rows = self.schema.decode(encoded, labels)
        values = {column.name: [row[column.name] for row in rows] for column in self.schema.columns}
        others = [column for column in self.schema.columns if column is not self.target]
        features = torch.cat([column.encode(values[column.name]) for column in others], dim=1)
        target = values[self.target.name]
        if isinstance(self.target, OrdinalColumn | CategoricalColumn):
            return features, self.target.indices(target)
        return features, torch.tensor(target, dtype=torch.float64)
