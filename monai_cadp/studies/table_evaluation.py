# SPDX-License-Identifier: Apache-2.0
"""What released rows of a table are still good for."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_cadp.data import TableRows
from monai_cadp.metrics import row_model_score, within_class_correlation
from monai_cadp.release import Releaser, release_rows
from monai_cadp.studies.evaluation import Evaluation
from monai_cadp.studies.row_task import RowTask

__all__ = ["TableEvaluation"]


class TableEvaluation(Evaluation):
    """Train a model on released rows and test it on originals; measure the content that releases keep.

    The model sees rows as a reader of the released file does: decoded to valid values, and encoded again by the public
    schema, conditions among them.

    Args:
        train_table: originals whose releases the model learns from; with their conditions.
        test_table: originals, never seen by the network; with their conditions.
        target: name of the column that the model predicts, a condition or any other; None for the one condition.
        model: "linear" for logistic or ridge regression, "forest" for a random forest.

    Raises:
        ValueError: as :class:`~monai_cadp.studies.row_task.RowTask`.

    Example:
        >>> from monai_cadp.data import ScikitTable
        >>> tables = ScikitTable("breast_cancer", "train"), ScikitTable("breast_cancer", "test")
        >>> TableEvaluation(*tables).originals()["accuracy"] > 0.9
        True
    """

    unit = "row"

    def __init__(
        self, train_table: TableRows, test_table: TableRows, *, target: str | None = None, model: str = "linear"
    ) -> None:
        self.train_table, self.test_table = train_table, test_table
        self.schema = train_table.schema
        self.task = RowTask(self.schema, target, model)
        self.test = self.task.design(test_table.rows, test_table.labels)

    def originals(self) -> dict[str, float]:
        """Return what originals reach: the ceiling."""
        return self.learnt_from(self.train_table)

    def learnt_from(self, table: TableRows) -> dict[str, float]:
        """Return accuracy or r2 of a model that learns from rows which are nobody's releases, such as made-up ones.

        Args:
            table: of the same schema; with conditions where it has them.
        """
        return self._score(table.rows, table.labels)

    def measure(self, releaser: Releaser, name: str) -> dict[str, float]:
        """Return accuracy or r2, and the mean correlation within a class of original and released test rows."""
        figures = self._score(*_release(releaser, self.train_table, f"{name}: training rows"))
        released, _ = _release(releaser, self.test_table, f"{name}: test rows")
        classes = self.test_table.labels if self.schema.num_classes else None
        kept = within_class_correlation(self.test_table.rows, released, classes)
        return figures | {"kept_mean": round(float(kept.mean()), 3)}

    def _score(self, rows: Tensor, labels: Tensor | None) -> dict[str, float]:
        score = row_model_score(*self.task.design(rows, labels), *self.test, model=self.task.model)
        return {self.task.measure: round(score, 4)}


def _release(releaser: Releaser, table: TableRows, description: str) -> tuple[Tensor, Tensor | None]:
    parts = list(release_rows(releaser, table, description=description))
    labels = [condition for _, condition in parts if condition is not None]
    # Rows are few, and scikit-learn works on the CPU.
    return torch.cat([rows for rows, _ in parts]).cpu(), torch.cat(labels).cpu() if labels else None
