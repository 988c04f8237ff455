# SPDX-License-Identifier: Apache-2.0
"""What a network can be built for, and what is refused before anything is built."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_cadp.networks import ConditionalINN, ConditionSpace, PaperINN

PAPER = {"depths": (1, 1), "num_dense": 1, "dense_width": 8}


@pytest.mark.parametrize(
    ("shape", "options", "match"),
    [
        ((8,), {}, "spatial_shape .*expected"),
        ((2, 2, 2, 2), {}, "spatial_shape .*expected"),
        ((0, 4), {}, "spatial_shape .*expected"),
        ((-4, 4), {}, "spatial_shape .*expected"),
        ((4.5, 4), {}, "spatial_shape .4.5, 4. .*whole sizes"),
        ((4, 4), {"in_channels": 1.5}, "in_channels 1.5.*expected"),
        ((4, 4), {"in_channels": 1.0}, "in_channels 1.0.*expected"),
        ((4, 4), {"in_channels": 0}, "in_channels 0.*expected"),
        ((6, 6), {"num_levels": 2}, "multiples of 4"),
        ((5, 4), {"num_levels": 1}, "multiples of 2"),
        ((4, 4), {"num_levels": -1}, "num_levels is -1"),
        ((), {"in_channels": 4, "num_levels": 1}, "num_levels is 1"),
        ((4, 4), {"num_levels": 1, "num_local_couplings": 2}, "num_local_couplings is 2 with num_maps 0"),
        ((4, 6), {"num_levels": 1, "num_maps": 2, "num_local_couplings": 2}, "even sizes of the coarse image"),
        ((4, 4), {"num_classes": 0}, "num_classes is 0; expected"),
        ((4, 4), {"condition_size": -1}, "condition_size is -1; expected"),
        ((4, 4), {"num_classes": 2, "condition_size": 2}, "both given"),
    ],
)
def test_a_network_that_cannot_be_is_refused_in_one_sentence(refused, shape, options, match):
    with refused(ValueError, match):
        ConditionalINN(shape, **options)


@pytest.mark.parametrize("shape", [(), (8, 8, 8), (6, 8), (4, 2)])
def test_the_papers_network_takes_only_flat_images_that_its_stages_divide(refused, shape):
    with refused(ValueError, "multiples of 4"):
        PaperINN(shape, **PAPER)


def test_the_papers_mnist_network_has_its_5_3_million_parameters():
    assert round(sum(p.numel() for p in PaperINN.mnist().parameters()) / 1e6, 1) == 5.3


def test_building_the_papers_network_leaves_the_global_generator_of_numpy_alone():
    np.random.seed(7)
    expected = np.random.rand(4)
    np.random.seed(7)
    PaperINN((8, 8), **PAPER)
    assert np.array_equal(np.random.rand(4), expected)


@pytest.mark.parametrize("shape", [(27, 27), (28, 28), (64, 64), (16, 16, 16), ()])
def test_the_default_levels_fit_every_shape(shape):
    inn = ConditionalINN(shape, 1, width=8, rank=8, num_couplings=1)
    x = torch.rand(2, 1, *shape)
    assert (inn.decode(inn.encode(x)[0]) - x).abs().max() < 1e-4


def test_a_new_network_is_exactly_its_whitening():
    torch.manual_seed(0)
    inn = ConditionalINN((4, 4), num_levels=0)
    flow_free = ConditionalINN((4, 4), num_levels=0, num_couplings=0)
    x = torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(inn.encode(x)[0], flow_free.encode(x)[0], rtol=0, atol=1e-6)


def test_sampled_conditions_belong_to_their_space():
    for space in (ConditionSpace(), ConditionSpace(num_classes=4), ConditionSpace(condition_size=3)):
        condition = space.sample(10, torch.Generator().manual_seed(0))
        space.check(condition, 10)
        assert space.embed(condition, 10).shape == (10, space.embedding_size)


@pytest.mark.parametrize(("shape", "better"), [((70, 130), "64 x 128"), ((90, 90), "96 x 96")])
def test_sizes_that_cannot_be_halved_often_are_warned_of_with_better_ones(shape, better):
    with pytest.warns(UserWarning, match=f"such as {better}, train faster"):
        ConditionalINN(shape, num_couplings=2, width=8)


@pytest.mark.parametrize(("shape", "better"), [((127, 129), "128 x 128"), ((66, 66, 66), "64 x 64 x 64")])
def test_sizes_whose_coarse_image_would_fill_the_memory_are_refused_before_it_is_made(refused, shape, better):
    with refused(ValueError, f"such as {better}, are needed"):
        ConditionalINN(shape)


@pytest.mark.parametrize("shape", [(96, 128), (28, 28), (36, 36), (128, 128), (48, 60, 48), (32, 48, 32)])
def test_usual_sizes_are_not_warned_of(shape, recwarn):
    ConditionalINN(shape, num_couplings=2, width=8)
    assert not [one for one in recwarn if "halved" in str(one.message)]
