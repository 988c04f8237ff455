# SPDX-License-Identifier: Apache-2.0
"""What a study measures of released images: what they are good for, what they keep, and how real they look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from monai_cadp.metrics import (
    Estimate,
    bootstrap,
    bootstrap_mean,
    dropout_uncertainty,
    frechet_distance,
    perceptual_similarity,
    pixel_cosine,
    precision_recall,
    train_classifier,
    within_class_correlation,
)
from monai_cadp.metrics.classifier import classifier_logits
from monai_cadp.studies.paper_settings import PaperSettings
from monai_cadp.studies.variant import Split, Variant

__all__ = [
    "ClassifierUtility",
    "ContentKept",
    "Figures",
    "Measurement",
    "Realism",
    "Releases",
]

Figures = dict[str, "float | Estimate"]


class Releases(NamedTuple):
    """Originals and what was released in their place.

    Args:
        variant: how.
        train: originals that releases learn from.
        test: originals that nothing has learnt from.
        train_released: releases of ``train``, in its order; None where a variant releases no images.
        test_released: releases of ``test``.
    """

    variant: Variant
    train: Split
    test: Split
    train_released: Tensor | None
    test_released: Tensor | None


class Measurement(Protocol):
    """Anything that a study can measure."""

    def __call__(self, releases: Releases, seed: int) -> Figures:
        """Return figures by name; an empty dictionary where there is nothing to measure."""


class ClassifierUtility:
    """A classifier in the settings of the paper (:class:`~monai_cadp.studies.paper_settings.PaperSettings`).

    Beside each stands the mean uncertainty by Monte-Carlo dropout of p/o.

    Args:
        num_classes: number of classes.
        epochs: of the classifier.
        num_dropouts: of the uncertainty.
        train_with: trains it: :func:`~monai_cadp.metrics.train_classifier`, or another function of its arguments.
    """

    def __init__(
        self,
        num_classes: int,
        epochs: int = 8,
        num_dropouts: int = 10,
        train_with: Callable[..., nn.Module] = train_classifier,
    ) -> None:
        self.num_classes, self.epochs, self.num_dropouts = num_classes, epochs, num_dropouts
        self.train_with = train_with
        self._settings = PaperSettings("accuracy", self._train, _accuracy)

    def __call__(self, releases: Releases, seed: int) -> Figures:
        """Return accuracies with their intervals, and the uncertainty."""
        train, test = releases.train, releases.test
        if releases.variant.classifier is not None:
            return {"accuracy_p_o": _accuracy(releases.variant.classifier(train.x, train.y, seed), *test)}
        figures, model = self._settings(releases, seed)
        if model is None:
            return {}
        uncertainty = dropout_uncertainty(model, test.x, num_samples=self.num_dropouts, seed=seed)
        return figures | {"uncertainty_p_o": float(uncertainty.mean())}

    def _train(self, x: Tensor, y: Tensor, seed: int) -> nn.Module:
        return self.train_with(x, y, self.num_classes, epochs=self.epochs, seed=seed, progress=True)

    def of_originals(self, train: Split, seed: int) -> nn.Module:
        """Return the classifier of originals, which is trained once."""
        return self._settings.of_originals(train, seed)


class ContentKept:
    r"""Correlation within a class of every feature between original and release, and the cosine of pixels.

    Args:
        features: maps images (B, C, \*spatial) to features (B, k); None for the cosine alone.
        names: of the features; only their mean is given where they have none.
    """

    def __init__(self, features: Callable[[Tensor], Tensor] | None = None, names: Sequence[str] = ()) -> None:
        self.features, self.names = features, list(names)

    def __call__(self, releases: Releases, seed: int) -> Figures:
        """Return the correlations, their mean with its interval, and the cosine."""
        if releases.test_released is None:
            return {}
        figures: Figures = {}
        test, released = releases.test, releases.test_released
        if self.features is not None:
            one, other = self.features(test.x), self.features(released)
            classes = test.y if test.y.ndim == 1 else None
            kept = within_class_correlation(one, other, classes)
            if self.names:
                figures |= {f"kept_{name}": value for name, value in zip(self.names, kept.tolist(), strict=True)}

            def mean(drawn: Tensor) -> float:
                within = None if classes is None else classes[drawn]
                return float(within_class_correlation(one[drawn], other[drawn], within).mean())

            figures["kept_mean"] = bootstrap(mean, len(one), num_bootstraps=200, seed=seed)
        return figures | {"pixel_cosine": pixel_cosine(test.x, released)}


class Realism:
    """Frechet distance, precision and recall of the last features of a classifier that was trained on originals.

    By the same features, how alike an original and its release look, above any two images of a class.

    Args:
        utility: whose classifier of originals is used.
        num_images: at most so many images of each set.
    """

    def __init__(self, utility: ClassifierUtility, num_images: int = 2000) -> None:
        self.utility, self.num_images = utility, num_images

    def __call__(self, releases: Releases, seed: int) -> Figures:
        """Compare releases of test images with training originals, which no release was made from."""
        if releases.test_released is None:
            return {}
        model = self.utility.of_originals(releases.train, seed)
        features = nn.Sequential(*list(model.children())[:-1])
        sets = releases.train.x[: self.num_images], releases.test_released[: self.num_images]
        with torch.no_grad():
            one, other = (torch.cat([features(part) for part in x.split(256)]) for x in sets)
        precision, recall = precision_recall(one, other)
        classes = releases.test.y if releases.test.y.ndim == 1 else None
        alike = perceptual_similarity(
            releases.test.x[: self.num_images],
            releases.test_released[: self.num_images],
            features,
            None if classes is None else classes[: self.num_images],
            seed=seed,
        )
        return {
            "frechet_distance": frechet_distance(one, other),
            "precision": precision,
            "recall": recall,
            "perceptual_similarity_above_class": alike.above,
        }


def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> Estimate:
    return bootstrap_mean(classifier_logits(model, x).argmax(1) == y)
