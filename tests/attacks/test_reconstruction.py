# SPDX-License-Identifier: Apache-2.0
"""Originals are found behind what promises nothing, and no more often than epsilon allows behind what promises."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import one_hot

from monai_cadp.attacks import expected_releases, nearest_candidate, success_limit
from monai_cadp.attacks.negative_controls import with_noise
from monai_cadp.baselines import GaussianBlur, Mosaic
from monai_cadp.data import Digits
from monai_cadp.privacy import LaplaceMechanism, RandomizedResponse

CANDIDATES = 20


def digits(split):
    items = list(Digits(split))
    return torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items]).flatten()


SHADOWS, SHADOW_LABELS = digits("train")
IMAGES, LABELS = digits("test")


def success(expected, releases, **options):
    return nearest_candidate(
        expected, releases, CANDIDATES, epsilon=math.inf, labels=LABELS, num_bootstraps=200, **options
    ).success


def learnt(shadow_releases):
    return expected_releases(SHADOWS, shadow_releases, IMAGES, shadow_labels=SHADOW_LABELS, labels=LABELS)


def someone_else(images, labels, seed):
    """An image of the same class, maybe the same: what a perfect network would release of the class alone."""
    generator = torch.Generator().manual_seed(seed)
    released = images.clone()
    for label in range(10):
        members = (labels == label).nonzero()[:, 0]
        released[members] = images[members[torch.randperm(len(members), generator=generator)]]
    return released


@pytest.mark.parametrize("obfuscation", [GaussianBlur(1.0), GaussianBlur(2.0), Mosaic(2), Mosaic(4)])
def test_who_has_learnt_how_images_are_released_finds_originals_behind_blur_and_mosaic(obfuscation):
    """Who looks for the original that is like the release finds half of them at most, and thinks them safe."""
    releases = obfuscation(IMAGES)
    assert success(learnt(obfuscation(SHADOWS)), releases).low > 0.98
    assert success(obfuscation(IMAGES), releases).low > 0.98
    assert success(IMAGES, releases).high < 0.6


def test_copies_are_found():
    assert nearest_candidate(IMAGES, IMAGES, CANDIDATES, epsilon=math.inf, labels=LABELS) == ((1.0, 1.0, 1.0), 0.05, 1)


@pytest.mark.parametrize("is_learnt", [False, True])
def test_behind_images_of_the_class_alone_originals_are_guessed(is_learnt):
    expected = learnt(someone_else(SHADOWS, SHADOW_LABELS, 1)) if is_learnt else IMAGES
    found = success(expected, someone_else(IMAGES, LABELS, 0))
    assert found.low < 1 / CANDIDATES < found.high < 0.1


def test_a_release_that_says_nothing_is_a_tie_between_all():
    x = torch.ones(30, 3)
    assert nearest_candidate(x, x, 10, epsilon=0.0).success == pytest.approx((0.1, 0.1, 0.1))


def test_the_others_are_of_the_same_class():
    """Of two classes that differ in all and persons that do not differ, nothing but the class could be told."""
    labels = torch.arange(40) % 2
    x = labels[:, None].float()
    assert nearest_candidate(x, x, 4, epsilon=math.inf, labels=labels).success.value == 0.25
    assert nearest_candidate(x, x, 4, epsilon=math.inf).success.value > 0.3


def test_the_candidates_are_different_people():
    x = torch.eye(6)
    assert nearest_candidate(x, 1 - x, 6, epsilon=math.inf).success.value == 0.0
    # All nearer ones are drawn, the true one never wins; one that stood there twice would leave another out.
    near = torch.arange(6.0)[:, None]
    assert nearest_candidate(near, near + 1, 6, epsilon=math.inf).success.value == pytest.approx(1 / 6)


@pytest.mark.slow
def test_randomized_response_reaches_the_limit_and_less_of_it_is_caught():
    """The limit is sharp. 4000 groups of four different people; an interval of five standard deviations around it."""
    people = torch.arange(16_000) % 4
    originals, groups = one_hot(people, 4).float(), torch.arange(16_000) // 4

    def attacked(true_epsilon):
        released = one_hot(RandomizedResponse(true_epsilon, 4)(people), 4).float()
        return nearest_candidate(originals, released, 4, epsilon=1.0, labels=groups, num_bootstraps=2)

    honest, broken = attacked(1.0), attacked(1.3)
    deviation = math.sqrt(honest.limit * (1 - honest.limit) / 16_000)
    assert honest.limit == pytest.approx(math.e / (math.e + 3))
    assert abs(honest.success.value - honest.limit) < 5 * deviation
    assert broken.success.value > broken.limit + 5 * deviation


def test_laplace_noise_stays_below_the_limit_and_half_of_it_does_not():
    """Pairs of people at the two ends: 0.70 below 0.73, and 0.82 with half the noise; flake rate below 1e-6."""
    ends = torch.tensor([-1.0, 1.0]).repeat(2000)[:, None]
    pairs = torch.arange(4000) // 2
    honest = LaplaceMechanism(1.0, clipping_bound=1.0).configured(1)
    results = [
        nearest_candidate(ends, mechanism(ends), 2, epsilon=1.0, labels=pairs)
        for mechanism in (honest, with_noise(honest, 0.5))
    ]
    assert results[0].success.value < results[0].limit < results[1].success.low


def test_the_limit_lies_between_guessing_and_certainty():
    assert success_limit(0.0, 7) == pytest.approx(1 / 7) and success_limit(math.inf, 7) == 1.0
    assert success_limit(2.0, 2) == pytest.approx(math.exp(2) / (1 + math.exp(2)))
    assert success_limit(800.0, 1000) == pytest.approx(1.0)


def test_the_attack_is_the_same_for_the_same_seed():
    first, second, other = (success(IMAGES, Mosaic(2)(IMAGES), seed=seed) for seed in (0, 0, 1))
    assert first == second != other


def test_what_becomes_of_an_image_is_learnt_class_by_class():
    """Releases are the sum of the pixels, and 5 more in the second class."""
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(300, 2, generator=generator), torch.arange(300) % 2
    released = x.sum(1, keepdim=True) + 5 * labels[:, None]
    expected = expected_releases(x[:200], released[:200], x[200:], shadow_labels=labels[:200], labels=labels[200:])
    torch.testing.assert_close(expected, released[200:], rtol=0, atol=0.02)
    assert expected.dtype == released.dtype
    before = x.clone()
    expected_releases(x, released, x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"epsilon": -1.0}, "epsilon is -1.0; expected"),
        ({"epsilon": math.nan}, "epsilon is nan; expected"),
        ({"num_candidates": 1}, "1 candidates; expected 2"),
        ({"num_candidates": 6}, "smallest class has 5 originals; expected"),
        ({"releases": torch.zeros(10, 3)}, "expected the same shape twice"),
        ({"labels": torch.zeros(9)}, "expected the same shape twice"),
        ({"releases": torch.full((10, 2), torch.nan)}, "NaN"),
        ({"originals": torch.zeros(0, 2), "releases": torch.zeros(0, 2), "labels": torch.zeros(0)}, "0 originals"),
    ],
)
def test_what_cannot_be_attacked_is_refused(refused, changes, match):
    arguments = {"originals": torch.rand(10, 2), "releases": torch.rand(10, 2), "num_candidates": 2, "epsilon": 1.0}
    arguments |= {"labels": torch.arange(10) % 2} | changes
    with refused(ValueError, match):
        nearest_candidate(**arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {"originals": torch.rand(5, 3)},
        {"shadow_releases": torch.rand(9, 2)},
        {"labels": torch.arange(4)},
        {"labels": torch.tensor([0, 1, 2, 0, 1])},
    ],
)
def test_what_cannot_be_learnt_is_refused(refused, changes):
    arguments = {"shadow_originals": torch.rand(10, 2), "shadow_releases": torch.rand(10, 2)}
    arguments |= {"originals": torch.rand(5, 2), "shadow_labels": torch.arange(10) % 2, "labels": torch.arange(5) % 2}
    with refused(ValueError, "Shadows came in the shapes .*expected"):
        expected_releases(**(arguments | changes))
