# SPDX-License-Identifier: Apache-2.0
"""What releases are still good for, beside originals and beside the prior alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_cadp.checkpoint import load_privatizer
from monai_cadp.metrics import (
    SHAPE_FEATURES,
    classifier_accuracy,
    pixel_cosine,
    shape_features,
    train_classifier,
    within_class_correlation,
)
from monai_cadp.networks import ContentBasis, InvertibleNetwork
from monai_cadp.privacy import Mechanism, PriorOnly, SubsetSelection
from monai_cadp.privatizer import Privatizer
from monai_cadp.reports import text_table
from monai_cadp.studies.folder_release import release_batches

__all__ = ["ReleaseEvaluation", "ReleaseResult"]


@dataclass(frozen=True)
class ReleaseResult:
    """What one mechanism kept.

    Args:
        name: for people.
        epsilon: of one image.
        delta: of one image.
        explanation: the guarantee in words.
        figures: measured values by name.
        examples: the first releases of the test images (n, C, H, W).
    """

    name: str
    epsilon: float
    delta: float
    explanation: str
    figures: dict[str, float]
    examples: Tensor = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures, as plain data."""
        return {"name": self.name, "epsilon": self.epsilon, "delta": self.delta, **self.figures}


class ReleaseEvaluation:
    """Train a classifier on released images and test it on originals; measure the content that releases keep.

    Prior-only is always among the results: what it reaches, the class alone explains.

    Args:
        train_images: labelled originals whose releases the classifier learns from.
        test_images: labelled originals, never seen by the network.
        num_examples: test images whose releases are kept for pictures.
        epochs: of the classifier.
    """

    def __init__(
        self,
        train_images: Dataset,
        test_images: Dataset,
        *,
        num_examples: int = 10,
        epochs: int = 12,
    ) -> None:
        self.train_images, self.test_images = train_images, test_images
        self.num_examples, self.epochs = num_examples, epochs
        self.original = _stack(train_images)
        self.test = _stack(test_images)
        self.num_classes = int(torch.cat([self.original[1], self.test[1]]).max()) + 1

    def originals(self) -> dict[str, float]:
        """Return what originals reach: the ceiling."""
        model = train_classifier(*self.original, self.num_classes, epochs=self.epochs)
        return {"accuracy": round(classifier_accuracy(model, *self.test), 4)}

    def run(
        self, network: InvertibleNetwork, content: ContentBasis, mechanisms: Sequence[Mechanism], **options: Any
    ) -> list[ReleaseResult]:
        """Measure prior-only and every mechanism.

        Args:
            network: the trained network.
            content: its content basis.
            mechanisms: what is compared.
            options: further arguments of :class:`Privatizer`.

        Returns:
            One result for each, prior-only first.
        """
        return [
            self._measure(Privatizer(network, mechanism, content, **options))
            for mechanism in (PriorOnly(), *mechanisms)
        ]

    def write(self, checkpoint: str | Path, epsilons: Sequence[float], path: str | Path) -> None:
        """Measure subset selection at several epsilons with a trained network, print a table, and write it as JSON.

        Args:
            checkpoint: file of :func:`~monai_cadp.checkpoint.save_privatizer`.
            epsilons: budgets of one image.
            path: of the JSON file.

        Raises:
            ValueError: if an epsilon is not usable or the checkpoint cannot be read; nothing is written then.
        """
        mechanisms = [SubsetSelection(float(epsilon)) for epsilon in epsilons]
        privatizer = load_privatizer(checkpoint, PriorOnly())
        assert isinstance(privatizer.content, ContentBasis)
        results = [result.to_dict() for result in self.run(privatizer.inn, privatizer.content, mechanisms)]
        rows = [{"name": "originals", **self.originals()}, *results]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        print(text_table(rows), f"\nwritten to {path}")

    def _measure(self, privatizer: Privatizer) -> ReleaseResult:
        guarantee = privatizer.guarantee
        epsilon = guarantee.epsilon
        name = "prior only" if epsilon == 0 else f"epsilon {epsilon:g}"
        train, labels = _release(privatizer, self.train_images, f"{name}: training images")
        released, _ = _release(privatizer, self.test_images, f"{name}: test images")
        model = train_classifier(train, labels, self.num_classes, epochs=self.epochs)
        images, classes = self.test
        kept = within_class_correlation(shape_features(images), shape_features(released), classes).tolist()
        figures = {"accuracy": round(classifier_accuracy(model, images, classes), 4)}
        figures |= {f"kept_{name}": round(value, 3) for name, value in zip(SHAPE_FEATURES, kept, strict=True)}
        figures |= {
            "kept_mean": round(sum(kept) / len(kept), 3),
            "pixel_cosine": round(pixel_cosine(images, released), 3),
        }
        examples = released[: self.num_examples]
        return ReleaseResult(name, epsilon, guarantee.delta, guarantee.explain(), figures, examples)


def _stack(images: Dataset) -> tuple[Tensor, Tensor]:
    items = [images[index] for index in range(len(images))]  # type: ignore[arg-type]
    return torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items]).flatten()


def _release(privatizer: Privatizer, images: Dataset, description: str) -> tuple[Tensor, Tensor]:
    parts = list(release_batches(privatizer, images, batch_size=256, description=description))
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts if y is not None])
