# SPDX-License-Identifier: Apache-2.0
"""Nothing of an image passes the privatizer but what its mechanism lets through."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import beta

from monai_cadp import Privatizer
from monai_cadp.networks import ConditionalINN, ContentBasis, DeclaredContent
from monai_cadp.privacy import (
    PriorOnly,
    SubsetSelection,
)
from tests.release.privatizer.toys import (
    SHAPE,
    basis,
    constant,
    identity,
    images,
)


def test_with_a_constant_mechanism_the_release_is_the_same_to_the_bit_for_any_two_images(setting):
    inn, condition = setting
    privatizer = Privatizer(inn, constant(), basis(inn), temperature=0.0)
    first, second = images(6, seed=1), images(6, seed=2) * 100 - 50
    second[0] = math.nan
    assert torch.equal(privatizer(first, condition), privatizer(second, condition))


def test_the_proof_above_would_see_a_leak(inn):
    condition = torch.tensor([0, 1, 2])
    privatizer = Privatizer(inn, identity(), basis(inn), temperature=0.0)
    assert not torch.equal(privatizer(images(3, 1), condition), privatizer(images(3, 2), condition))


def test_with_an_identical_mechanism_the_content_comes_back(setting):
    inn, condition = setting
    content = basis(inn)
    x = images(6)
    released = Privatizer(inn, identity(), content, temperature=0.0)(x, condition)
    original, kept = (inn.encode(batch, condition)[0] for batch in (x, released))
    torch.testing.assert_close(content.project(kept), content.project(original), rtol=0, atol=1e-3)
    outside = kept - content.project(kept) @ content.directions.T
    assert outside.abs().max() < 1e-3


def test_with_all_directions_an_identical_mechanism_returns_the_image(setting):
    inn, condition = setting
    x = images(6)
    released = Privatizer(inn, identity(), basis(inn, k=inn.num_latents))(x, condition)
    torch.testing.assert_close(released, x, rtol=0, atol=1e-3)


def is_fresh_noise(outside, temperature):
    """Whether 4000 x 11 numbers may be normal ones of this deviation, and those of two images independent.

    Their mean square is within 5 of its deviations, 3.4 %, of the truth but for 6e-7, and that of sums of pairs, which
    are half as many, within 6.
    """
    number = len(outside) * (16 - 5)
    pairs = (outside[::2] + outside[1::2]) / 2**0.5
    return (
        abs(float(outside.square().sum()) / (number * temperature**2) - 1) < 0.034
        and abs(float(pairs.square().sum()) / (number / 2 * temperature**2) - 1) < 0.057
    )


def test_the_completion_is_fresh_noise_of_the_given_temperature_and_controls_are_rejected(inn):
    content = basis(inn)
    count = 4000
    condition = torch.zeros(count, dtype=torch.long)
    for temperature in (1.0, 0.5):
        privatizer = Privatizer(inn, constant(), content, temperature=temperature)
        z = inn.encode(privatizer(images(1).expand(count, *SHAPE), condition), condition)[0].detach()
        outside = z - content.project(z) @ content.directions.T
        assert is_fresh_noise(outside, temperature)
        # One noise for two images, and noise of a deviation that is a twentieth too large.
        for control in (outside[::2].repeat_interleave(2, dim=0), 1.05 * outside):
            assert not is_fresh_noise(control, temperature)


def test_what_the_mechanism_is_given_of_an_image_does_not_depend_on_other_images(setting):
    inn, condition = setting
    mechanism = identity()
    privatizer = Privatizer(inn, mechanism, basis(inn))
    x = images(6)
    privatizer(x, condition)
    for value in (math.nan, math.inf, 1e30, 0.0):
        others = x.clone()
        others[[0, 1, 3, 4, 5]] = value
        privatizer(others, condition)
        assert torch.equal(mechanism.seen[-1][2], mechanism.seen[0][2])


def test_prior_only_gives_two_images_the_same_law(inn):
    count = 4000
    condition = torch.zeros(count, dtype=torch.long)
    privatizer = Privatizer(inn, PriorOnly(), basis(inn))
    dark, bright = (privatizer(torch.full((count, *SHAPE), value), condition).flatten(1) for value in (0.0, 1.0))
    error = ((dark.var(0) + bright.var(0)) / count).sqrt()
    # 16 means of 4000 each: six deviations are passed with probability below 4e-8.
    assert ((dark.mean(0) - bright.mean(0)).abs() < 6 * error).all()


def test_the_test_above_would_see_a_mechanism_that_keeps_content(inn):
    count = 4000
    condition = torch.zeros(count, dtype=torch.long)
    privatizer = Privatizer(inn, SubsetSelection(epsilon=1.0, num_candidates=64), basis(inn))
    dark, bright = (privatizer(torch.full((count, *SHAPE), value), condition).flatten(1) for value in (0.0, 1.0))
    error = ((dark.var(0) + bright.var(0)) / count).sqrt()
    assert not ((dark.mean(0) - bright.mean(0)).abs() < 6 * error).all()


def largest_loss(first, second, confidence):
    """Lower bound of the largest log ratio of frequencies, right for all outcomes together with this confidence."""
    outcomes = torch.cat([first, second]).unique(dim=0, return_inverse=True)[1]
    size = int(outcomes.max()) + 1
    counts = [outcomes[: len(first)].bincount(minlength=size), outcomes[len(first) :].bincount(minlength=size)]
    alpha = (1 - confidence) / (4 * size)
    bounds = []
    for a, b in (counts, counts[::-1]):
        for seen_a, seen_b in zip(a.tolist(), b.tolist(), strict=True):
            low = beta.ppf(alpha, seen_a, len(first) - seen_a + 1) if seen_a else 0.0
            high = beta.ppf(1 - alpha, seen_b + 1, len(second) - seen_b) if seen_b < len(second) else 1.0
            bounds.append(math.log(low / high) if low > 0 else -math.inf)
    return max(bounds), size


def measured_loss(epsilon, content):
    """Loss of 20 000 releases each of two very different rows of a table, with 8 candidates of which 2 are best."""
    torch.manual_seed(0)
    inn = ConditionalINN((), 3, num_couplings=2, width=8)
    chosen = ContentBasis.leading(inn, 3) if content == "basis" else DeclaredContent(lambda x: x, num_candidates=8)
    privatizer = Privatizer(inn, SubsetSelection(epsilon, num_candidates=8, subset_size=2, num_blocks=1), chosen)
    first, second = ((privatizer(value * torch.ones(20000, 3)) * 1e3).round() for value in (1.0, -1.0))
    return largest_loss(first, second, confidence=1 - 1e-6)


@pytest.mark.parametrize("content", ["basis", "declared"])
def test_the_measured_loss_of_a_release_does_not_exceed_epsilon(content):
    loss, outcomes = measured_loss(1.0, content)
    assert outcomes == 8
    assert loss <= 1.0
    # All of the budget is used: the bound is near epsilon, so the test has power.
    assert loss > 0.6


@pytest.mark.parametrize("content", ["basis", "declared"])
def test_a_mechanism_that_spends_twice_its_epsilon_is_caught(content):
    assert measured_loss(2.0, content)[0] > 1.0


def test_a_detail_temperature_of_0_leaves_nothing_outside_of_the_subspace_and_the_content_as_it_is():
    torch.manual_seed(0)
    inn = ConditionalINN((4, 8), num_levels=1, rank=3, num_couplings=2, width=8)
    content = ContentBasis.leading(inn, 2)
    privatizer = Privatizer(inn, constant(), content, detail_temperature=0.0)
    z, _ = inn.encode(privatizer(images(200, shape=(1, 4, 8))))
    subspace = inn.whitening.basis
    assert (z[:, :8] - z[:, :8] @ subspace @ subspace.T).abs().max() < 1e-4 and z[:, 8:].abs().max() < 1e-4
    inside = z[:, :8] @ subspace
    assert inside[:, :2].abs().max() < 1e-4 and inside[:, 2].std() > 0.8


def with_refiner():
    torch.manual_seed(0)
    inn = ConditionalINN((16, 16), num_levels=2, num_couplings=2, context_width=16, num_detail_couplings=2)
    with inn.learning("public"), torch.no_grad():
        inn.refiner.last.weight.normal_(std=0.05)
    return inn


@pytest.mark.parametrize("refined", [True, False])
def test_images_pass_the_refiner_or_are_the_plain_inverse(refined):
    inn = with_refiner()
    declared = DeclaredContent(lambda x: x.mean((1, 2, 3))[:, None], num_candidates=64)
    x = images(3, shape=(1, 16, 16))
    # Whatever the content is, no latent is left of it.
    for mechanism, content in ((constant(), ContentBasis.leading(inn, 4)), (SubsetSelection(2.0), declared)):
        released = Privatizer(inn, mechanism, content, refined=refined, temperature=0.0)(x)
        assert torch.allclose(released, inn.draw(torch.zeros(3, 256), refined=refined), atol=1e-5)
        assert not torch.allclose(released, inn.draw(torch.zeros(3, 256), refined=not refined), atol=1e-3)


def test_a_refined_release_is_another_one_for_a_ledger_and_says_so():
    inn = with_refiner()
    content = ContentBasis.leading(inn, 4)
    refined, plain = (Privatizer(inn, PriorOnly(), content, refined=refined) for refined in (True, False))
    assert refined.identity != plain.identity and refined.with_mechanism(PriorOnly()).identity == refined.identity
    assert plain.with_mechanism(PriorOnly()).identity == plain.identity
    assert (refined.config()["refined"], plain.config()["refined"]) == (True, False)
