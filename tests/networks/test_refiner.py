# SPDX-License-Identifier: Apache-2.0
"""The refiner: what it learns, that it changes nothing before, and that what it draws is a function of the latents."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.networks import ConditionalINN
from monai_cadp.networks.refiner import Refiner

SMALL = {"num_levels": 2, "num_couplings": 2, "width": 16, "context_width": 16, "num_detail_couplings": 2}


def stripes(count, generator):
    """Images that are all of one kind: bright and dark columns, of class 0, or rows, of class 1."""
    phase = torch.randint(0, 2, (count, 1, 1, 1), generator=generator) * 2 - 1
    columns = (torch.arange(8) % 2 * 2 - 1).float().expand(count, 1, 8, 8)
    label = torch.arange(count) % 2
    images = torch.where(label.reshape(-1, 1, 1, 1) == 0, columns, columns.transpose(2, 3))
    return phase * images, torch.eye(2)[label]


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    refiner = Refiner(1, (8, 8), widths=(16, 32), embedding_size=2)
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(refiner.parameters(), lr=5e-3)
    for _ in range(150):
        loss = refiner.error(*stripes(32, generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return refiner.eval()


def moved(refiner):
    """With weights that are not zero, whatever they mean."""
    torch.manual_seed(5)
    torch.nn.init.normal_(refiner.last.weight, std=0.05)
    return refiner.eval()


def test_what_was_drawn_badly_comes_nearer_to_what_was_learnt(trained):
    generator = torch.Generator().manual_seed(2)
    images, embedding = stripes(64, generator)
    drawn = images + 0.3 * torch.randn(images.shape, generator=generator)
    latents = torch.randn(64, 64, generator=generator)
    untrained = Refiner(1, (8, 8), widths=(16, 32), embedding_size=2)

    def distance(refiner):
        return (refiner(drawn, embedding, latents) - images).square().mean().sqrt()

    assert distance(untrained) == (drawn - images).square().mean().sqrt()
    assert distance(trained) < 0.8 * distance(untrained)


def test_the_condition_is_seen(trained):
    images, embedding = stripes(16, torch.Generator().manual_seed(3))
    assert not torch.allclose(trained.error(images, embedding), trained.error(images, embedding.flip(1)), rtol=1e-3)


def test_the_same_latents_give_the_same_image_and_others_another(trained):
    images, embedding = stripes(4, torch.Generator().manual_seed(4))
    images = images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
    latents = torch.randn(4, 64, generator=torch.Generator().manual_seed(6))
    once = trained(images, embedding, latents)
    assert torch.equal(once, trained(images, embedding, latents.clone()))
    others = latents.clone()
    others[2, 63] += 1e-3
    changed = (trained(images, embedding, others) != once).flatten(1).any(1)
    assert changed.tolist() == [False, False, True, False]


def test_no_image_has_an_influence_on_another(trained):
    images, embedding = stripes(5, torch.Generator().manual_seed(4))
    latents = torch.randn(5, 64, generator=torch.Generator().manual_seed(6))
    together = trained(images, embedding, latents)
    each = zip(images.split(1), embedding.split(1), latents.split(1), strict=True)
    alone = torch.cat([trained(*one) for one in each])
    assert torch.allclose(together, alone, atol=1e-5)


def test_validations_can_be_compared(trained):
    images, embedding = stripes(16, torch.Generator().manual_seed(7))
    once = trained.error(images, embedding)
    assert torch.equal(once, trained.error(images, embedding))
    assert torch.allclose(once[:5], trained.error(images[:5], embedding[:5]), rtol=1e-4)


@pytest.mark.parametrize(("channels", "shape"), [(3, (6, 10)), (1, (5, 7)), (2, (4, 6, 4))])
def test_any_channels_and_sizes(channels, shape):
    refiner = moved(Refiner(channels, shape, widths=(8, 16), embedding_size=0))
    images, embedding = torch.randn(3, channels, *shape), torch.zeros(3, 0)
    refined = refiner(images, embedding, torch.randn(3, 5))
    assert refined.shape == images.shape and bool(refined.isfinite().all()) and not torch.equal(refined, images)


# --- inside a network -------------------------------------------------------------------------------------------------


def network(**options):
    torch.manual_seed(0)
    return ConditionalINN((16, 16), 1, num_classes=2, **{**SMALL, **options}).eval()


def test_drawing_passes_it_and_nothing_else_does():
    inn = network()
    z, y = torch.randn(4, inn.num_latents), torch.tensor([0, 1, 1, 0])
    plain = inn.draw(z, y)
    assert not inn.has_refiner and torch.equal(plain, inn.draw(z, y, refined=False))
    decoded, log_prob = inn.decode(z, y), inn.log_prob(plain, y)
    with inn.learning("public"):
        moved(inn.refiner)
    assert inn.has_refiner and not torch.allclose(inn.draw(z, y), plain, atol=1e-2)
    assert torch.equal(inn.draw(z, y, refined=False), plain)
    assert torch.equal(inn.decode(z, y), decoded) and torch.equal(inn.log_prob(plain, y), log_prob)


def test_its_weights_count_in_the_fingerprint():
    inn = network()
    before = inn.fingerprint()
    moved(inn.refiner)
    assert inn.fingerprint() != before
    # Nobody said from what they were learnt.
    assert [event["protection"] for event in inn.training_events] == ["unprotected"]


def test_the_details_of_finer_levels_fit_what_it_has_changed():
    inn = network()
    z, y = torch.randn(4, inn.num_latents), torch.tensor([0, 1, 1, 0])
    moved(inn.refiner)
    coarser = [inn.split(inn.draw(z, y, refined=refined))[0][1] for refined in (True, False)]
    assert coarser[0].shape[1:] == (1, *inn.refined_shape) and not torch.allclose(*coarser, atol=1e-2)


@pytest.mark.parametrize(
    ("shape", "refined"), [((128, 128), (32, 32)), ((96, 128), (24, 32)), ((40, 40), (20, 20)), ((256, 64), (32, 8))]
)
def test_the_largest_coarser_image_of_at_most_32_is_refined(shape, refined):
    inn = ConditionalINN(shape, context_width=16, num_couplings=1, num_detail_couplings=1)
    assert tuple(inn.refined_shape) == refined and inn.refiner is not None


@pytest.mark.parametrize(
    "options",
    [{"refiner_width": 8}, {"refiner_width": -16}, {"refiner_width": 16, "num_levels": 1}, {"context_width": 0}],
)
def test_a_refiner_that_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match="refiner_width is .*expected a multiple of 16"):
        network(**{"refiner_width": 16, **options})


def test_small_images_and_volumes_have_none():
    assert ConditionalINN((28, 28)).refiner is None
    assert ConditionalINN((16, 16, 16), context_width=16, num_levels=2).refiner is None
