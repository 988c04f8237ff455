# SPDX-License-Identifier: Apache-2.0
"""The mechanism as published: its noise never changes, an image depends on its batch, and epsilon is another one."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.baselines import PublishedLaplace
from monai_cadp.networks import ConditionalINN

SHAPE = (4, 4)


def published(epsilon):
    return PublishedLaplace(ConditionalINN(SHAPE, num_levels=0, num_couplings=0), epsilon)


def latents(mechanism, x):
    return mechanism.inn.encode(mechanism(x))[0]


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 8.0])
def test_the_scale_of_the_noise_does_not_depend_on_epsilon(epsilon):
    torch.manual_seed(0)
    noise = latents(published(epsilon), torch.zeros(20_000, 1, *SHAPE))
    # The mean size of Laplace noise is its scale.
    assert float(noise.abs().mean()) == pytest.approx(0.5, abs=0.02)


def test_an_image_is_worth_less_the_more_others_are_in_its_batch():
    """Clipping divides the whole batch by one number, which grows with it."""
    mechanism = published(8.0)
    kept = []
    for size in (1, 100):
        torch.manual_seed(0)
        batches = [latents(mechanism, torch.ones(size, 1, *SHAPE)).mean() for _ in range(400 // size)]
        kept.append(float(torch.stack(batches).mean()))
    assert kept[0] > 10 * abs(kept[1])


def test_the_true_epsilon_is_that_of_all_latents_and_of_twice_the_bound():
    assert published(1.0).true_epsilon == 2 * 16 * 1.0
    assert published(1.0).guarantee is None


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("inf"), float("nan")])
def test_an_epsilon_that_is_none_is_refused(refused, epsilon):
    with refused(ValueError, "epsilon is"):
        published(epsilon)
