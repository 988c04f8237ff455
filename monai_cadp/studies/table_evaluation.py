# SPDX-License-Identifier: Apache-2.0
"""What released rows are still good for, beside originals and beside the prior alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_cadp.checkpoint import load_privatizer
from monai_cadp.data import TableRows
from monai_cadp.metrics import row_model_score, within_class_correlation
from monai_cadp.networks import ContentBasis, InvertibleNetwork
from monai_cadp.privacy import Mechanism, PriorOnly, SubsetSelection
from monai_cadp.privatizer import Privatizer
from monai_cadp.reports import text_table
from monai_cadp.studies.row_task import RowTask
from monai_cadp.studies.table_release import release_rows

__all__ = ["TableEvaluation"]


class TableEvaluation:
    """Train a model on released rows and test it on originals; measure the content that releases keep.

    The model sees rows as a reader of the released file does: decoded to valid values, and encoded again by the public
    schema, conditions among them. Prior-only is always among the results: what it reaches, the condition and the
    network alone explain.

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

    def __init__(
        self, train_table: TableRows, test_table: TableRows, *, target: str | None = None, model: str = "linear"
    ) -> None:
        self.train_table, self.test_table = train_table, test_table
        self.schema = train_table.schema
        self.task = RowTask(self.schema, target, model)
        self.test = self.task.design(test_table.rows, test_table.labels)

    def originals(self) -> dict[str, float]:
        """Return what originals reach: the ceiling."""
        return self._score(self.train_table.rows, self.train_table.labels)

    def run(
        self, network: InvertibleNetwork, content: ContentBasis, mechanisms: Sequence[Mechanism], **options: Any
    ) -> list[dict[str, Any]]:
        """Measure prior-only and every mechanism.

        Args:
            network: the trained network.
            content: its content basis.
            mechanisms: what is compared.
            options: further arguments of :class:`Privatizer`.

        Returns:
            One result for each, prior-only first, as plain data: name, epsilon, delta, accuracy or r2, and kept_mean,
            the correlation of numbers of original and released test rows within a class, averaged.
        """
        return [
            self._measure(Privatizer(network, mechanism, content, unit="row", **options))
            for mechanism in (PriorOnly(), *mechanisms)
        ]

    def write(self, checkpoint: str | Path, epsilons: Sequence[float], path: str | Path) -> None:
        """Measure subset selection at several epsilons with a trained network, print a table, and write it as JSON.

        Args:
            checkpoint: file of :func:`~monai_cadp.checkpoint.save_privatizer`.
            epsilons: budgets of one row.
            path: of the JSON file.

        Raises:
            ValueError: if an epsilon is not usable or the checkpoint cannot be read; nothing is written then.
        """
        mechanisms = [SubsetSelection(float(epsilon)) for epsilon in epsilons]
        privatizer = load_privatizer(checkpoint, PriorOnly())
        assert isinstance(privatizer.content, ContentBasis)
        results = self.run(privatizer.inn, privatizer.content, mechanisms)
        rows = [{"name": "originals", **self.originals()}, *results]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        print(text_table(rows), f"\nwritten to {path}")

    def _measure(self, privatizer: Privatizer) -> dict[str, Any]:
        guarantee = privatizer.guarantee
        name = "prior only" if guarantee.epsilon == 0 else f"epsilon {guarantee.epsilon:g}"
        figures = self._score(*_release(privatizer, self.train_table, f"{name}: training rows"))
        released, _ = _release(privatizer, self.test_table, f"{name}: test rows")
        classes = self.test_table.labels if self.schema.num_classes else None
        kept = within_class_correlation(self.test_table.rows, released, classes)
        figures["kept_mean"] = round(float(kept.mean()), 3)
        return {"name": name, "epsilon": guarantee.epsilon, "delta": guarantee.delta, **figures}

    def _score(self, rows: Tensor, labels: Tensor | None) -> dict[str, float]:
        score = row_model_score(*self.task.design(rows, labels), *self.test, model=self.task.model)
        return {self.task.measure: round(score, 4)}


def _release(privatizer: Privatizer, table: TableRows, description: str) -> tuple[Tensor, Tensor | None]:
    parts = list(release_rows(privatizer, table, description=description))
    labels = [condition for _, condition in parts if condition is not None]
    return torch.cat([rows for rows, _ in parts]), torch.cat(labels) if labels else None
