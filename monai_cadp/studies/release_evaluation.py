# SPDX-License-Identifier: Apache-2.0
"""What released images are still good for."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from monai_cadp.metrics import (
    SHAPE_FEATURES,
    classifier_accuracy,
    classifier_auc,
    pixel_cosine,
    shape_features,
    sharing_labels,
    train_classifier,
    within_class_correlation,
)
from monai_cadp.networks.devices import usable_device
from monai_cadp.release import Releaser, release_batches
from monai_cadp.studies.evaluation import Evaluation

__all__ = ["ReleaseEvaluation"]


class ReleaseEvaluation(Evaluation):
    """Train a classifier on released images and test it on originals; measure the content that releases keep.

    It is judged by accuracy, or, where images have several yes-or-no labels, by the mean area under the curve over
    those that some test images have and others have not.

    Args:
        train_images: labelled originals whose releases the classifier learns from.
        test_images: labelled originals, never seen by the network.
        device: where classifiers are trained and content is measured.
        epochs: of the classifier.
    """

    def __init__(
        self, train_images: Dataset, test_images: Dataset, *, device: torch.device | str = "cpu", epochs: int = 12
    ) -> None:
        self.train_images, self.test_images = train_images, test_images
        self.device, self.epochs = usable_device(device), epochs
        self.original, self.test = (_stack(images, self.device) for images in (train_images, test_images))
        labels = torch.cat([self.original[1], self.test[1]])
        self.num_classes = int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]

    def originals(self) -> dict[str, float]:
        """Return what originals reach: the ceiling."""
        model = train_classifier(*self.original, self.num_classes, epochs=self.epochs)
        return self._judged(model)

    def measure(self, releaser: Releaser, name: str) -> dict[str, float]:
        """Return accuracy or area under the curve, the content kept by feature, its mean, and the cosine of pixels.

        No content is counted where hardly any two test images share all their labels.
        """
        train, labels = self._release(releaser, self.train_images, f"{name}: training images")
        released, _ = self._release(releaser, self.test_images, f"{name}: test images")
        model = train_classifier(train, labels, self.num_classes, epochs=self.epochs)
        return self._judged(model) | self._kept(released)

    def _kept(self, released: Tensor) -> dict[str, float]:
        images, labels = self.test
        figures = {"pixel_cosine": round(pixel_cosine(images, released), 3)}
        members = sharing_labels(labels)
        if len(members) == 0:
            return figures
        one, other = (shape_features(x[members]) for x in (images, released))
        kept = within_class_correlation(one, other, labels[members]).tolist()
        named = {f"kept_{feature}": round(value, 3) for feature, value in zip(SHAPE_FEATURES, kept, strict=True)}
        return named | {"kept_mean": round(sum(kept) / len(kept), 3)} | figures

    def _judged(self, model: nn.Module) -> dict[str, float]:
        if self.test[1].ndim == 1:
            return {"accuracy": round(classifier_accuracy(model, *self.test), 4)}
        return {"auc": round(classifier_auc(model, *self.test), 4)}

    def _release(self, releaser: Releaser, images: Dataset, description: str) -> tuple[Tensor, Tensor]:
        parts = list(release_batches(releaser, images, batch_size=256, description=description))
        released, labels = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts if y is not None])
        return released.to(self.device), labels.to(self.device)


def _stack(images: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    items = [images[index] for index in range(len(images))]  # type: ignore[arg-type]
    both = (torch.stack([item[key] for item in items]) for key in ("image", "label"))
    x, labels = (tensor.to(device) for tensor in both)
    return x, labels
