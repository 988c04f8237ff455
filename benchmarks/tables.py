# SPDX-License-Identifier: Apache-2.0
"""What a model learns from released rows of a table, and from made-up ones, by cross-validation in five folds.

Releases are local: each row has its own budget, and nobody else need see it. The network has learnt from the rows of
the training folds as if they were public. A made-up table of Private Evolution is central: all of it has one budget for
whoever is in these folds, and whoever makes it is trusted with them.

python -m benchmarks.tables --out results/tables.json
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from benchmarks.report import print_table, write_json
from monai_cadp.baselines import evolve_table
from monai_cadp.data import ScikitTable
from monai_cadp.data.table_rows import TableRows
from monai_cadp.engines import ColumnNoise, FlowTrainer
from monai_cadp.networks import ConditionalINN, ContentBasis
from monai_cadp.privacy import SubsetSelection
from monai_cadp.studies import TableEvaluation

EPSILONS = (1.0, 2.0, 4.0, 8.0)
NUM_FOLDS, NUM_DRAWS = 5, 5
# Chosen on validation parts of the training folds, for both tables alike.
TARGETS = {"breast_cancer": None, "diabetes": "progression"}
NUM_COUPLINGS, WIDTH, EPOCHS, NUM_DIRECTIONS, NOISE = 6, 64, 30, 8, 0.01
LOCAL, CENTRAL = "local, each row", "central, the whole table"
# Figures of every fold and draw, by method, epsilon and what has this epsilon.
Found = dict[tuple[str, float, str | None], list[dict[str, float]]]


def train(table: TableRows) -> tuple[ConditionalINN, ContentBasis]:
    """Train a network on the rows."""
    torch.manual_seed(0)
    schema = table.schema
    inn = ConditionalINN((), schema.width, num_classes=schema.num_classes, num_couplings=NUM_COUPLINGS, width=WIDTH)
    noise = ColumnNoise(schema.steps, NOISE)
    loader = DataLoader(table, 64, shuffle=True)
    trainer = FlowTrainer(inn, loader, max_epochs=EPOCHS, noise=noise, training_data="public")
    trainer.run()
    network = trainer.averaged_network
    assert isinstance(network, ConditionalINN)
    return network, ContentBasis.fit(network, NUM_DIRECTIONS)


def fold_rows(name: str, fold: int) -> tuple[TableRows, TableRows]:
    """Return what is learnt from in a fold, and what is tested on."""
    learning = [ScikitTable(name, split, fold) for split in ("train", "val")]
    rows = [row for part in learning for row in part.schema.decode(part.rows, part.labels)]
    test = ScikitTable(name, "test", fold)
    return TableRows(rows, test.schema), test


def folds(name: str) -> Iterator[tuple[TableRows, TableEvaluation]]:
    """Return what is learnt from in every fold, and what tests it."""
    for fold in tqdm(range(NUM_FOLDS), desc=name):
        learning, test = fold_rows(name, fold)
        yield learning, TableEvaluation(learning, test, target=TARGETS[name])


def released(name: str) -> list[dict[str, Any]]:
    """Return one row of figures for originals, prior-only and every epsilon."""
    found: Found = {}
    for learning, evaluation in folds(name):
        found.setdefault(("originals", float("inf"), None), []).append(evaluation.originals())
        network = train(learning)
        for _ in range(NUM_DRAWS):
            for result in evaluation.run(*network, [SubsetSelection(epsilon) for epsilon in EPSILONS]):
                found.setdefault((result.pop("name"), result.pop("epsilon"), LOCAL), []).append(result)
    return means(name, found)


def evolved(name: str) -> list[dict[str, Any]]:
    """Return one row of figures for the made-up table of every epsilon, in the settings and at the delta of Tab-PE."""
    found: Found = {}
    for learning, evaluation in folds(name):
        delta = 1 / (len(learning) * math.log(len(learning)))
        for seed in range(NUM_DRAWS):
            for epsilon in EPSILONS:
                made_up = evolve_table(learning, epsilon=epsilon, delta=delta, seed=seed)
                key = f"Private Evolution, epsilon {epsilon:g}", epsilon, CENTRAL
                found.setdefault(key, []).append(evaluation.learnt_from(made_up))
    return means(name, found)


def means(name: str, found: Found) -> list[dict[str, Any]]:
    """Return one row of figures for each method: means over folds and draws."""
    rows = []
    for (method, epsilon, promise), results in found.items():
        figures = {key: round(mean(r[key] for r in results), 3) for key in results[0] if key != "delta"}
        budget = "" if method == "originals" else epsilon
        rows.append({"table": name, "rows": method, "promise": promise, "epsilon": budget, **figures})
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/tables.json"))
    options = parser.parse_args()
    tables = {name: released(name) + evolved(name) for name in TARGETS}
    for rows in tables.values():
        print_table(rows)
    write_json(options.out, {"folds": NUM_FOLDS, "draws": NUM_DRAWS, **tables})


if __name__ == "__main__":
    main()
