# SPDX-License-Identifier: Apache-2.0
"""A small classifier: what a researcher can still learn from releases."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from monai_cadp.metrics.auc import mean_auc
from monai_cadp.metrics.convolutional_features import convolutional_features
from monai_cadp.metrics.standardise import Standardise

__all__ = [
    "check_several_labels",
    "classifier_accuracy",
    "classifier_auc",
    "classifier_logits",
    "classifier_loss",
    "train_classifier",
]


def train_classifier(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    network: Callable[[], nn.Module] | None = None,
    augmentation: Callable[[Tensor], Tensor] | None = None,
    epochs: int = 8,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: bool = False,
) -> nn.Module:
    r"""Train a small convolutional network with Adam and a rate that falls linearly; nothing is selected on a test set.

    Volumes are standardised voxel by voxel, and looked at with half the resolution, for what may be anywhere in them.

    Args:
        images: (n, C, \*spatial), in two or three dimensions; the classifier is trained where they are.
        labels: classes (n,), or yes-or-no labels (n, num_classes) of 1 and 0, of which several may apply.
        num_classes: number of classes, or of labels.
        network: makes the network that is trained, images to logits; None for the small one.
        augmentation: changes an image (C, \*spatial) at random before it is learnt from; None for no change.
        epochs: passes over the images.
        batch_size: images in a step.
        learning_rate: at the beginning.
        seed: of weights, order and dropout.
        progress: show a progress bar.

    Returns:
        The classifier in evaluation mode: images to logits (B, num_classes).

    Raises:
        ValueError: if there are other labels.
    """
    if labels.ndim > 1:
        check_several_labels(labels, num_classes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if network is not None:
            model = network()
        else:
            model = (
                _volume_network(images, num_classes) if images.ndim == 5 else _network(images.shape[1:], num_classes)
            )
        model.to(images.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
        steps = epochs * -(-len(images) // batch_size)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=steps)
        model.train()
        for _ in tqdm(range(epochs), desc="classifier", disable=not progress):
            for batch in torch.randperm(len(images)).split(batch_size):
                seen = images[batch]
                if augmentation is not None:
                    seen = torch.stack([torch.as_tensor(augmentation(image)) for image in seen])
                optimizer.zero_grad(set_to_none=True)
                classifier_loss(model(seen), labels[batch]).backward()
                optimizer.step()
                schedule.step()
    return model.eval()


def classifier_accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    r"""Return the share of images (n, C, \*spatial) whose class (n,) is told rightly."""
    return float((classifier_logits(model, images).argmax(1) == labels).sum()) / len(images)


def classifier_auc(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    r"""Return the area under the curve of a classifier of two classes, on images (n, C, \*spatial), labels (n,).

    Where the labels are (n, K), of which several may apply, it is the :func:`~monai_cadp.metrics.mean_auc`.
    """
    scores = classifier_logits(model, images)
    if labels.ndim == 1:
        return mean_auc((scores[:, 1] - scores[:, 0])[:, None], labels[:, None])
    return mean_auc(scores, labels)


@torch.no_grad()
def classifier_logits(model: nn.Module, images: Tensor) -> Tensor:
    r"""Return the logits (n, K) of a classifier on images (n, C, \*spatial), a few at a time."""
    return torch.cat([model(x) for x in images.split(64)])


def classifier_loss(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of classes (n,), or the binary one of labels (n, K) of which several may apply."""
    if labels.ndim == 1:
        return nn.functional.cross_entropy(logits, labels, reduction=reduction)
    return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction=reduction)


def check_several_labels(labels: Tensor, num_labels: int) -> None:
    """Raise ValueError in one sentence if labels are not (n, num_labels) of 1 and 0."""
    if labels.ndim != 2 or labels.shape[1] != num_labels or not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError(
            f"The labels have shape {tuple(labels.shape)}; expected classes (n,), or labels (n, {num_labels}) of 1 "
            "where they apply and 0 where they do not."
        )


def _network(shape: torch.Size, num_classes: int) -> nn.Module:
    features, size = convolutional_features(tuple(shape))
    return nn.Sequential(features, nn.Dropout(0.3), nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, num_classes))


def _volume_network(volumes: Tensor, num_classes: int) -> nn.Module:
    convolutions = nn.Sequential(
        *_block(volumes.shape[1], 8), *_block(8, 16), nn.MaxPool3d(2, ceil_mode=True), *_block(16, 32)
    ).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    coarser = nn.AvgPool3d(2, ceil_mode=True)
    return nn.Sequential(
        Standardise(volumes), coarser, convolutions, _Anywhere(), nn.Dropout(0.3), nn.Linear(64, num_classes)
    )


def _block(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv3d(before, after, 3, padding=1), nn.BatchNorm3d(after), nn.ReLU()]


class _Anywhere(nn.Module):
    """The largest and the mean value of every feature map."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        return torch.cat([x.amax(2), x.mean(2)], dim=1)
