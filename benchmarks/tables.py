# SPDX-License-Identifier: Apache-2.0
"""What a model learns from released rows of a table, by cross-validation in five folds.

python -m benchmarks.tables --out results/tables.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from benchmarks.report import print_table, write_json
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


def measure(name: str) -> list[dict[str, Any]]:
    """Return one row of figures for originals, prior-only and every epsilon: means over folds and draws."""
    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    for fold in tqdm(range(NUM_FOLDS), desc=name):
        learning, test = fold_rows(name, fold)
        evaluation = TableEvaluation(learning, test, target=TARGETS[name])
        found.setdefault(("originals", float("inf")), []).append(evaluation.originals())
        network = train(learning)
        for _ in range(NUM_DRAWS):
            for result in evaluation.run(*network, [SubsetSelection(epsilon) for epsilon in EPSILONS]):
                found.setdefault((result.pop("name"), result.pop("epsilon")), []).append(result)
    rows = []
    for (method, epsilon), results in found.items():
        figures = {key: round(mean(r[key] for r in results), 3) for key in results[0] if key != "delta"}
        rows.append({"table": name, "rows": method, "epsilon": "" if method == "originals" else epsilon, **figures})
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/tables.json"))
    options = parser.parse_args()
    tables = {name: measure(name) for name in TARGETS}
    for rows in tables.values():
        print_table(rows)
    write_json(options.out, {"folds": NUM_FOLDS, "draws": NUM_DRAWS, **tables})


if __name__ == "__main__":
    main()
