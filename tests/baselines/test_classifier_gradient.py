# SPDX-License-Identifier: Apache-2.0
"""The gradients of images are clipped one by one: no image moves their sum by more than the bound."""

from __future__ import annotations

import math

import pytest
import torch
from opacus import GradSampleModule
from torch import nn

from monai_cadp.baselines import PrivateClassifier, classifier_gradient
from monai_cadp.privacy.noisy_sum import SumLattice

BOUND = 0.1


def clipped_gradient_sum(network, images, labels, bound):
    """In units of the gradients."""
    lattice = SumLattice(bound, 1.0)
    return [lattice.step * part for part in classifier_gradient.clipped_gradient_sum(network, images, labels, lattice)]


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


def test_no_image_moves_the_sum_by_more_than_twice_the_bound_and_a_control_without_clipping_does():
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
