# SPDX-License-Identifier: Apache-2.0
"""Tables that come with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from monai_cadp.data.table_column import CategoricalColumn, Column, ContinuousColumn
from monai_cadp.data.table_rows import TableRows, check_split
from monai_cadp.data.table_schema import TableSchema
from monai_cadp.extras import extra

__all__ = ["SCIKIT_TABLES", "ScikitTable"]

NUM_FOLDS = 5
NUM_MOON_ROWS, MOON_NOISE = 2000, 0.1


class ScikitTable(TableRows):
    """Rows of a public table, ready without a download.

    ===============  =======  ======================================  ==================================
    name             rows     columns                                 condition
    ===============  =======  ======================================  ==================================
    "breast_cancer"  569      30 measures of cell nuclei              diagnosis, "malignant" or "benign"
    "diabetes"       442      9 measures, and "progression" a year    sex, 1 or 2
                              later, the target of regressions
    "two_moons"      2000     2 coordinates, made with a fixed seed   moon, 0 or 1
    ===============  =======  ======================================  ==================================

    The bounds of the columns are the smallest and largest values of these public tables. That is right for public
    data only: bounds of a private table must be known without looking at it. Sizes and shapes of nuclei have long tails
    and are taken by their logarithm, where none is 0.

    The rows are dealt into five parts at random with a fixed seed, every class alike. In fold i part i is the test
    split, the next part the validation split, and the other three are the training split.

    Args:
        name: of the table.
        split: "train", "val", "test", or "all".
        fold: 0 to 4; None is 0.

    Raises:
        ValueError: if the name, the split or the fold is unknown.

    References:
        Street, Wolberg, Mangasarian: Nuclear feature extraction for breast tumor diagnosis, SPIE 1905, 1993.
        Efron, Hastie, Johnstone, Tibshirani: Least angle regression, Annals of Statistics 32, 2004.

    Example:
        >>> table = ScikitTable("breast_cancer", "test")
        >>> len(table), table[0]["image"].shape, table[0]["label"]
        (114, torch.Size([30]), tensor(0))
    """

    def __init__(self, name: str, split: str = "train", fold: int | None = None) -> None:
        check_split(split)
        if name not in SCIKIT_TABLES:
            raise ValueError(f"The table is {name!r}; expected one of {', '.join(SCIKIT_TABLES)}.")
        if fold is not None and fold not in range(NUM_FOLDS):
            raise ValueError(f"fold is {fold!r}; expected a number from 0 to {NUM_FOLDS - 1}, or None.")
        with extra("studies", "A table of scikit-learn"):
            from sklearn.model_selection import StratifiedKFold
        schema, rows = SCIKIT_TABLES[name]()
        classes = schema.encode_condition(rows)
        folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=0).split(np.zeros(len(rows)), classes)
        part = np.empty(len(rows), dtype=int)
        for index, (_, members) in enumerate(folds):
            part[members] = index
        distance = (part - (fold or 0)) % NUM_FOLDS
        chosen = {"train": distance > 1, "val": distance == 1, "test": distance == 0, "all": distance >= 0}[split]
        super().__init__([row for row, inside in zip(rows, chosen, strict=True) if inside], schema)


def _breast_cancer() -> tuple[TableSchema, list[dict[str, Any]]]:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    columns = {str(name): values for name, values in zip(data.feature_names, data.data.T, strict=True)}
    diagnosis = CategoricalColumn("diagnosis", [str(name) for name in data.target_names])
    return _table(columns, diagnosis, [diagnosis.values[index] for index in data.target], log=True)


def _diabetes() -> tuple[TableSchema, list[dict[str, Any]]]:
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    columns = {name: values for name, values in zip(data.feature_names, data.data.T, strict=True)}
    sex = columns.pop("sex").astype(int).tolist()
    columns["progression"] = data.target
    return _table(columns, CategoricalColumn("sex", [1, 2]), sex)


def _two_moons() -> tuple[TableSchema, list[dict[str, Any]]]:
    from sklearn.datasets import make_moons

    points, moons = make_moons(NUM_MOON_ROWS, noise=MOON_NOISE, random_state=0)
    return _table({"x": points[:, 0], "y": points[:, 1]}, CategoricalColumn("moon", [0, 1]), moons.tolist())


def _table(
    columns: dict[str, np.ndarray], condition: CategoricalColumn, classes: list[Any], log: bool = False
) -> tuple[TableSchema, list[dict[str, Any]]]:
    described: list[Column] = [_described(name, values, log) for name, values in columns.items()]
    schema = TableSchema([*described, condition], [condition.name])
    rows = [
        {**{name: float(values[index]) for name, values in columns.items()}, condition.name: label}
        for index, label in enumerate(classes)
    ]
    return schema, rows


def _described(name: str, values: np.ndarray, log: bool) -> ContinuousColumn:
    lowest, highest = float(values.min()), float(values.max())
    return ContinuousColumn(name, lowest, highest, log=log and lowest > 0)


SCIKIT_TABLES = {"breast_cancer": _breast_cancer, "diabetes": _diabetes, "two_moons": _two_moons}
