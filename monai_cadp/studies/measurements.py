# SPDX-License-Identifier: Apache-2.0
"""What a study measures of released images: what they are good for, what they keep, and how real they look."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
    mean_auc,
    perceptual_similarity,
    pixel_cosine,
    sharing_labels,
    train_classifier,
    within_class_correlation,
)
from monai_cadp.metrics.classifier import classifier_logits
from monai_cadp.metrics.realism import lies_among
from monai_cadp.studies.paper_settings import PaperSettings
from monai_cadp.studies.variant import Split, Variant

__all__ = [
    "ClassifierUtility",
    "ContentKept",
    "Figures",
    "LearnedMeasurement",
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
        train_people: whose each training image is (n,), as numbers; None where images do not say so.
        test_people: whose each test image is.
    """

    variant: Variant
    train: Split
    test: Split
    train_released: Tensor | None
    test_released: Tensor | None
    train_people: Tensor | None = None
    test_people: Tensor | None = None

    def part(self, members: Tensor) -> Releases:
        """Return the same with some of the test images, by their indices (m,)."""
        test = Split(self.test.x[members], self.test.y[members])
        released = None if self.test_released is None else self.test_released[members]
        people = None if self.test_people is None else self.test_people[members]
        return self._replace(test=test, test_released=released, test_people=people)

    def to(self, device: torch.device | str) -> Releases:
        """Return the same on a device."""
        released, other = (None if x is None else x.to(device) for x in (self.train_released, self.test_released))
        return self._replace(
            train=self.train.to(device), test=self.test.to(device), train_released=released, test_released=other
        )


class Measurement(Protocol):
    """Anything that a study can measure."""

    def __call__(self, releases: Releases, seed: int) -> Figures:
        """Return figures by name; an empty dictionary where there is nothing to measure."""


class LearnedMeasurement(ABC):
    """A measurement that learns what it needs, and can then measure any part of the test images."""

    @abstractmethod
    def learn(self, releases: Releases, seed: int) -> Callable[[Releases], Figures]:
        """Learn from training images, and return what gives figures of test images, all of them or a part."""

    def __call__(self, releases: Releases, seed: int) -> Figures:
        """Return figures by name; an empty dictionary where there is nothing to measure."""
        return self.learn(releases, seed)(releases)


class ClassifierUtility(LearnedMeasurement):
    """A classifier in the settings of the paper (:class:`~monai_cadp.studies.paper_settings.PaperSettings`).

    Beside each stands the mean uncertainty by Monte-Carlo dropout of p/o. Images of one class are judged by accuracy,
    those of several yes-or-no labels by the mean area under the curve over labels that some test images have and others
    have not.

    Args:
        num_classes: number of classes, or of labels.
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
        self._of_classes = PaperSettings("accuracy", self._train, _accuracy)
        self._of_labels = PaperSettings("auc", self._train, _mean_auc)

    def learn(self, releases: Releases, seed: int) -> Callable[[Releases], Figures]:
        """Train the classifier; figures are accuracies or areas with their intervals, and the uncertainty."""
        train = releases.train
        settings = self._settings(train)
        if releases.variant.classifier is not None:
            released = releases.variant.classifier(train.x, train.y, seed)
            return lambda part: {f"{settings.measure}_p_o": settings.test(released, *part.test, part.test_people)}
        model = settings.of_releases(releases, seed)
        if model is None:
            return lambda part: {}

        def measured(part: Releases) -> Figures:
            uncertainty = dropout_uncertainty(
                model, part.test.x, num_samples=self.num_dropouts, seed=seed, several=train.y.ndim > 1
            )
            return settings.figures(model, part, seed) | {"uncertainty_p_o": float(uncertainty.mean())}

        return measured

    def _train(self, x: Tensor, y: Tensor, seed: int) -> nn.Module:
        return self.train_with(x, y, self.num_classes, epochs=self.epochs, seed=seed, progress=True)

    def of_originals(self, train: Split, seed: int) -> nn.Module:
        """Return the classifier of originals, which is trained once."""
        return self._settings(train).of_originals(train, seed)

    def _settings(self, train: Split) -> PaperSettings:
        return self._of_classes if train.y.ndim == 1 else self._of_labels


class ContentKept(LearnedMeasurement):
    r"""Correlation within a class of every feature between original and release, and the cosine of pixels.

    Where images have several labels, those with the same ones are a class; where hardly any two share them, there
    is no correlation.

    Args:
        features: maps images (B, C, \*spatial) to features (B, k); None for the cosine alone.
        names: of the features; only their mean is given where they have none.
    """

    def __init__(self, features: Callable[[Tensor], Tensor] | None = None, names: Sequence[str] = ()) -> None:
        self.features, self.names = features, list(names)

    def learn(self, releases: Releases, seed: int) -> Callable[[Releases], Figures]:
        """Return what gives the correlations, their mean with its interval, and the cosine; nothing is learnt."""
        return lambda part: self._kept(part, seed)

    def _kept(self, releases: Releases, seed: int) -> Figures:
        if releases.test_released is None:
            return {}
        test, released = releases.test, releases.test_released
        cosine = {"pixel_cosine": pixel_cosine(test.x, released)}
        _, groups = public_groups(releases)
        members = sharing_labels(groups)
        if self.features is None or len(members) == 0:
            return {**cosine}
        groups = groups[members]
        one, other = (self.features(x[members]) for x in (test.x, released))
        kept = within_class_correlation(one, other, groups)
        named = zip(self.names, kept.tolist(), strict=True) if self.names else ()

        def mean(drawn: Tensor) -> float:
            return float(within_class_correlation(one[drawn], other[drawn], groups[drawn]).mean())

        people = None if releases.test_people is None else releases.test_people[members]
        mean_kept = bootstrap(mean, len(one), people=people, num_bootstraps=200, seed=seed)
        return {**{f"kept_{name}": value for name, value in named}, "kept_mean": mean_kept, **cosine}


class Realism(LearnedMeasurement):
    """Frechet distance, precision and recall of the last features of a classifier that was trained on originals.

    By the same features, how alike an original and its release look, above any two images of a class.

    Args:
        utility: whose classifier of originals is used.
        num_images: at most so many images of each set.
    """

    def __init__(self, utility: ClassifierUtility, num_images: int = 2000) -> None:
        self.utility, self.num_images = utility, num_images

    def learn(self, releases: Releases, seed: int) -> Callable[[Releases], Figures]:
        """Compare releases of test images with training originals, which no release was made from."""
        if releases.test_released is None:
            return lambda part: {}
        model = self.utility.of_originals(releases.train, seed)
        features = nn.Sequential(*list(model.children())[:-1])
        return lambda part: self._compared(features, part, seed)

    def _compared(self, features: nn.Module, releases: Releases, seed: int) -> Figures:
        assert releases.test_released is not None
        sets = releases.train.x[: self.num_images], releases.test_released[: self.num_images]
        with torch.no_grad():
            one, other = (torch.cat([features(part) for part in x.split(256)]) for x in sets)
        people = None if releases.test_people is None else releases.test_people[: self.num_images]
        figures: Figures = {
            "frechet_distance": frechet_distance(one, other),
            "precision": bootstrap_mean(lies_among(other, one), people=people),
            "recall": float(lies_among(one, other).float().mean()),
        }
        groups = public_groups(releases)[1][: self.num_images]
        members = in_groups_of(groups, 2)
        if len(members) == 0:
            return figures
        alike = perceptual_similarity(
            releases.test.x[members],
            releases.test_released[members],
            features,
            groups[members],
            people=None if people is None else people[members],
            seed=seed,
        )
        return figures | {"perceptual_similarity_above_class": alike.above}


def public_conditions(releases: Releases) -> tuple[Tensor, Tensor]:
    """Return what is public of training and of test images: classes (n,), or columns (n, k)."""
    columns = releases.variant.public_columns
    conditions = releases.train.y, releases.test.y
    if columns is None:
        return conditions
    # A column of zeros, for there may be no other.
    train, test = (torch.cat([y[:, list(columns)], torch.zeros_like(y[:, :1])], dim=1) for y in conditions)
    return train, test


def public_groups(releases: Releases) -> tuple[Tensor, Tensor]:
    """Return the groups, equal in all that is public, of training (n,) and test images (m,): promises hold within."""
    conditions = torch.cat(public_conditions(releases))
    conditions = conditions.reshape(len(conditions), -1)
    groups = conditions.unique(dim=0, return_inverse=True)[1]
    return groups[: len(releases.train.y)], groups[len(releases.train.y) :]


def people_of(releases: Releases) -> tuple[Tensor, Tensor]:
    """Return whose each training image (n,) and each test image (m,) is; of somebody else each where none says so."""
    known = releases.train_people, releases.test_people
    counts = len(releases.train.y), len(releases.test.y)
    train, test = (torch.arange(count) if of is None else of.cpu() for of, count in zip(known, counts, strict=True))
    return train, test


def in_groups_of(groups: Tensor, size: int) -> Tensor:
    """Return indices of those who are in groups of at least this size."""
    return (groups.bincount()[groups] >= size).nonzero()[:, 0]


def _accuracy(model: nn.Module, x: Tensor, y: Tensor, people: Tensor | None) -> Estimate:
    return bootstrap_mean(classifier_logits(model, x).argmax(1) == y, people=people)


def _mean_auc(model: nn.Module, x: Tensor, y: Tensor, people: Tensor | None) -> Estimate:
    scores = classifier_logits(model, x)
    value = mean_auc(scores, y)

    def area(drawn: Tensor) -> float:
        # Images of equal labels, which a draw of few may be, tell nothing.
        return 0.5 if bool((y[drawn] == y[drawn[0]]).all()) else mean_auc(scores[drawn], y[drawn])

    return bootstrap(area, len(y), people=people, num_bootstraps=200)._replace(value=value)
