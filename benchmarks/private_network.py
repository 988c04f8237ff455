# SPDX-License-Identifier: Apache-2.0
"""A network of MNIST that is trained privately in every part, and what its samples teach a classifier."""

from __future__ import annotations

import copy
import time
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.font_digits import font_digits
from monai_cadp.engines import FlowTrainer, PrivateFlowTrainer, PrivateMoments
from monai_cadp.handlers import ProgressBar
from monai_cadp.metrics import classifier_accuracy, train_classifier
from monai_cadp.networks import ConditionalINN

__all__ = ["draw_labelled", "pretrained_network", "private_network_row", "train_privately"]

NUM_CLASSES = 10
NUM_SAMPLES = 50_000
BATCH_SIZE = 4096
LARGEST_NORM = 10.0
LARGEST_GRADIENT = 0.03
NUM_FONT_DIGITS, FONT_EPOCHS = 20_000, 10


class Chosen(NamedTuple):
    """What was chosen for a budget, by the validation images."""

    rank: int
    num_frequencies: int
    moment_multiplier: float
    epochs: int


# Less budget pays for fewer directions, and for fewer steps beside the moments.
SCHEDULES = {10.0: Chosen(48, 16, 1.0, 40), 3.0: Chosen(40, 16, 0.8, 40), 1.0: Chosen(28, 14, 0.5, 20)}
# Of samples, from which a classifier learns more when they vary more.
TEMPERATURE = 1.1


def pretrained_network() -> ConditionalINN:
    """Train a network on digits of fonts, which are public."""
    torch.manual_seed(0)
    images, labels = font_digits(NUM_FONT_DIGITS)
    items = [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)]
    loader: DataLoader = DataLoader(items, batch_size=256, shuffle=True)  # type: ignore[arg-type]
    network = _network(max(chosen.rank for chosen in SCHEDULES.values()))
    trainer = FlowTrainer(
        network,
        loader,
        max_epochs=FONT_EPOCHS,
        averaging=0.99,
        training_data="public",
        train_handlers=[ProgressBar()],
    )
    trainer.run()
    return trainer.averaged_network


def train_privately(
    epsilon: float,
    delta: float,
    data: tuple[Tensor, Tensor],
    num_classes: int = NUM_CLASSES,
    pretrained: ConditionalINN | None = None,
) -> PrivateFlowTrainer:
    """Train a network of images whose every part is private, and return its trainer.

    Args:
        epsilon: budget of the training, for one image more or less, as published figures have it.
        delta: of the same.
        data: images and labels to learn from, both protected.
        num_classes: of the labels.
        pretrained: a network of public images to begin with, whose linear parts stay; None for a new one.
    """
    torch.manual_seed(0)
    chosen = SCHEDULES[min(SCHEDULES, key=lambda known: abs(known - epsilon))]
    shape = tuple(data[0].shape[2:])
    trainer = PrivateFlowTrainer(
        _network(chosen.rank, shape, num_classes) if pretrained is None else copy.deepcopy(pretrained),
        [{"image": image, "label": label} for image, label in zip(*data, strict=True)],  # type: ignore[arg-type]
        epsilon=epsilon,
        delta=delta,
        add_or_remove_one=True,
        max_epochs=chosen.epochs,
        batch_size=min(BATCH_SIZE, len(data[0])),
        moments=None if pretrained else PrivateMoments(LARGEST_NORM, num_frequencies=chosen.num_frequencies),
        moment_multiplier=chosen.moment_multiplier,
        largest_gradient=LARGEST_GRADIENT,
        learning_rate=0.01,
        weight_decay=0.0,
        averaging=0.99,
        train_handlers=[ProgressBar()],
    )
    trainer.run()
    return trainer


@torch.no_grad()
def draw_labelled(network: ConditionalINN, count: int, num_classes: int = NUM_CLASSES) -> tuple[Tensor, Tensor]:
    """Return samples and their labels, every class as often: how often it is in the data is protected."""
    labels = torch.arange(count) % num_classes
    latents = (TEMPERATURE * torch.randn(len(part), network.num_latents) for part in labels.split(1000))
    parts = [network.decode(z, part) for z, part in zip(latents, labels.split(1000), strict=True)]
    return torch.cat(parts).clamp(0, 1), labels


def private_network_row(
    epsilon: float,
    delta: float,
    data: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    pretrained: ConditionalINN | None = None,
) -> dict[str, object]:
    """Train, draw samples, train a classifier on them and test it on originals.

    Args:
        epsilon: as in :func:`train_privately`.
        delta: as in :func:`train_privately`.
        data: as in :func:`train_privately`.
        test: images and labels that judge.
        pretrained: as in :func:`train_privately`.

    Returns:
        The accuracy, and both epsilons.
    """
    started = time.monotonic()
    trainer = train_privately(epsilon, delta, data, pretrained=pretrained)
    guarantee = trainer.guarantee
    model = train_classifier(*draw_labelled(trainer.averaged_network, NUM_SAMPLES), NUM_CLASSES, progress=True)
    return {
        "begins with": "nothing" if pretrained is None else "digits of fonts",
        "epsilon": round(guarantee["add_or_remove_one_epsilon"], 3),
        "delta": delta,
        "epsilon of a replacement": round(guarantee["epsilon"], 3),
        "accuracy": round(classifier_accuracy(model, *test), 4),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }


def _network(rank: int, shape: tuple[int, ...] = (28, 28), num_classes: int = NUM_CLASSES) -> ConditionalINN:
    return ConditionalINN(shape, 1, num_classes, num_levels=0, rank=rank, num_couplings=6, width=96)
