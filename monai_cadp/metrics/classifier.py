# SPDX-License-Identifier: Apache-2.0
"""A small classifier: what a researcher can still learn from releases."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import tqdm

__all__ = ["classifier_accuracy", "train_classifier"]

BATCH_SIZE = 128


def train_classifier(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    epochs: int = 8,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: bool = False,
) -> nn.Module:
    """Train a small convolutional network with Adam and a rate that falls linearly; nothing is selected on a test set.

    Args:
        images: (n, C, H, W).
        labels: classes (n,).
        num_classes: number of classes.
        epochs: passes over the images.
        learning_rate: at the beginning.
        seed: of weights, order and dropout.
        progress: show a progress bar.

    Returns:
        The classifier in evaluation mode: images to logits (B, num_classes).
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _network(images.shape[1:], num_classes)
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
        steps = epochs * -(-len(images) // BATCH_SIZE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=steps)
        model.train()
        for _ in tqdm(range(epochs), desc="classifier", disable=not progress):
            for batch in torch.randperm(len(images)).split(BATCH_SIZE):
                optimizer.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
                schedule.step()
    return model.eval()


@torch.no_grad()
def classifier_accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images (n, C, H, W) whose class (n,) is told rightly."""
    right = sum((model(x).argmax(1) == y).sum() for x, y in zip(images.split(512), labels.split(512), strict=True))
    return float(right) / len(images)


def _network(shape: torch.Size, num_classes: int) -> nn.Module:
    channels, *sizes = shape
    layers: list[nn.Module] = []
    width = 16
    # Halve until few pixels are left; always look at neighbourhoods once.
    while not layers or (min(sizes) >= 8 and width <= 64):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels, width, sizes = width, 2 * width, [size // 2 for size in sizes]
    features = channels * sizes[0] * sizes[1]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, num_classes)
    )
