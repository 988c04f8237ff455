# SPDX-License-Identifier: Apache-2.0
"""What films keep and give away that are released for the epsilon of a whole set, beside the single film's.

python -m benchmarks.set_of_patients --data nih_cxr_128.npz --out results/set_of_patients.json

The budget is that of a set of so many patients with one film each, seen shuffled and with nothing else known
(``--set_epsilon`` of the bundles); the mechanism and the epsilon of a single film follow from it. Films of validation
and test patients are released by this mechanism. Attackers are those of ``benchmarks.reidentification``, and they know
which release is whose: to them the epsilon of a single film counts, not the set's. Classifiers learn from releases of
training films and are tested on original films of the other patients.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.chest_xray import CLASSIFIER_SEEDS, RELEASES, SHIPPED, load, release, utility
from benchmarks.reidentification import EPOCHS, attacked, best_of, pairs_of_films, small
from benchmarks.report import print_table, write_json
from monai_cadp.attacks import train_verification
from monai_cadp.metrics import CHEST_FEATURES, chest_features, train_residual_classifier, within_class_correlation
from monai_cadp.privacy import Mechanism, PriorOnly, SubsetSelection
from monai_cadp.release import Privatizer
from monai_cadp.release.checkpoint import load_model

SET_EPSILON, NUM_PATIENTS, SET_DELTA = 1.0, 1000, 1e-6
ORIGINALS = "originals"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=".npz with patients, in MedMNIST's format")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--set_epsilon", type=float, default=SET_EPSILON)
    parser.add_argument("--num_patients", type=int, default=NUM_PATIENTS, help="in the smallest class")
    parser.add_argument("--set_delta", type=float, default=SET_DELTA)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the attackers that learn")
    parser.add_argument("--seeds", type=int, default=CLASSIFIER_SEEDS, help="classifiers of each set")
    parser.add_argument("--out", type=Path, default=Path("results/set_of_patients.json"))
    options = parser.parse_args()

    model = load_model(options.checkpoint)
    model.network.eval()
    train, train_labels, train_patients = load(options.data, "train")
    films, labels, patients = load(options.data, "val", "test")
    people, owners = (torch.from_numpy(one.astype(np.int64)) for one in (patients, train_patients))
    features = chest_features(films)
    one, other = pairs_of_films(train_patients, itself=False)
    siamese = train_verification(
        small(train[one]), small(train[other]), people=owners[one], epochs=options.epochs, progress=True
    )

    name = f"a set of {options.num_patients}, epsilon {options.set_epsilon:g}"
    chosen = SubsetSelection.for_set(options.set_epsilon, options.num_patients, options.set_delta)
    methods: dict[str, tuple[float | None, Mechanism | None]] = {
        ORIGINALS: (None, None),
        name: (options.set_epsilon, chosen),
        "prior only": (0.0, PriorOnly()),
    }
    rows: list[dict[str, object]] = []
    for method, (set_epsilon, mechanism) in methods.items():
        seen, shown, kept = [films], train, 1.0
        if mechanism is not None:
            privatizer = Privatizer(model, mechanism)
            seen = [release(privatizer, films, labels, method) for _ in range(RELEASES)]
            shown = release(privatizer, train, train_labels, f"{method}, training films")
            kept = float(
                np.mean([within_class_correlation(features, chest_features(x), labels).mean().item() for x in seen])
            )
        results = attacked(siamese, (seen[0], films, people), (shown, train, owners), max(1, options.epochs // 2))
        classifiers = [
            train_residual_classifier(shown, train_labels, 2, seed=seed, progress=True) for seed in range(options.seeds)
        ]
        learnt_by = utility(classifiers, films, labels, patients)
        row: dict[str, object] = {
            "method": method,
            "set epsilon": set_epsilon,
            "epsilon": None if mechanism is None else mechanism.epsilon,
            "content kept": round(kept, 3),
        }
        for way in ("another film", "the film itself"):
            row |= best_of(results, way)
        row["p/o AUC"] = learnt_by["auc"].to_dict(3)
        rows.append(row)
        print_table([{key: str(value) for key, value in row.items()}])
    write_json(
        options.out,
        {
            "set": {
                "epsilon": options.set_epsilon,
                "patients": options.num_patients,
                "delta": options.set_delta,
                "epsilon_of_a_film": chosen.epsilon,
            },
            "films": len(films),
            "patients": len(np.unique(patients)),
            "features": list(CHEST_FEATURES),
            "releases_whose_content_is_averaged": RELEASES,
            "classifiers_of_each_set": options.seeds,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
