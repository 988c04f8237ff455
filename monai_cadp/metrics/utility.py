# SPDX-License-Identifier: Apache-2.0
"""Learning from originals or releases, telling the class of originals or releases: the four settings."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from monai_cadp.metrics.classifier import classifier_logits, train_classifier
from monai_cadp.metrics.intervals import Estimate, bootstrap_mean
from monai_cadp.metrics.uncertainty import dropout_uncertainty

__all__ = ["FourSettings", "Setting", "four_settings"]


class Setting(NamedTuple):
    """What a classifier reaches on test images, with intervals by resampling them.

    Args:
        accuracy: share of images whose class is told rightly.
        uncertainty: mean of :func:`~monai_cadp.metrics.dropout_uncertainty`, from 0, sure, to 1.
    """

    accuracy: Estimate
    uncertainty: Estimate


class FourSettings(NamedTuple):
    """What is learnt from the first kind of images, on the second.

    Args:
        originals_to_originals: the ceiling, o/o in the paper.
        releases_to_originals: what research on releases is worth for patients, p/o.
        releases_to_releases: p/p.
        originals_to_releases: whether releases look like their class to who knows originals, o/p.
    """

    originals_to_originals: Setting
    releases_to_originals: Setting
    releases_to_releases: Setting
    originals_to_releases: Setting


def four_settings(
    train_originals: tuple[Tensor, Tensor],
    train_releases: tuple[Tensor, Tensor],
    test_originals: tuple[Tensor, Tensor],
    test_releases: tuple[Tensor, Tensor],
    num_classes: int,
    *,
    num_bootstraps: int = 1000,
    seed: int = 0,
    **options: Any,
) -> FourSettings:
    r"""Train one classifier on originals and one on releases, and test each on both.

    Args:
        train_originals: images (n, C, \*spatial) and classes (n,).
        train_releases: of them, or of some of them; classes may be released ones.
        test_originals: images and classes of other people.
        test_releases: of them.
        num_classes: number of classes.
        num_bootstraps: how often test images are drawn again for the intervals.
        seed: of training, dropout and drawing.
        options: further arguments of :func:`~monai_cadp.metrics.train_classifier`.

    Returns:
        Accuracy and uncertainty in the four settings.

    References:
        Toelle, Koethe, Andre, Meder, Engelhardt: Content-aware differential privacy with conditional invertible neural
        networks, MICCAI DeCaF 2022, table 1.

    Example:
        >>> import torch
        >>> labels = torch.arange(40) % 2
        >>> images = labels[:, None, None, None] + 0.1 * torch.rand(40, 1, 8, 8)
        >>> sets = [(images, labels)] * 4
        >>> settings = four_settings(*sets, num_classes=2, num_bootstraps=20, epochs=20)
        >>> settings.releases_to_originals.accuracy.value
        1.0
    """
    by_originals, by_releases = (
        train_classifier(*learnt, num_classes, seed=seed, **options) for learnt in (train_originals, train_releases)
    )

    def setting(model: nn.Module, test: tuple[Tensor, Tensor]) -> Setting:
        images, classes = test
        right = classifier_logits(model, images).argmax(1) == classes
        unsure = dropout_uncertainty(model, images, seed=seed)
        return Setting(*(bootstrap_mean(of, num_bootstraps=num_bootstraps, seed=seed) for of in (right, unsure)))

    return FourSettings(
        originals_to_originals=setting(by_originals, test_originals),
        releases_to_originals=setting(by_releases, test_originals),
        releases_to_releases=setting(by_releases, test_releases),
        originals_to_releases=setting(by_originals, test_releases),
    )
