# SPDX-License-Identifier: Apache-2.0
"""Masks are learnt where images show them, and released only together with their images."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.data import join_masks, split_masks
from monai_cadp.metrics import bootstrap_mean, segmentation_dice, train_segmentation


def boxes(count, seed, spatial=(20, 18)):
    """A bright and a dark box in noise, classes 1 and 2; in every fourth image there is no dark one."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.5 + 0.1 * torch.randn(count, 1, *spatial, generator=generator)
    masks = torch.zeros(count, 1, *spatial, dtype=torch.long)
    for index in range(count):
        for kind, value in ((1, 0.4), (2, -0.4)):
            if kind == 1 or index % 4:
                corner = [int(torch.randint(size - 6, (1,), generator=generator)) for size in spatial]
                box = (index, 0, *(slice(start, start + 6) for start in corner))
                images[box] = 0.5 + value + 0.1 * torch.randn(images[box].shape, generator=generator)
                masks[box] = kind
    return images, masks


@pytest.mark.slow
@pytest.mark.parametrize(("spatial", "count"), [((20, 18), 64), ((12, 13, 10), 32)])
def test_masks_are_learnt_in_two_and_three_dimensions(spatial, count):
    model = train_segmentation(*boxes(count, 0, spatial), 3, epochs=20, batch_size=8, learning_rate=5e-3)
    dice = bootstrap_mean(segmentation_dice(model, *boxes(24, 1, spatial)), num_bootstraps=100)
    assert dice.low > 0.7


def test_from_masks_of_other_images_nothing_is_learnt():
    images, masks = boxes(64, 0)
    model = train_segmentation(images, masks.roll(1, 0), 3, epochs=6, batch_size=8, learning_rate=5e-3)
    assert bootstrap_mean(segmentation_dice(model, *boxes(24, 1)), num_bootstraps=100).high < 0.5


def told(masks):
    """A network that reads the classes off its image."""
    return torch.nn.functional.one_hot(masks[:, 0].long(), 3).movedim(-1, 1)


def test_the_dice_is_twice_the_overlap_over_both_sizes():
    found = torch.zeros(4, 1, 4, 4)
    truth = found.clone().long()
    found[:, 0, 0, :2], truth[:, 0, 0, 1:3] = 1, 1  # Half of class 1, of which one image has nothing to find.
    found[1, 0, 3], truth[1, 0, 3] = 2, 2
    truth[2, 0, 3] = 2
    truth[3] = 0
    # No class 2 anywhere; found; missed; and class 1 found where it is not.
    assert segmentation_dice(told, found, truth).tolist() == [0.75, 0.75, 0.25, 0.5]


def test_an_image_is_told_as_it_is_alone():
    """In training too: private training needs it."""
    model = train_segmentation(*boxes(8, 0), 3, epochs=1).train()
    images = boxes(4, 1)[0]
    torch.testing.assert_close(model(images)[:1], model(images[:1]), rtol=0, atol=1e-5)
    assert model(images).shape == (4, 3, 20, 18)


def test_the_training_leaves_the_global_generator_alone_and_is_repeatable():
    state = torch.random.get_rng_state()
    first, again, other = (train_segmentation(*boxes(8, 0), 3, epochs=1, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state) and not first.training
    x = boxes(2, 1)[0]
    assert torch.equal(first(x), again(x)) and not torch.equal(first(x), other(x))


def test_the_network_learns_as_well_from_masks_that_were_split_off():
    joined = join_masks(*boxes(8, 0), 3)
    models = [train_segmentation(*pair, 3, epochs=1) for pair in (split_masks(joined, 3), boxes(8, 0))]
    x = boxes(2, 1)[0]
    assert torch.equal(models[0](x), models[1](x))


@pytest.mark.parametrize(
    ("masks", "match"),
    [
        (torch.zeros(2, 8, 8), "expected \\(n, C"),
        (torch.full((2, 1, 8, 8), 3), "expected these"),
        (torch.full((2, 1, 8, 8), -1), "expected these"),
        (torch.full((2, 1, 8, 8), 0.5), "expected these"),
    ],
)
def test_masks_that_are_none_are_refused(refused, masks, match):
    images = torch.rand(2, 1, 8, 8)
    with refused(ValueError, match):
        train_segmentation(images, masks, 3)
    with refused(ValueError, match):
        join_masks(images, masks, 3)
    with refused(ValueError, match):
        segmentation_dice(told, images.round(), masks)
