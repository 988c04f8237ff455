# SPDX-License-Identifier: Apache-2.0
"""Releases look like their originals to a network only where they are more alike than any two images of a class."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_cadp.baselines import GaussianBlur
from monai_cadp.data import Digits
from monai_cadp.metrics import perceptual_similarity, train_classifier


def digits(split):
    items = list(Digits(split))
    return torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items]).flatten()


IMAGES, LABELS = digits("test")


@pytest.fixture(scope="module")
def features():
    return train_classifier(*digits("train"), 10, epochs=4)[:-1]


def someone_else():
    generator = torch.Generator().manual_seed(0)
    released = IMAGES.clone()
    for label in range(10):
        members = (LABELS == label).nonzero()[:, 0]
        released[members] = IMAGES[members[torch.randperm(len(members), generator=generator)]]
    return released


def test_blurred_images_are_more_alike_than_any_two_of_their_class(features):
    result = perceptual_similarity(IMAGES, GaussianBlur(0.7)(IMAGES), features, LABELS)
    assert result.pairs.low > result.shuffled.high and result.above.low > 0.1


def test_images_of_the_class_alone_are_not_though_all_of_them_are_much_alike(features):
    """Without the zero line the broken claim would pass: similarity is high, and says the class only."""
    result = perceptual_similarity(IMAGES, someone_else(), features, LABELS)
    assert result.pairs.low > 0.5 and result.shuffled.low > 0.5
    assert result.above.low < 0 < result.above.high


def test_the_zero_line_without_classes_counts_the_class_as_content(features):
    """The negative control: shuffled over all classes, releases of the class alone seem to keep much."""
    assert perceptual_similarity(IMAGES, someone_else(), features).above.low > 0.4


def test_it_is_the_mean_over_all_pairs_of_a_class():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 7, 1, 2, 2, generator=generator)
    labels = torch.tensor([0, 0, 1, 1, 1, 0, 1])
    a, b = (z.flatten(1) - z.flatten(1).mean(0) for z in (x, y))
    cosine = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)
    others = (labels[:, None] == labels) & ~torch.eye(7, dtype=torch.bool)
    line = torch.stack([row[mask].mean() for row, mask in zip(cosine, others, strict=True)])
    result = perceptual_similarity(x, y, nn.Flatten(), labels, num_bootstraps=20)
    assert result.pairs.value == pytest.approx(cosine.diag().mean().item(), abs=1e-6)
    assert result.shuffled.value == pytest.approx(line.mean().item(), abs=1e-6)
    assert result.above.value == pytest.approx(result.pairs.value - result.shuffled.value)


def test_pairs_that_do_not_fit_are_refused(refused):
    x = torch.rand(4, 1, 2, 2)
    with refused(ValueError, "expected the same shape twice"):
        perceptual_similarity(x, x[:3], nn.Flatten())
    with refused(ValueError, "expected the same shape twice"):
        perceptual_similarity(x, x, nn.Flatten(), torch.zeros(3))
    with refused(ValueError, "expected two or more"):
        perceptual_similarity(x, x, nn.Flatten(), torch.tensor([0, 0, 0, 1]))
