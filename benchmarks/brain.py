# SPDX-License-Identifier: Apache-2.0
"""What is kept of brains, how real they look, and who is told from whom, on patients that the network never saw.

python -m benchmarks.brain --checkpoint bundles/cadp_brain_mr/models/model.pt --out results/brain.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from benchmarks.report import print_table, write_json
from monai_cadp.attacks import reidentification, train_verification
from monai_cadp.data import BrainCohort, save_image_grid
from monai_cadp.metrics import (
    BRAIN_FEATURES,
    BrainFeatures,
    classifier_auc,
    frechet_distance,
    train_classifier,
    within_class_correlation,
)
from monai_cadp.networks import DeclaredContent
from monai_cadp.privacy import Mechanism, PriorOnly, SubsetSelection
from monai_cadp.release.checkpoint import load_model
from monai_cadp.release.privatizer import Privatizer

EPSILONS = (1.0, 2.0, 4.0, 8.0)
# Cohorts of different seeds have no patient in common; those of the bundle's training are 1 and 2.
TEST_SEED, LEARNING_SEED = 13, 12
BATCH_SIZE = 8
EPOCHS = 12


def cohort(seed: int, num_patients: int, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return one scan of every patient, another scan of each, and who has a lesion."""
    loader: DataLoader = DataLoader(BrainCohort(seed, num_patients, num_scans=2), batch_size=16, num_workers=2)
    parts = [(batch["image"], batch["label"]) for batch in tqdm(loader, desc=name)]
    images, labels = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
    return images[0::2].clone(), images[1::2].clone(), labels[0::2].clone()


def release(privatizer: Privatizer, images: Tensor, labels: Tensor, name: str) -> Tensor:
    """Return one release of every volume, with intensities 0 to 1."""
    parts = tqdm(list(zip(images.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True)), desc=name)
    return torch.cat([privatizer(x, y).clamp(0, 1) for x, y in parts])


def content_row(
    name: str, epsilon: float, images: Tensor, releases: Sequence[Tensor], labels: Tensor
) -> dict[str, Any]:
    """Return what is kept of the content, on average over several releases of everybody."""
    features = BrainFeatures(BrainCohort().spacing)
    original = features(images)
    each = [within_class_correlation(original, features(released), labels) for released in releases]
    kept = torch.stack(each).mean(0).tolist()
    row: dict[str, Any] = {"method": name, "epsilon": epsilon}
    row |= {feature: round(value, 3) for feature, value in zip(BRAIN_FEATURES, kept, strict=True)}
    return row | {"mean": round(sum(kept) / len(kept), 3)}


@torch.no_grad()
def distance(classifier: nn.Module, one: Tensor, other: Tensor) -> float:
    """Return the Frechet distance of two sets of volumes, on the last features of the lesion classifier."""
    features = nn.Sequential(*list(classifier.children())[:-1])
    pair = (torch.cat([features(x) for x in images.split(64)]) for images in (one, other))
    return round(frechet_distance(*pair), 3)


def without_flows(privatizer: Privatizer) -> Privatizer:
    """Take away all that is trained: what is left is the linear layer, with scales for details."""
    inn = privatizer.inn
    inn.whitening.flow = inn.local_flow = inn.rewhitening = None
    for level in inn.detail_flows:
        level.steps = level.steps[:1]
    return privatizer


def attack(
    learning: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], name: str, epsilon: float | None
) -> dict[str, Any]:
    """Learn to tell people on some, and tell others."""
    auc = reidentification(train_verification(*learning, epochs=EPOCHS, progress=True), *test).auc
    row = {"gallery": name, "epsilon": epsilon, "auc": round(auc.value, 3)}
    return row | {"interval": [round(auc.low, 3), round(auc.high, 3)]}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("bundles/cadp_brain_mr/models/model.pt"))
    parser.add_argument("--patients", type=int, default=300, help="unseen patients of every figure")
    parser.add_argument("--learning", type=int, default=600, help="patients from whom classifiers and attackers learn")
    parser.add_argument("--releases", type=int, default=3, help="of each patient, over which content is averaged")
    parser.add_argument("--detail_temperature", type=float, default=0.5)
    parser.add_argument("--out", type=Path, default=Path("results/brain.json"))
    options = parser.parse_args()
    torch.manual_seed(0)
    images, again, labels = cohort(TEST_SEED, options.patients, "unseen patients")
    learning, learning_again, learning_labels = cohort(LEARNING_SEED, options.learning, "patients to learn from")
    model = load_model(options.checkpoint)
    privatizer_of = partial(Privatizer, detail_temperature=options.detail_temperature, unit="volume")
    features = DeclaredContent(BrainFeatures(BrainCohort().spacing))
    declared = privatizer_of(model, SubsetSelection(EPSILONS[0]), features)

    rows, released = [], {}
    jobs: list[tuple[str, Mechanism]] = [("prior only", PriorOnly())]
    jobs += [("content basis", SubsetSelection(epsilon)) for epsilon in EPSILONS]
    contents = [(*job, privatizer_of(model, job[1])) for job in jobs]
    for epsilon in EPSILONS:
        mechanism = SubsetSelection(epsilon)
        contents.append(("declared content", mechanism, declared.with_mechanism(mechanism).prepare()))
    for name, mechanism, privatizer in contents:
        title = f"{name}, epsilon {mechanism.epsilon:g}"
        several = [release(privatizer, images, labels, title) for _ in range(options.releases)]
        rows.append(content_row(name, mechanism.epsilon, images, several, labels))
        released[name, mechanism.epsilon] = several[0]
    print_table(rows)

    train = partial(train_classifier, num_classes=2, epochs=EPOCHS, batch_size=16, progress=True)
    lesions, attacks = [], [attack((learning, learning_again), (images, again), "originals", None)]
    classifier = train(learning, learning_labels)
    lesions.append({"trained on": "originals", "auc": round(classifier_auc(classifier, images, labels), 3)})
    for name, mechanism in jobs:
        title = f"{name}, epsilon {mechanism.epsilon:g}"
        volumes = release(privatizer_of(model, mechanism), learning, learning_labels, title)
        attacks.append(
            attack((volumes, learning_again), (released[name, mechanism.epsilon], again), name, mechanism.epsilon)
        )
        if mechanism.epsilon in (0.0, max(EPSILONS)):
            auc = classifier_auc(train(volumes, learning_labels), images, labels)
            lesions.append({"trained on": title, "auc": round(auc, 3)})
    print_table(lesions)
    print_table(attacks)

    whitened = privatizer_of(load_model(options.checkpoint), PriorOnly())
    sets = {
        "held-out cohort": learning[: len(images)],
        "released, epsilon 8": released["content basis", 8.0],
        "prior only": released["prior only", 0.0],
        "whitening alone": release(without_flows(whitened), images, labels, "whitening alone"),
    }
    realism = [{"volumes": name, "distance": distance(classifier, images, volumes)} for name, volumes in sets.items()]
    print_table(realism)
    shown = [images, *(released["content basis", e] for e in EPSILONS), sets["prior only"], sets["whitening alone"]]
    save_image_grid(torch.cat([volumes[:4] for volumes in shown]), options.out.with_suffix(".png"), columns=4)
    result = {
        "patients": options.patients,
        "learning": options.learning,
        "releases": options.releases,
        "detail_temperature": options.detail_temperature,
    }
    tables = {"content": rows, "lesions": lesions, "reidentification": attacks, "realism": realism}
    write_json(options.out, result | tables)


if __name__ == "__main__":
    main()
