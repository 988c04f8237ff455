# SPDX-License-Identifier: Apache-2.0
"""Moments with noise: close to the exact ones where there are many people, and a usable network where there are few."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.engines import PrivateMoments
from monai_cadp.networks import ConditionalINN, fit_moments
from monai_cadp.privacy.training_accounting import NoisySums, training_epsilon

SMALL = {"rank": 4, "num_couplings": 0}


def images(count, seed=0):
    """Images of three classes with means and spreads of their own."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 3
    inside = (
        torch.randn(count, 4, generator=generator) * torch.tensor([1.0, 0.6, 0.4, 0.3]) * (1 + 0.3 * label)[:, None]
    )
    inside = inside + torch.stack([label - 1.0, 0.5 * (label == 1), 0 * label, 0 * label], dim=1)
    mixing = torch.linalg.qr(torch.randn(36, 4, generator=torch.Generator().manual_seed(9))).Q
    x = 0.5 + inside @ mixing.T + 0.05 * torch.randn(count, 36, generator=generator)
    return x.reshape(count, 1, 6, 6), label


def network():
    return ConditionalINN((6, 6), 1, num_classes=3, num_levels=0, **SMALL)


def likelihood(inn):
    x, label = images(2000, seed=5)
    with torch.no_grad():
        return float(inn.log_prob(x, label).mean()) / 36


def test_of_many_people_they_are_nearly_the_exact_moments():
    x, label = images(200_000)
    exact, noisy = network(), network()
    fit_moments(exact, lambda: [(x, label)])
    PrivateMoments(largest_norm=6.0)(noisy, [(x, label)], torch.ones(len(x)), noise_multiplier=2.0)
    assert likelihood(noisy) > likelihood(exact) - 0.03
    new = network()
    assert likelihood(exact) > likelihood(new) + 0.3


def smooth_images(count, seed=0):
    """Images of a few low cosines, and a little noise, on a grid where all cosines are many."""
    generator = torch.Generator().manual_seed(seed)
    position = torch.arange(16) + 0.5
    rows = torch.stack([torch.cos(torch.pi * k * position / 16) for k in (0, 1, 2)])
    x = torch.einsum("bij,ih,jw->bhw", torch.randn(count, 3, 3, generator=generator) * 0.3, rows, rows)
    return (x + 0.02 * torch.randn(count, 16, 16, generator=generator))[:, None], torch.zeros(count, dtype=torch.long)


def test_of_smooth_images_a_few_cosines_are_known_better_than_all():
    x, label = smooth_images(2000)
    unseen = smooth_images(500, seed=1)[0]
    found = {}
    for frequencies in (4, None):
        inn = ConditionalINN((16, 16), 1, num_classes=1, num_levels=0, rank=9, num_couplings=0)
        PrivateMoments(8.0, num_frequencies=frequencies)(inn, [(x, label)], torch.ones(len(x)), noise_multiplier=4.0)
        inside = (unseen.flatten(1) - inn.whitening.mean) @ inn.whitening.basis
        left = unseen.flatten(1) - inn.whitening.mean - inside @ inn.whitening.basis.T
        found[frequencies] = float(left.square().sum() / unseen.square().sum())
    assert found[4] < 0.05 < found[None]


def test_what_cosines_leave_is_a_part_of_the_scale_outside():
    x, label = smooth_images(5000)
    inn = ConditionalINN((16, 16), 1, num_classes=1, num_levels=0, rank=9, num_couplings=0)
    PrivateMoments(30.0, num_frequencies=3)(inn, [(x, label)], torch.ones(len(x)), noise_multiplier=0.001)
    assert float(inn.whitening.residual_scale) == pytest.approx(0.02, rel=0.05)


def test_fewer_cosines_than_the_subspace_has_dimensions_are_refused(refused):
    x, label = images(10)
    with refused(ValueError, "makes 1 cosines"):
        PrivateMoments(6.0, num_frequencies=1)(network(), [(x, label)], torch.ones(10), noise_multiplier=1.0)


@pytest.mark.parametrize("num_frequencies", [0, -3])
def test_a_number_of_cosines_that_is_none_is_refused(refused, num_frequencies):
    with refused(ValueError, "num_frequencies is"):
        PrivateMoments(6.0, num_frequencies=num_frequencies)


@pytest.mark.parametrize("count", [3, 50])
def test_of_few_people_noise_leaves_a_network_that_still_inverts(count):
    x, label = images(count)
    inn = network()
    PrivateMoments(largest_norm=6.0)(inn, [(x, label)], torch.ones(count), noise_multiplier=5.0)
    z, log_det = inn.encode(x, label)
    assert bool(z.isfinite().all()) and bool(log_det.isfinite().all())
    torch.testing.assert_close(inn.decode(z, label), x, atol=1e-3, rtol=1e-3)


def test_conditions_that_are_vectors_are_regressed_upon():
    generator = torch.Generator().manual_seed(0)
    condition = torch.randn(100_000, 2, generator=generator)
    x = condition @ torch.tensor([[1.0, 0.0, 0.5], [0.0, -1.0, 0.5]]) + 0.3 * torch.randn(
        100_000, 3, generator=generator
    )
    inn = ConditionalINN((), 3, condition_size=2, num_couplings=0)
    PrivateMoments(largest_norm=5.0)(inn, [(x, condition)], torch.ones(len(x)), noise_multiplier=1.0)
    with torch.no_grad():
        z = inn.encode(x, condition)[0]
    correlation = torch.corrcoef(torch.cat([z, condition], dim=1).T)[:3, 3:]
    assert float(correlation.abs().max()) < 0.15 and float((z.std(0) - 1).abs().max()) < 0.15


def test_what_is_accounted_for_is_what_one_moment_of_all_the_budget_would_be():
    whole = training_epsilon([NoisySums(4.0, replacement=2**0.5)], 1e-5)
    for share in (0.2, 0.5):
        parts = PrivateMoments(1.0, share).sums(4.0)
        assert training_epsilon(parts, 1e-5) == pytest.approx(whole, rel=0.01)


def test_numbers_that_are_not_finite_do_no_harm():
    x, label = images(5000)
    x[3] = float("nan")
    x[4] = float("inf")
    inn = network()
    PrivateMoments(largest_norm=6.0)(inn, [(x, label)], torch.ones(len(x)), noise_multiplier=0.5)
    assert all(bool(tensor.isfinite().all()) for tensor in inn.buffers() if tensor.is_floating_point())


def test_what_cannot_be_fitted_is_refused(refused):
    with refused(ValueError, "largest_norm"):
        PrivateMoments(0.0)
    with refused(ValueError, "share"):
        PrivateMoments(1.0, share=1.0)
    aligned = ConditionalINN((8, 8), 1, num_levels=1, num_maps=1, **SMALL)
    with refused(ValueError, "learned maps"):
        PrivateMoments(1.0)(aligned, [(torch.rand(2, 1, 8, 8), None)], torch.ones(2), 1.0)
    with refused(ValueError, "No data"):
        PrivateMoments(1.0)(network(), [], torch.ones(0), 1.0)
