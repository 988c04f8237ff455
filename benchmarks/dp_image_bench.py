# SPDX-License-Identifier: Apache-2.0
"""What classifiers learn from samples of a private network, by the protocol of DPImageBench.

python -m benchmarks.dp_image_bench --data mnist.npz --out results/dp_image_bench.json

All training and validation images are protected, with their labels: delta is 1 / (N ln N), epsilon counts one image
more or less, and no public image is used. Three classifiers learn from 60,000 samples each and are tested on original
test images. The protocol chooses the best epoch of a classifier on noisy validation, which is paid for; here nothing is
chosen, the last epoch counts, and nothing is spent for it. How the network is trained was found on MNIST's validation
images beforehand.

References:
    Gong et al.: DPImageBench: A unified benchmark for differentially private image synthesis, 2025.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import ResNet
from torch import Tensor, nn

from benchmarks.private_network import draw_labelled, train_privately
from benchmarks.report import print_table, write_json
from monai_cadp.data import NpzImages, save_image_grid
from monai_cadp.metrics import classifier_accuracy, train_classifier
from monai_cadp.networks import ContentBasis, TrainedModel
from monai_cadp.release.checkpoint import save_model

EPSILONS = (1.0, 10.0)
NUM_SAMPLES = 60_000
EPOCHS = 8
SHOWN = 10


def load(path: Path, *splits: str) -> tuple[Tensor, Tensor]:
    """Return images (n, 1, H, W) from 0 to 1, and labels (n,)."""
    items = [item for split in splits for item in NpzImages(path, split, in_channels=1)]
    return torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items])


def _residual(num_classes: int) -> nn.Module:
    features = ResNet(
        "basic", [1, 1, 1, 1], [16, 32, 64, 128], spatial_dims=2, n_input_channels=1, conv1_t_size=3, no_max_pool=True,
        num_classes=num_classes,
    )  # fmt: skip
    return features


def _wide(num_classes: int) -> nn.Module:
    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(
        *block(1, 48), *block(48, 96), nn.Conv2d(96, 192, 3, padding=1), nn.BatchNorm2d(192), nn.ReLU(),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(0.4), nn.Linear(9 * 192, num_classes),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[int], nn.Module] | None] = {"small": None, "residual": _residual, "wide": _wide}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=".npz in MedMNIST's format")
    parser.add_argument("--epsilon", type=float, nargs="+", default=EPSILONS)
    parser.add_argument("--samples", type=int, default=NUM_SAMPLES)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of classifiers")
    parser.add_argument("--keep", type=Path, help="folder for the networks")
    parser.add_argument("--out", type=Path, default=Path("results/dp_image_bench.json"))
    options = parser.parse_args()

    data, test = load(options.data, "train", "val"), load(options.data, "test")
    count, num_classes = len(data[0]), int(data[1].max()) + 1
    delta = 1 / (count * math.log(count))
    rows: list[dict[str, object]] = []
    strips = []
    for epsilon in options.epsilon:
        started = time.monotonic()
        trainer = train_privately(epsilon, delta, data, num_classes)
        network = trainer.averaged_network
        if options.keep is not None:
            model = TrainedModel(network, ContentBasis.leading(network, SHOWN))
            save_model(model, options.keep / f"private_{epsilon:g}.pt")
        samples, labels = draw_labelled(network, options.samples, num_classes)
        strips.append(samples[: SHOWN * SHOWN])
        accuracies = {
            name: classifier_accuracy(
                train_classifier(
                    samples,
                    labels,
                    num_classes,
                    network=None if make is None else lambda make=make: make(num_classes),
                    epochs=options.epochs,
                    progress=True,
                ),
                *test,
            )
            for name, make in NETWORKS.items()
        }
        rows.append(
            {
                "epsilon": round(trainer.guarantee["add_or_remove_one_epsilon"], 3),
                "delta": delta,
                **{name: round(value, 4) for name, value in accuracies.items()},
                "mean accuracy": round(float(np.mean(list(accuracies.values()))), 4),
                "minutes": round((time.monotonic() - started) / 60, 1),
            }
        )
        print_table(rows)
    save_image_grid(torch.cat(strips), options.out.with_suffix(".png"), columns=2 * SHOWN)
    write_json(options.out, {"images": count, "samples": options.samples, "rows": rows})


if __name__ == "__main__":
    main()
