# SPDX-License-Identifier: Apache-2.0
"""A network of MNIST that is trained privately in every part, and what its samples teach a classifier."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from monai_cadp.engines import PrivateFlowTrainer, PrivateMoments
from monai_cadp.handlers import ProgressBar
from monai_cadp.metrics import classifier_accuracy, train_classifier
from monai_cadp.networks import ConditionalINN

__all__ = ["private_network_row"]

NUM_CLASSES = 10
NUM_SAMPLES = 50_000
# Less budget pays for fewer directions.
RANKS = {10.0: 48, 3.0: 40, 1.0: 28}
LARGEST_NORM = 10.0


def private_network_row(
    epsilon: float, delta: float, data: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], epochs: int
) -> dict[str, object]:
    """Train, draw samples, train a classifier on them and test it on originals.

    Args:
        epsilon: budget of the training, for one image more or less, as published figures have it.
        delta: of the same.
        data: images and labels to learn from, both protected.
        test: images and labels that judge.
        epochs: of the training.

    Returns:
        The accuracy, and both epsilons.
    """
    torch.manual_seed(0)
    started = time.monotonic()
    rank = RANKS[min(RANKS, key=lambda known: abs(known - epsilon))]
    network = ConditionalINN((28, 28), 1, NUM_CLASSES, num_levels=0, rank=rank, num_couplings=6, width=96)
    trainer = PrivateFlowTrainer(
        network,
        [{"image": image, "label": label} for image, label in zip(*data, strict=True)],  # type: ignore[arg-type]
        epsilon=epsilon,
        delta=delta,
        add_or_remove_one=True,
        max_epochs=epochs,
        batch_size=2048,
        moments=PrivateMoments(LARGEST_NORM),
        largest_gradient=0.03,
        learning_rate=2e-3,
        averaging=0.99,
        train_handlers=[ProgressBar()],
    )
    trainer.run()
    guarantee = trainer.provenance.guarantee
    assert guarantee is not None
    return {
        "epsilon": round(guarantee["add_or_remove_one_epsilon"], 3),
        "delta": delta,
        "epsilon of a replacement": round(guarantee["epsilon"], 3),
        "accuracy": round(_accuracy(trainer.averaged_network, test), 4),
        "rank": rank,
        "minutes": round((time.monotonic() - started) / 60, 1),
    }


@torch.no_grad()
def _samples(network: ConditionalINN) -> tuple[Tensor, Tensor]:
    """Every class as often: how often it is in the data is protected."""
    labels = torch.arange(NUM_SAMPLES) % NUM_CLASSES
    parts = [network.decode(torch.randn(len(part), network.num_latents), part) for part in labels.split(1000)]
    return torch.cat(parts).clamp(0, 1), labels


def _accuracy(network: ConditionalINN, test: tuple[Tensor, Tensor]) -> float:
    model = train_classifier(*_samples(network), NUM_CLASSES, progress=True)
    return classifier_accuracy(model, *test)
