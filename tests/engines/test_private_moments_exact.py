# SPDX-License-Identifier: Apache-2.0
"""Without noise, private moments are the moments; with noise, it is the stated one."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from monai_cadp.engines import PrivateMoments
from monai_cadp.networks import ConditionalINN
from monai_cadp.privacy.noisy_moments import noisy_second_moments
from monai_cadp.privacy.noisy_sum import SumLattice

# The least that is allowed; so many rows are not shrunk for it.
LEAST_NOISE = 0.25


@pytest.fixture
def quiet(monkeypatch):
    """Sums without their noise, for a fit that is told of a little."""
    monkeypatch.setattr(SumLattice, "noise", lambda self, like, *_: torch.zeros_like(like, dtype=torch.int64))


def classes(count, seed=0):
    """Three columns of two classes that differ in mean, spread and correlation."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 2
    mixing = torch.tensor(
        [[[1.0, 0.0, 0.0], [0.5, 0.8, 0.0], [0.2, 0.1, 0.6]], [[0.5, 0.3, 0.0], [0, 1, 0.2], [0, 0, 1]]]
    )
    mean = torch.tensor([[0.3, -0.4, 0.1], [-0.5, 0.2, 0.3]])
    return torch.einsum("nij,nj->ni", mixing[label], torch.randn(count, 3, generator=generator)) + mean[label], label


def fitted(inn, x, condition, noise=LEAST_NOISE, largest_norm=12.0, weights=None, **options):
    weights = torch.ones(len(x)) if weights is None else weights
    PrivateMoments(largest_norm, **options)(inn, [(x, condition)], weights, noise_multiplier=noise)
    return inn


def moments(x, weights=None):
    x = x.double()
    weights = torch.ones(len(x)).double() if weights is None else weights.double()
    mean = (weights[:, None] * x).sum(0) / weights.sum()
    return mean, (weights[:, None] * (x - mean)).T @ (x - mean) / weights.sum()


def test_without_noise_every_class_has_its_own_mean_and_covariance(quiet):
    """Up to what clipping takes from the few longest rows."""
    x, label = classes(40_000)
    inn = fitted(ConditionalINN((), 3, num_classes=2, num_couplings=0), x, label)
    for index in (0, 1):
        own = x[label == index]
        mean, covariance = moments(own)
        expected = MultivariateNormal(mean, covariance_matrix=covariance).log_prob(own.double())
        found = inn.log_prob(own, torch.full((len(own),), index)).double()
        assert float((found - expected).abs().quantile(0.99)) < 0.2
        z = inn.encode(own, label[label == index])[0]
        assert z.mean(0).abs().max() < 0.02 and (z.T.cov() - torch.eye(3)).abs().max() < 0.06


def test_people_with_many_images_count_as_much_as_those_with_one(quiet):
    """Ten images of weight 1/10 each move the mean as one image does."""
    x, _ = classes(2000)
    many = torch.cat([x, (x[:100] + 1.0).repeat_interleave(10, 0)])
    weights = torch.cat([torch.ones(2000), torch.full((1000,), 0.1)])
    inn = fitted(ConditionalINN((), 3, num_couplings=0), many, None, weights=weights)
    mean, _ = moments(many, weights)
    torch.testing.assert_close(inn.decode(torch.zeros(1, 3))[0].double(), mean, atol=0.01, rtol=0)


def test_without_noise_a_vector_is_regressed_upon_and_its_slope_is_the_true_one(quiet):
    generator = torch.Generator().manual_seed(0)
    condition = torch.randn(50_000, 2, generator=generator)
    slope = torch.tensor([[1.0, -0.5, 0.2], [0.3, 0.8, -0.6]])
    x = 0.7 + condition @ slope + 0.5 * torch.randn(50_000, 3, generator=generator)
    inn = fitted(ConditionalINN((), 3, condition_size=2, num_couplings=0), x, condition)
    z = inn.encode(x, condition)[0]
    assert z.mean(0).abs().max() < 0.03 and (z.T.cov() - torch.eye(3)).abs().max() < 0.1
    steps = inn.decode(torch.zeros(2, 3), torch.eye(2)) - inn.decode(torch.zeros(2, 3), torch.zeros(2, 2))
    torch.testing.assert_close(steps, slope, atol=0.06, rtol=0)


def test_without_noise_the_scale_outside_is_what_the_subspace_leaves_around_the_mean(quiet):
    """The mean lies far out in a direction of little variance, which the subspace must not take for one of much."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 36, generator=generator) * torch.tensor([2.0, 1.5] + [0.1] * 34)
    x[:, 5] += 4.0
    mixing = torch.linalg.qr(torch.randn(36, 36, generator=generator)).Q
    inn = ConditionalINN((6, 6), 1, rank=2, num_couplings=0, num_levels=0)
    fitted(inn, (x @ mixing.T).reshape(-1, 1, 6, 6), None, largest_norm=15.0)
    assert float(inn.whitening.residual_scale) == pytest.approx(0.1, rel=0.02)
    assert float((inn.whitening.basis.T @ mixing[:, :2]).square().sum()) == pytest.approx(2.0, abs=1e-3)


def test_images_that_are_too_large_are_scaled_down_to_the_largest_norm(quiet):
    x = torch.tensor([[100.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).repeat(500, 1)
    inn = fitted(ConditionalINN((), 3, num_couplings=0), x, None, largest_norm=2.0)
    torch.testing.assert_close(inn.whitening.mean, torch.tensor([1.0, 0.5, 0.0]), atol=5e-3, rtol=0)


def test_a_direction_without_variance_in_a_class_keeps_a_twentieth_of_the_pooled_one(quiet):
    x, label = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)), torch.arange(20_000) % 2
    x[label == 1, 1] = 0.0
    inn = fitted(ConditionalINN((), 2, num_classes=2, num_couplings=0), x, label)
    one, zero = torch.ones(2).long(), torch.zeros(2, 2)
    deviations = torch.linalg.svdvals(inn.decode(torch.eye(2), one) - inn.decode(zero, one))
    # The pooled variances are 1 and 1/2 in units of the data, and equal in those of the subspace.
    assert float(deviations.min()) == pytest.approx((0.05 * 0.5) ** 0.5, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_the_mean_has_the_noise_of_its_share_of_the_budget(share):
    """Its deviation over 300 fits of 3 numbers is known to 2.4 %; a sixth of it is seven times that.

    Off the diagonal the noise of a second moment is s / sqrt(2); the mean's entry lies beside a constant of 0.3, both
    divided by the length sqrt(1.09) of the longest row.
    """
    x, noise = torch.zeros(1000, 3), 4.0
    means = []
    for _ in range(300):
        inn = fitted(ConditionalINN((), 3, num_couplings=0), x, None, noise=noise, largest_norm=2.0, share=share)
        means.append(inn.whitening.mean.clone())
    stated = 2.0 * 1.09 / 0.3 * noise / math.sqrt(share) / math.sqrt(2) / 1000
    assert float(torch.stack(means).std()) == pytest.approx(stated, rel=1 / 6)


def test_the_longest_vector_counts_almost_as_one_and_never_as_more(quiet):
    rows = torch.tensor([[0.6, 0.8], [30.0, 40.0], [0.3, 0.4]])
    for row, length in zip(rows, (1.0, 1.0, 0.5), strict=True):
        found = noisy_second_moments(row[None], torch.zeros(1).long(), 1, LEAST_NOISE)[0]
        assert length**2 - 1e-4 < float(found.trace()) <= length**2 * (1 - 2**-30)
        direction = torch.tensor([[0.36, 0.48], [0.48, 0.64]]).double()
        # Of steps that are rounded towards zero.
        torch.testing.assert_close(found / found.trace(), direction, atol=2e-5, rtol=0)
