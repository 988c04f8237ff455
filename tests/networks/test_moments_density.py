# SPDX-License-Identifier: Apache-2.0
"""A fitted network without couplings is the normal distribution that its moments say, to the last constant."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import MultivariateNormal

from monai_cadp.networks import ConditionalINN, fit_moments


def correlated(count, size, seed, classes=1):
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % classes
    mixing = torch.eye(size) + 0.4 * torch.randn(classes, size, size, generator=generator)
    mean = torch.randn(classes, size, generator=generator)
    x = torch.einsum("nij,nj->ni", mixing[label], torch.randn(count, size, generator=generator)) + mean[label]
    return x, label


def density(mean, covariance, x):
    return MultivariateNormal(mean, covariance_matrix=covariance).log_prob(x.double())


def moments(x):
    x = x.double()
    return x.mean(0), (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)


def test_of_one_group_the_density_is_that_of_mean_and_covariance():
    x, _ = correlated(300, 5, seed=0)
    inn = ConditionalINN((), 5, num_couplings=0)
    fit_moments(inn, lambda: [(x, None)])
    torch.testing.assert_close(inn.log_prob(x).double(), density(*moments(x), x), atol=2e-3, rtol=0)


@pytest.mark.parametrize("counts", [(200, 200), (400, 7), (30, 3)])
def test_a_class_has_its_own_mean_and_a_covariance_shrunk_by_its_size(counts):
    """Of n samples in K dimensions the class's own covariance counts n / (n + K), the pooled one the rest."""
    size = 4
    parts = [correlated(count, size, seed)[0] for seed, count in enumerate(counts)]
    x, label = torch.cat(parts), torch.repeat_interleave(torch.arange(2), torch.tensor(counts))
    inn = ConditionalINN((), size, num_classes=2, num_couplings=0)
    fit_moments(inn, lambda: [(x, label)])
    own = [moments(part) for part in parts]
    pooled = sum(count * covariance for count, (_, covariance) in zip(counts, own, strict=True)) / sum(counts)
    for index, (count, (mean, covariance)) in enumerate(zip(counts, own, strict=True)):
        share = count / (count + size)
        expected = density(mean, share * covariance + (1 - share) * pooled, x)
        found = inn.log_prob(x, torch.full((len(x),), index)).double()
        torch.testing.assert_close(found, expected, atol=5e-3, rtol=1e-4)


def test_outside_of_the_subspace_all_directions_share_one_variance():
    """Principal components: the leading two as they are, the mean of the other variances in all other directions."""
    x, _ = correlated(500, 16, seed=3)
    x = x * torch.linspace(3, 0.3, 16)
    x = x / x.std()
    images = x.reshape(-1, 1, 4, 4)
    inn = ConditionalINN((4, 4), rank=2, num_couplings=0, num_levels=0)
    fit_moments(inn, lambda: [(images, None)])
    mean, covariance = moments(x)
    values, vectors = torch.linalg.eigh(covariance)
    values[:-2] = values[:-2].mean()
    expected = density(mean, vectors @ values.diag() @ vectors.T, x)
    torch.testing.assert_close(inn.log_prob(images).double(), expected, atol=5e-3, rtol=1e-4)


def test_a_condition_that_explains_nearly_everything_leaves_the_rest_white():
    """The ridge of the regression costs a thousandth of the slope, and nothing of the variance beside it."""
    generator = torch.Generator().manual_seed(0)
    condition = torch.randn(20_000, 2, generator=generator)
    rest = torch.randn(20_000, 3, generator=generator)
    x = 5.0 + condition @ torch.tensor([[1.0, 0.5, -1.0], [0.2, 1.0, 1.0]]) + 0.02 * rest
    inn = ConditionalINN((), 3, condition_size=2, num_couplings=0)
    fit_moments(inn, lambda: [(x, condition)])
    z = inn.encode(x, condition)[0]
    assert z.mean(0).abs().max() < 0.01
    assert (z.T.cov() - torch.eye(3)).abs().max() < 0.05
    # Another mean of the condition is another mean of the data.
    moved = inn.encode(x + torch.tensor([1.0, 0.5, -1.0]), condition + torch.tensor([1.0, 0.0]))[0]
    assert (moved - z).abs().max() < 0.2


def test_a_direction_without_variance_keeps_a_hundred_thousandth_of_the_largest():
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    x = torch.stack([x[:, 0] + x[:, 1], x[:, 0] + x[:, 1]], dim=1)
    inn = ConditionalINN((), 2, num_couplings=0)
    fit_moments(inn, lambda: [(x, None)])
    deviations = torch.linalg.svdvals(inn.decode(torch.eye(2)) - inn.decode(torch.zeros(2, 2)))
    assert float(deviations.min() / deviations.max()) == pytest.approx(1e-5**0.5, rel=0.01)
