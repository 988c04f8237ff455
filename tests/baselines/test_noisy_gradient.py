# SPDX-License-Identifier: Apache-2.0
"""Batches are independent coins, no image moves a sum by more than the bound, noise is Gaussian."""

from __future__ import annotations

import math

import pytest
import torch
from opacus import GradSampleModule
from scipy.stats import kstest
from torch import nn

from monai_cadp.baselines import PrivateClassifier
from monai_cadp.baselines.noisy_gradient import clipped_gradient_sum, gaussian_noise, poisson_batch

BOUND = 0.1


def linear():
    torch.manual_seed(0)
    return GradSampleModule(nn.Linear(6, 3), loss_reduction="sum")


def distance(first, second):
    return math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(first, second, strict=True)))


def moved_by_one_image(total):
    """How far a sum of gradients moves if one image of twenty is made a million times as bright and relabelled."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(20, 6, generator=generator)
    labels = torch.randint(3, (20,), generator=generator)
    other_images, other_labels = images.clone(), labels.clone()
    other_images[4] *= 1e6
    other_labels[4] = (labels[4] + 1) % 3
    network = linear()
    return distance(total(network, images, labels), total(network, other_images, other_labels))


def test_no_image_moves_the_sum_by_more_than_twice_the_bound_and_a_twin_without_clipping_does():
    def unclipped(network, images, labels):
        return clipped_gradient_sum(network, images, labels, 1e9)

    assert 0.5 * BOUND < moved_by_one_image(lambda *data: clipped_gradient_sum(*data, BOUND)) <= 2 * BOUND
    assert moved_by_one_image(unclipped) > 1000 * BOUND


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 11), (1, 9, 8, 10)], ids=str)
def test_the_sum_is_that_of_each_image_s_own_clipped_gradient(shape):
    torch.manual_seed(0)
    images, labels = torch.rand(5, *shape), torch.tensor([0, 1, 2, 0, 1])
    model = PrivateClassifier(shape, 3)
    parameters = list(model.parameters())
    expected = [torch.zeros_like(parameter) for parameter in parameters]
    for image, label in zip(images, labels, strict=True):
        loss = nn.functional.cross_entropy(model(image[None]), label[None])
        gradient = torch.autograd.grad(loss, parameters)
        length = math.sqrt(sum(float(part.square().sum()) for part in gradient))
        for part, own in zip(expected, gradient, strict=True):
            part += min(1.0, BOUND / length) * own
    total = clipped_gradient_sum(GradSampleModule(model.train(), loss_reduction="sum"), images, labels, BOUND)
    assert distance(total, expected) < 0.002 * distance(expected, [0 * part for part in expected])


def test_a_batch_of_none_gives_zeros_and_so_does_an_image_without_a_finite_gradient():
    network = linear()
    nothing = clipped_gradient_sum(network, torch.zeros(0, 6), torch.zeros(0).long(), BOUND)
    assert [tuple(part.shape) for part in nothing] == [(3, 6), (3,)] and not any(part.any() for part in nothing)
    images, labels = torch.randn(3, 6), torch.tensor([0, 1, 2])
    images[1] = math.nan
    rest = torch.tensor([0, 2])
    total = clipped_gradient_sum(network, images, labels, BOUND)
    assert distance(total, clipped_gradient_sum(network, images[rest], labels[rest], BOUND)) < 1e-6


def gaussian(values, deviation):
    """Whether values may come from a normal distribution of this deviation; wrong with a probability of 1e-6."""
    spread = float(values.std()) / deviation
    return kstest(values / deviation, "norm").pvalue > 5e-7 and abs(spread - 1) < 5.1 / math.sqrt(2 * len(values))


def test_noise_is_gaussian_of_the_stated_deviation_and_a_twin_off_by_three_percent_is_rejected():
    values = gaussian_noise(torch.zeros(100_001), deviation=3.0)
    assert values.shape == (100_001,) and values.dtype == torch.float64
    assert gaussian(values, 3.0) and not gaussian(1.03 * values, 3.0)
    # A correlation of independent values deviates by 0.0045: five times that is rarer than 1e-6.
    half = values[:50_000] * values[50_000:100_000] / 9
    assert abs(float(half.mean())) < 5 * 50_000**-0.5


def test_noise_is_fresh_unless_a_test_brings_its_generator():
    like = torch.zeros(2, 3)
    assert not torch.equal(gaussian_noise(like, 1.0), gaussian_noise(like, 1.0))
    first, second = (gaussian_noise(like, 1.0, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, second) and first.shape == like.shape


def test_every_image_enters_a_batch_by_its_own_coin():
    """Counts are binomial; six deviations from the mean are rarer than 1e-6."""
    count, rate = 40_000, 0.3
    one, other = (torch.zeros(count, dtype=torch.bool).index_fill(0, poisson_batch(count, rate), True) for _ in "ab")
    for inside, probability in ((one, rate), (other, rate), (one & other, rate**2), (one[1:] & one[:-1], rate**2)):
        # Neighbouring pairs overlap, which at most triples the variance.
        deviation = math.sqrt(3 * count * probability * (1 - probability))
        assert abs(int(inside.sum()) - count * probability) < 6 * deviation
    assert len(poisson_batch(count, 1.0)) == count and len(poisson_batch(count, 2.0**-60)) == 0
