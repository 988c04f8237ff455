# SPDX-License-Identifier: Apache-2.0
"""Whether releases of chest films tell who the patient is, to attackers who hold other films of the same people.

python -m benchmarks.reidentification --data nih_cxr_128.npz --out results/reidentification.json

Some patients have several films. Three attackers compare the release of a film of validation and test patients with the
original films of all of them: one that compares edges and is not trained, a Siamese network that learnt from pairs of
original films of training patients, and one that learnt from pairs of a training patient's release and film, for every
method anew. "Another film" asks for another film of the same person, the film itself left out; "the film itself" is the
harder promise: the attacker holds the very film that was released, among the others. Intervals draw people.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.chest_xray import SHIPPED, load, release
from benchmarks.report import print_table, write_json
from monai_cadp.attacks import LinkageResult, edge_features, linkage, train_verification
from monai_cadp.baselines import GaussianBlur, Mosaic, PixelNoise
from monai_cadp.metrics import chest_features, within_class_correlation
from monai_cadp.privacy import PriorOnly, SubsetSelection
from monai_cadp.release import Privatizer
from monai_cadp.release.checkpoint import load_model
from monai_cadp.reports import Point, curves

EPSILONS = (1.0, 2.0, 4.0, 8.0)
NUM_DIRECTIONS = (2, 4, 8, 16)
EPOCHS = 30


def pairs_of_films(people: np.ndarray, *, itself: bool) -> tuple[Tensor, Tensor]:
    """Return indices of all ordered pairs of films of one person, of a film with itself or not."""
    same = people[:, None] == people
    if not itself:
        np.fill_diagonal(same, False)
    first, second = same.nonzero()
    return torch.from_numpy(first), torch.from_numpy(second)


def small(films: Tensor) -> Tensor:
    """Return films at half their size, at which a network learns identity from few of them."""
    return torch.nn.functional.avg_pool2d(films, 2)


def embedded(model: torch.nn.Module, films: Tensor, side: int) -> Tensor:
    """Return the embeddings (n, 64) of films."""
    with torch.no_grad():
        return torch.cat([model(x, side) for x in small(films).split(64)])


def attack(similarity: Tensor, people: Tensor) -> dict[str, LinkageResult]:
    """Return how well releases (n) are linked to originals (n) of the same films, in both ways."""
    itself = torch.eye(len(people), dtype=torch.bool)
    films = torch.arange(len(people))
    another = (people[:, None] == people) & ~itself
    return {
        "another film": linkage(similarity, people, people, left_out=itself, num_bootstraps=500),
        "the film itself": linkage(similarity, films, films, left_out=another, num_bootstraps=500),
    }


def attacked(
    siamese: torch.nn.Module,
    judged: tuple[Tensor, Tensor, Tensor],
    known: tuple[Tensor, Tensor, Tensor],
    epochs: int,
) -> dict[str, dict[str, LinkageResult]]:
    """Return what every attacker gets.

    Args:
        siamese: the network that learnt from original films.
        judged: releases, original films and people (n,) whom they attack.
        known: the same of others, from whose releases the last attacker learns.
        epochs: of that.
    """
    seen, films, people = judged
    shown, originals, owners = known
    pair, original = pairs_of_films(owners.numpy(), itself=True)
    learnt = train_verification(
        small(shown[pair]), small(originals[original]), people=owners[pair], epochs=epochs, progress=True
    )
    return {
        "edges": attack(edge_features(seen) @ edge_features(films).T, people),
        "Siamese network of originals": attack(embedded(siamese, seen, 0) @ embedded(siamese, films, 1).T, people),
        "Siamese network of releases": attack(embedded(learnt, seen, 0) @ embedded(learnt, films, 1).T, people),
    }


def best_of(results: Mapping[str, dict[str, LinkageResult]], way: str) -> dict[str, object]:
    """Return the largest figures of all attackers, as a row."""
    top = max(results, key=lambda name: results[name][way].top_1.value)
    auc = max(results, key=lambda name: results[name][way].auc.value)
    return {
        f"{way}, top 1": results[top][way].top_1.to_dict(3),
        f"{way}, AUC": results[auc][way].auc.to_dict(3),
        f"{way}, by": top,
        f"{way}, guess": round(results[top][way].guess, 4),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=".npz with patients, in MedMNIST's format")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the attackers that learn")
    parser.add_argument("--out", type=Path, default=Path("results/reidentification.json"))
    options = parser.parse_args()

    model = load_model(options.checkpoint)
    model.network.eval()
    train, train_labels, train_patients = load(options.data, "train")
    films, labels, patients = load(options.data, "val", "test")
    people = torch.from_numpy(patients.astype(np.int64))
    features = chest_features(films)
    original_edges = edge_features(films)

    one, other = pairs_of_films(train_patients, itself=False)
    owners = torch.from_numpy(train_patients.astype(np.int64))
    siamese = train_verification(
        small(train[one]), small(train[other]), people=owners[one], epochs=options.epochs, progress=True
    )

    def unchanged(x: Tensor, _: Tensor) -> Tensor:
        return x

    methods: dict[str, tuple[float | None, Callable[[Tensor, Tensor], Tensor]]] = {
        "originals": (None, unchanged),
        "Gaussian blur, 4 pixels": (None, GaussianBlur(4.0)),
        "mosaic, cells of 8": (None, Mosaic(8)),
        "mosaic, cells of 16": (None, Mosaic(16)),
        "pixel Laplace": (8.0, PixelNoise(8.0)),
        "DP-Pix, cells of 32": (8.0, PixelNoise(8.0, 32)),
        "prior only": (0.0, Privatizer(model, PriorOnly())),
    }
    methods |= {f"content basis, epsilon {e:g}": (e, Privatizer(model, SubsetSelection(e))) for e in EPSILONS}

    rows: list[dict[str, object]] = []
    for name, (epsilon, method) in methods.items():
        seen = release(method, films, labels, name)
        shown = release(method, train, train_labels, f"{name}, training films")
        results = attacked(siamese, (seen, films, people), (shown, train, owners), max(1, options.epochs // 2))
        row: dict[str, object] = {"method": name, "epsilon": epsilon}
        row["content kept"] = round(float(within_class_correlation(features, chest_features(seen), labels).mean()), 3)
        for way in ("another film", "the film itself"):
            row |= best_of(results, way)
        row["all attackers"] = {
            attacker: {
                way: {"top 1": round(result.top_1.value, 3), "AUC": round(result.auc.value, 3)}
                for way, result in ways.items()
            }
            for attacker, ways in results.items()
        }
        rows.append(row)
        print_table([{key: str(value) for key, value in row.items() if key != "all attackers"}])

    # What is kept and what is given away, over epsilon and over the number of directions; by the attacker without
    # training, who needs no releases to learn from.
    counts = [count for count in NUM_DIRECTIONS if count <= model.content.num_directions]
    trade: list[dict[str, object]] = []
    for count in counts:
        basis = model.content.first(count)
        for epsilon in EPSILONS:
            method = Privatizer(model, SubsetSelection(epsilon), basis)
            seen = release(method, films, labels, f"{count} directions, epsilon {epsilon:g}")
            found = attack(edge_features(seen) @ original_edges.T, people)
            kept = float(within_class_correlation(features, chest_features(seen), labels).mean())
            trade.append(
                {"directions": count, "epsilon": epsilon, "content kept": round(kept, 3)}
                | {f"{way}, top 1": round(result.top_1.value, 3) for way, result in found.items()}
                | {f"{way}, AUC": round(result.auc.value, 3) for way, result in found.items()}
            )
    print_table(trade)
    drawing = curves(
        {
            f"{count} directions": [
                Point(float(row["content kept"]), float(row["the film itself, AUC"]))  # type: ignore[arg-type]
                for row in trade
                if row["directions"] == count
            ]
            for count in counts
        },
        "content kept (within-class correlation); each line from epsilon 1 to 8",
        "AUC of an attacker who holds the film",
        {"guessing": 0.5},
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".svg").write_text(drawing, encoding="utf-8")
    write_json(
        options.out,
        {
            "films": len(films),
            "patients": len(np.unique(patients)),
            "patients with several films": int((np.unique(patients, return_counts=True)[1] > 1).sum()),
            "rows": rows,
            "trade": trade,
        },
    )


if __name__ == "__main__":
    main()
