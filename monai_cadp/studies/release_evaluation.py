# SPDX-License-Identifier: Apache-2.0
"""What released images are still good for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_cadp.metrics import (
    SHAPE_FEATURES,
    classifier_accuracy,
    pixel_cosine,
    shape_features,
    train_classifier,
    within_class_correlation,
)
from monai_cadp.release import Releaser, release_batches
from monai_cadp.studies.evaluation import Evaluation

__all__ = ["ReleaseEvaluation"]


class ReleaseEvaluation(Evaluation):
    """Train a classifier on released images and test it on originals; measure the content that releases keep.

    Args:
        train_images: labelled originals whose releases the classifier learns from.
        test_images: labelled originals, never seen by the network.
        epochs: of the classifier.
    """

    def __init__(self, train_images: Dataset, test_images: Dataset, *, epochs: int = 12) -> None:
        self.train_images, self.test_images = train_images, test_images
        self.epochs = epochs
        self.original = _stack(train_images)
        self.test = _stack(test_images)
        self.num_classes = int(torch.cat([self.original[1], self.test[1]]).max()) + 1

    def originals(self) -> dict[str, float]:
        """Return what originals reach: the ceiling."""
        model = train_classifier(*self.original, self.num_classes, epochs=self.epochs)
        return {"accuracy": round(classifier_accuracy(model, *self.test), 4)}

    def measure(self, releaser: Releaser, name: str) -> dict[str, float]:
        """Return accuracy, the content kept by feature, its mean, and the cosine of pixels."""
        train, labels = _release(releaser, self.train_images, f"{name}: training images")
        released, _ = _release(releaser, self.test_images, f"{name}: test images")
        model = train_classifier(train, labels, self.num_classes, epochs=self.epochs)
        images, classes = self.test
        kept = within_class_correlation(shape_features(images), shape_features(released), classes).tolist()
        figures = {"accuracy": round(classifier_accuracy(model, images, classes), 4)}
        figures |= {f"kept_{feature}": round(value, 3) for feature, value in zip(SHAPE_FEATURES, kept, strict=True)}
        return figures | {
            "kept_mean": round(sum(kept) / len(kept), 3),
            "pixel_cosine": round(pixel_cosine(images, released), 3),
        }


def _stack(images: Dataset) -> tuple[Tensor, Tensor]:
    items = [images[index] for index in range(len(images))]  # type: ignore[arg-type]
    return torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items]).flatten()


def _release(releaser: Releaser, images: Dataset, description: str) -> tuple[Tensor, Tensor]:
    parts = list(release_batches(releaser, images, batch_size=256, description=description))
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts if y is not None])
