# SPDX-License-Identifier: Apache-2.0
"""What is kept of MNIST: accuracy of a classifier trained on releases, and content, at every epsilon.

python -m benchmarks.mnist --data mnist.npz --minutes 20 --out results/mnist.json

With a network that is trained privately in every part, and released from by its prior alone:

python -m benchmarks.mnist --data mnist.npz --dp --epsilon 10 3 1 --delta 1e-5 --pretrained --out results/mnist_dp.json
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
from ignite.engine import Events
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from benchmarks.private_network import pretrained_network, private_network_row
from benchmarks.report import print_table, write_json
from monai_cadp.data import NpzImages, save_image_grid
from monai_cadp.engines import FlowEvaluator, FlowTrainer, GaussianNoise
from monai_cadp.handlers import ProgressBar
from monai_cadp.metrics import (
    SHAPE_FEATURES,
    classifier_accuracy,
    pixel_cosine,
    shape_features,
    train_classifier,
    within_class_correlation,
)
from monai_cadp.networks import ConditionalINN, ContentBasis, DeclaredContent
from monai_cadp.privacy import LaplaceMechanism, Mechanism, PriorOnly, SubsetSelection
from monai_cadp.release.privatizer import Privatizer

EPSILONS = (1.0, 2.0, 4.0, 8.0)
NUM_RELEASED = 20_000
NUM_CONTENT = 1_000
NUM_DIRECTIONS = 32
NUM_CLASSES = 10
EARLY_MINUTES = 2.0
# Chosen on the validation images.
NOISE = GaussianNoise(0.05)
TEMPERATURE = 1.0
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05
# The paper's bound for epsilon 8: min(epsilon / 2, 4).
PAPER_BOUND = 4.0


def load(path: Path, split: str, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Return images and labels as two tensors."""
    items = NpzImages(path, split, max_items=count)
    images, labels = zip(*((item["image"], item["label"]) for item in items), strict=True)
    return torch.stack(images), torch.stack(labels).flatten()


def train(images: Tensor, labels: Tensor, minutes: float) -> tuple[ConditionalINN, ConditionalINN, float]:
    """Train for at most so many minutes; return the network, the network after two minutes, and the minutes used."""
    torch.manual_seed(0)
    started = time.monotonic()
    loader: DataLoader = DataLoader(
        [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)],
        batch_size=128,
        shuffle=True,
        drop_last=True,
    )
    inn = ConditionalINN(spatial_shape=(28, 28), in_channels=1, num_classes=NUM_CLASSES)
    early, is_kept = copy.deepcopy(inn), False
    trainer = FlowTrainer(
        inn,
        loader,
        max_epochs=10_000,
        max_minutes=minutes,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        noise=NOISE,
        training_data="public",
        train_handlers=[ProgressBar()],
    )

    @trainer.on(Events.ITERATION_COMPLETED)
    def keep_early() -> None:
        nonlocal is_kept
        if not is_kept and (time.monotonic() - started) / 60 > EARLY_MINUTES:
            early.load_state_dict(trainer.averaged_network.state_dict())
            is_kept = True

    trainer.run()
    if not is_kept:
        early.load_state_dict(trainer.averaged_network.state_dict())
    return trainer.averaged_network, early, (time.monotonic() - started) / 60


def release(privatizer: Privatizer, images: Tensor, labels: Tensor, name: str) -> Tensor:
    """Return one release of every image, with intensities 0 to 1."""
    parts = tqdm(list(zip(images.split(256), labels.split(256), strict=True)), desc=name)
    return torch.cat([privatizer(x, y) for x, y in parts]).clamp(0, 1)


def accuracy(images: Tensor, labels: Tensor, test: tuple[Tensor, Tensor]) -> float:
    """Return the accuracy on original test images of a classifier trained on these."""
    return classifier_accuracy(train_classifier(images, labels, NUM_CLASSES, progress=True), *test)


def content_row(name: str, epsilon: float, images: Tensor, released: Tensor, labels: Tensor) -> dict[str, object]:
    """Return what is kept of the content."""
    kept = within_class_correlation(shape_features(images), shape_features(released), labels).tolist()
    row: dict[str, object] = {"method": name, "epsilon": epsilon}
    row |= {feature: round(value, 3) for feature, value in zip(SHAPE_FEATURES, kept, strict=True)}
    return row | {"mean": round(sum(kept) / len(kept), 3), "pixel_cosine": round(pixel_cosine(images, released), 3)}


def content_table(
    inn: ConditionalINN, basis: ContentBasis, images: Tensor, labels: Tensor, picture: Path
) -> list[dict]:
    """Release unseen images by every method and measure what is kept; draw ten of each."""
    size = inn.num_latents
    everything = ContentBasis(torch.eye(size), torch.ones(size), training_events=())
    declared = DeclaredContent(shape_features)
    jobs: list[tuple[str, Mechanism, ContentBasis | DeclaredContent]] = [("prior only", PriorOnly(), basis)]
    jobs += [("content basis", SubsetSelection(epsilon), basis) for epsilon in EPSILONS]
    jobs += [("declared content", SubsetSelection(epsilon), declared) for epsilon in EPSILONS]
    jobs += [("paper's Laplace, true sensitivity", LaplaceMechanism(e, PAPER_BOUND), everything) for e in (8.0, 16.0)]
    rows, shown = [], [images[:10]]
    for name, mechanism, content in jobs:
        privatizer = Privatizer(inn, mechanism, content, temperature=TEMPERATURE).prepare()
        released = release(privatizer, images, labels, f"{name}, epsilon {mechanism.epsilon:g}")
        rows.append(content_row(name, mechanism.epsilon, images, released, labels))
        shown.append(released[:10])
    save_image_grid(torch.cat(shown), picture, columns=10)
    return rows


def write_private(options: argparse.Namespace) -> None:
    """Train privately at every budget, print a table, and write it."""
    train, more = load(options.data, "train"), load(options.data, "val")
    everybody = (torch.cat([train[0], more[0]]), torch.cat([train[1], more[1]]))
    test = load(options.data, "test")
    beginnings = [None, pretrained_network()] if options.pretrained else [None]
    rows = []
    for beginning in beginnings:
        for epsilon in options.epsilon:
            rows.append(private_network_row(epsilon, options.delta, everybody, test, beginning))
            print_table(rows)
            write_json(options.out, {"threads": torch.get_num_threads(), "rows": rows})


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="MNIST in MedMNIST's .npz format")
    parser.add_argument("--minutes", type=float, default=20.0, help="longest training time")
    parser.add_argument("--dp", action="store_true", help="train with differential privacy, and measure that alone")
    parser.add_argument(
        "--epsilon", type=float, nargs="+", help="budgets of private trainings, of one image more or less"
    )
    parser.add_argument("--delta", type=float, help="of the same")
    parser.add_argument("--pretrained", action="store_true", help="also begin with public digits, drawn from fonts")
    parser.add_argument("--out", type=Path, default=Path("results/mnist.json"))
    options = parser.parse_args()
    if options.dp:
        if options.epsilon is None or options.delta is None:
            parser.error("--dp needs --epsilon and --delta.")
        write_private(options)
        return
    images, labels = load(options.data, "train")
    test = load(options.data, "test")
    inn, early, minutes = train(images, labels, options.minutes)
    loader: DataLoader = DataLoader([{"image": x, "label": y} for x, y in zip(*test, strict=True)], batch_size=500)
    evaluator = FlowEvaluator(inn, loader, noise=NOISE)
    evaluator.run()
    bits = evaluator.state.metrics["bits_per_dimension"]
    basis = ContentBasis.fit(inn, NUM_DIRECTIONS, progress=True)
    result: dict[str, object] = {
        "training_minutes": round(minutes, 2),
        "parameters": sum(parameter.numel() for parameter in inn.parameters()),
        "bits_per_dimension": round(bits, 4),
        "threads": torch.get_num_threads(),
    }
    few, few_labels = images[:NUM_RELEASED], labels[:NUM_RELEASED]
    for name, network, network_basis in (
        ("accuracy_private_to_original", inn, basis),
        ("accuracy_private_to_original_after_2_minutes", early, ContentBasis.fit(early, NUM_DIRECTIONS)),
    ):
        privatizer = Privatizer(network, SubsetSelection(8.0), network_basis, temperature=TEMPERATURE)
        result[name] = round(accuracy(release(privatizer, few, few_labels, "private"), few_labels, test), 4)
    privatizer = Privatizer(inn, PriorOnly(), basis, temperature=TEMPERATURE)
    result["accuracy_prior_only_to_original"] = round(
        accuracy(release(privatizer, few, few_labels, "prior only"), few_labels, test), 4
    )
    result["accuracy_original_to_original"] = round(accuracy(few, few_labels, test), 4)
    unseen, unseen_labels = test[0][:NUM_CONTENT], test[1][:NUM_CONTENT]
    rows = content_table(inn, basis, unseen, unseen_labels, options.out.with_suffix(".png"))
    result["content"] = rows
    print_table([{"figure": name, "value": value} for name, value in result.items() if name != "content"])
    print_table(rows)
    write_json(options.out, result)


if __name__ == "__main__":
    main()
