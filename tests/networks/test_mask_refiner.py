# SPDX-License-Identifier: Apache-2.0
"""Masks of draws lie where the edges of what was drawn are, and are as large as they were drawn."""

from __future__ import annotations

import pytest
import torch
from monai.metrics import compute_dice

from monai_cadp.data import join_masks, split_masks
from monai_cadp.data.masks import one_hot_masks
from monai_cadp.networks import ConditionalINN, calibrate_format, calibrate_spectrum, fit_moments
from monai_cadp.networks.mask_refiner import MaskRefiner

SIZE, NO_CONDITION = 24, torch.zeros(1, 0)


def discs(count, seed):
    """Images of a bright disc beside a less bright one, and their classes, 1 and 2."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")).float()
    masks = torch.zeros(count, 1, SIZE, SIZE, dtype=torch.long)
    for mask in masks:
        for label, across in ((1, 7), (2, 17)):
            middle = torch.tensor([12.0, across]) + 4 * torch.rand(2, generator=generator) - 2
            radius = 3 + 1.5 * torch.rand((), generator=generator)
            mask[0, (place - middle[:, None, None]).square().sum(0) < radius**2] = label
    grey = torch.tensor([-0.7, 2.0, 0.8])[masks]
    return grey + 0.2 * torch.randn(grey.shape, generator=generator), masks


def channels(images, masks):
    return join_masks(images, masks, num_classes=3, reach=3.0)[:, 1:]


def classes(masks):
    return split_masks(torch.cat([masks[:, :1], masks], dim=1), 3)[1]


def sizes(masks):
    return torch.stack([(classes(masks) == label).flatten(1).sum(1) for label in (1, 2)], dim=1)


def conditions(images):
    return NO_CONDITION.expand(len(images), 0)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    refiner = MaskRefiner(1, 2, (SIZE, SIZE), widths=(16, 32), embedding_size=0)
    images, masks = discs(64, seed=1)
    optimizer = torch.optim.Adam(refiner.parameters(), lr=5e-3)
    for _ in range(60):
        loss = refiner.error(images, channels(images, masks), conditions(images)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return refiner.eval()


def moved(refiner):
    """With weights that are not zero, whatever they mean."""
    torch.manual_seed(5)
    torch.nn.init.normal_(refiner.last.weight, std=0.5)
    return refiner.eval()


def test_masks_that_were_drawn_beside_their_edges_are_laid_along_them(trained):
    images, masks = discs(32, seed=2)
    beside = channels(images, masks).roll((2, -1), dims=(2, 3))
    refined = trained(images, beside, conditions(images))

    def dice(found):
        both = (one_hot_masks(images, one, 3) for one in (classes(found), masks))
        return compute_dice(*both, include_background=False).mean()

    assert dice(beside) < 0.75 and dice(refined) > 0.95


@pytest.mark.parametrize("moved_by", [-0.2, 0.25])
def test_masks_stay_as_large_as_they_were_drawn_whatever_the_image_shows(trained, moved_by):
    images, masks = discs(32, seed=3)
    drawn = channels(images, masks) + moved_by
    wanted = sizes(drawn)
    assert float((wanted - sizes(channels(images, masks))).abs().float().mean()) > 10
    assert int((sizes(trained(images, drawn, conditions(images))) - wanted).abs().max()) <= 1


def test_a_class_that_was_not_drawn_is_not_found(trained):
    images, masks = discs(8, seed=4)
    drawn = channels(images, masks)
    drawn[:4, 1] = 0.0
    found = sizes(trained(images, drawn, conditions(images)))
    assert found[:4, 1].tolist() == [0] * 4 and bool((found[4:, 1] > 0).all()) and bool((found[:, 0] > 0).all())


def test_no_image_has_an_influence_on_another_and_the_same_is_found_again(trained):
    images, masks = discs(5, seed=5)
    drawn = channels(images, masks)
    together = trained(images, drawn, conditions(images))
    assert torch.equal(together, trained(images, drawn, conditions(images)))
    alone = [trained(one, mask, NO_CONDITION) for one, mask in zip(images.split(1), drawn.split(1), strict=True)]
    assert torch.equal(classes(together), classes(torch.cat(alone)))


def test_the_error_is_small_where_masks_are_found_and_the_same_at_every_validation(trained):
    images, masks = discs(16, seed=6)
    right, wrong = channels(images, masks), channels(images, masks).flip(1)
    errors = trained.error(images, right, conditions(images))
    assert float(errors.max()) < 0.5 < float(trained.error(images, wrong, conditions(images)).min())
    assert torch.equal(errors, trained.error(images, right, conditions(images)))


@pytest.mark.parametrize(
    ("num_channels", "num_masks", "shape"), [(3, 1, (6, 10)), (1, 3, (5, 7)), (1, 2, (4, 6, 4)), (1, 1, (5, 4, 6))]
)
def test_any_channels_classes_and_sizes(num_channels, num_masks, shape):
    refiner = MaskRefiner(num_channels, num_masks, shape, widths=(8, 16), embedding_size=2)
    images, drawn, embedding = torch.randn(3, num_channels, *shape), torch.rand(3, num_masks, *shape), torch.eye(2)
    embedding = embedding[[0, 1, 1]]
    assert torch.equal(refiner(images, drawn, embedding), drawn)
    refined = moved(refiner)(images, drawn, embedding)
    assert refined.shape == drawn.shape and not torch.equal(refined, drawn)
    assert bool(((refined >= 0) & (refined <= 1)).all())


# --- inside a network -------------------------------------------------------------------------------------------------


def network(**options):
    torch.manual_seed(0)
    small = {"num_levels": 1, "num_couplings": 2, "width": 16, "num_detail_couplings": 2, "num_masks": 2}
    return ConditionalINN((SIZE, SIZE), 3, **{"context_width": 16, "mask_refiner_width": 16, **small, **options}).eval()


def calibrated():
    inn, (images, masks) = network(), discs(64, seed=1)
    joined = join_masks(images, masks, num_classes=3, reach=3.0)
    for step in (fit_moments, calibrate_spectrum, calibrate_format):
        step(inn, lambda: [(joined, None)])
    return inn


def test_drawing_passes_it_and_nothing_else_does():
    inn = calibrated()
    z = torch.randn(4, inn.num_latents)
    plain, decoded, log_prob = inn.draw(z), inn.decode(z), inn.log_prob(inn.decode(z))
    assert not inn.has_refiner
    with inn.learning("public"):
        moved(inn.mask_refiner)
    refined = inn.draw(z)
    assert inn.has_refiner and torch.equal(refined[:, 0], plain[:, 0])
    assert not torch.equal(classes(refined[:, 1:]), classes(plain[:, 1:]))
    assert torch.equal(inn.draw(z, refined=False), plain)
    assert torch.equal(inn.decode(z), decoded) and torch.equal(inn.log_prob(decoded), log_prob)


def test_it_is_a_part_of_its_own_that_learns_from_images_and_masks():
    inn, (images, masks) = calibrated(), discs(6, seed=2)
    assert (inn.num_flows, inn.num_parts) == (2, 3)
    assert {inn.part_of(name) for name, _ in inn.named_parameters() if name.startswith("mask_refiner")} == {2}
    joined = join_masks(images, masks, num_classes=3, reach=3.0)
    parts = inn.train().part_log_probs(joined, num_samples=[0, 0, 4])
    assert [len(part) for part in parts] == [0, 0, 4]
    parts[2].sum().backward()
    moving = {name.partition(".")[0] for name, parameter in inn.named_parameters() if parameter.grad is not None}
    assert moving == {"mask_refiner"}


def test_beside_a_refiner_of_images_each_is_a_part():
    inn = network(num_levels=2, refiner_width=16)
    names = dict(inn.named_parameters())
    assert inn.num_parts == 5
    assert {inn.part_of(name) for name in names if name.startswith("refiner")} == {3}
    assert {inn.part_of(name) for name in names if name.startswith("mask_refiner")} == {4}
    counts = [len(part) for part in inn.part_log_probs(torch.rand(4, 3, SIZE, SIZE), num_samples=[1, 1, 2, 3, 4])]
    assert counts == [1, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_masks": 3}, "num_masks is 3"),
        ({"num_masks": -1}, "num_masks is -1"),
        ({"num_masks": 0}, "mask_refiner_width is 16"),
        ({"mask_refiner_width": 8}, "mask_refiner_width is 8"),
        ({"context_width": 0}, "mask_refiner_width is 16"),
    ],
)
def test_what_cannot_be_is_refused(options, said, refused):
    with refused(ValueError, said):
        network(**options)


def test_there_is_one_where_there_are_masks_and_a_u_net():
    assert network(mask_refiner_width=None).mask_refiner is not None
    assert network(mask_refiner_width=None, num_masks=0).mask_refiner is None
    assert network(mask_refiner_width=None, context_width=0).mask_refiner is None
