# SPDX-License-Identifier: Apache-2.0
"""What a study measures of released rows of a table."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from monai_cadp.data import TableSchema
from monai_cadp.metrics import row_model_score
from monai_cadp.studies.measurements import Figures, LearnedMeasurement, Releases
from monai_cadp.studies.paper_settings import PaperSettings
from monai_cadp.studies.row_task import RowTask

__all__ = ["RowUtility"]


class RowUtility(LearnedMeasurement):
    """A simple model in the settings of the paper (:class:`~monai_cadp.studies.paper_settings.PaperSettings`).

    Args:
        schema: of the table.
        target: name of the column that the model predicts; None for the one condition.
        model: "linear" for logistic or ridge regression, "forest" for a random forest.

    Raises:
        ValueError: as :class:`~monai_cadp.studies.row_task.RowTask`.
    """

    def __init__(self, schema: TableSchema, target: str | None = None, model: str = "linear") -> None:
        self.task = RowTask(schema, target, model)
        # A model of rows is trained where it is tested: what it has learnt from is all that is kept of it.
        self._settings = PaperSettings(self.task.measure, lambda x, y, seed: self.task.design(x, y), self._score)

    def learn(self, releases: Releases, seed: int) -> Callable[[Releases], Figures]:
        """Take the rows to learn from; figures are accuracies, or R2 of a target that is a number."""
        return self._settings(releases, seed)

    def _score(self, learnt: tuple[Tensor, Tensor], x: Tensor, y: Tensor, people: Tensor | None) -> float:
        return row_model_score(*learnt, *self.task.design(x, y), model=self.task.model)
