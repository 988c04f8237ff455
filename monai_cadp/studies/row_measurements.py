# SPDX-License-Identifier: Apache-2.0
"""What a study measures of released rows of a table."""

from __future__ import annotations

from monai_cadp.data import TableSchema
from monai_cadp.metrics import row_model_score
from monai_cadp.studies.measurements import Figures, Releases
from monai_cadp.studies.row_task import RowTask

__all__ = ["RowUtility"]


class RowUtility:
    """A simple model in the paper's settings, as :class:`ClassifierUtility` has them for images.

    Args:
        schema: of the table.
        target: name of the column that the model predicts; None for the one condition.
        model: "linear" for logistic or ridge regression, "forest" for a random forest.

    Raises:
        ValueError: as :class:`~monai_cadp.studies.row_task.RowTask`.
    """

    def __init__(self, schema: TableSchema, target: str | None = None, model: str = "linear") -> None:
        self.task = RowTask(schema, target, model)

    def __call__(self, releases: Releases, seed: int) -> Figures:
        """Return accuracies, or R2 of a target that is a number."""
        if releases.train_released is None or releases.test_released is None:
            return {}
        measure, train, test = self.task.measure, releases.train, releases.test
        sides = {
            "o": (train.x, test.x),
            "p": (releases.train_released, releases.test_released),
        }
        settings = [("p", "o")] if releases.variant.is_original else [("p", "o"), ("p", "p"), ("o", "p")]
        return {
            f"{measure}_{learnt}_{tested}": row_model_score(
                *self.task.design(sides[learnt][0], train.y),
                *self.task.design(sides[tested][1], test.y),
                model=self.task.model,
            )
            for learnt, tested in settings
        }
