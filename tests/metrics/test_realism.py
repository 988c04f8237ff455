# SPDX-License-Identifier: Apache-2.0
"""Realism is what its papers define, in cases that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.metrics import frechet_distance, precision_recall


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


# Each one's nearest neighbour is 1, 1 and 3 away.
ORIGINALS = column(0.0, 1.0, 4.0)


@pytest.mark.parametrize(
    ("releases", "expected"),
    [
        # 6.9 is within 3 of 4, 7.1 is not; -0.9 is within 1 of 0, -1.1 is not.
        ((6.9, 7.1, -0.9, -1.1), 0.5),
        # On the edge counts as among.
        ((7.0, -1.0, 20.0, 30.0), 0.5),
    ],
)
def test_a_release_lies_among_originals_within_the_distance_to_their_nearest_neighbour(releases, expected):
    assert precision_recall(ORIGINALS, column(*releases), neighbours=1)[0] == expected


def test_with_two_neighbours_it_is_the_second_that_counts():
    """The second neighbours are 4, 3 and 4 away."""
    assert precision_recall(ORIGINALS, column(7.9, 8.1, -3.9, -4.1), neighbours=2)[0] == 0.5


def test_recall_is_precision_with_the_sets_exchanged():
    releases = column(-0.5, 0.1, 0.2, 0.9)
    precision, recall = precision_recall(ORIGINALS, releases, neighbours=1)
    assert (precision, recall) == (1.0, pytest.approx(2 / 3))
    assert precision_recall(releases, ORIGINALS, neighbours=1) == (recall, precision)


def test_there_may_be_one_neighbour_less_than_points_and_not_as_many(refused):
    assert precision_recall(ORIGINALS, ORIGINALS, neighbours=2) == (1.0, 1.0)
    for neighbours in (0, 3):
        with refused(ValueError, "expected 1 or more"):
            precision_recall(ORIGINALS, torch.cat([ORIGINALS, ORIGINALS]), neighbours=neighbours)


def exact_cloud(covariance, mean):
    """Points whose mean and unbiased covariance are exactly these."""
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    return x @ torch.linalg.cholesky(torch.tensor(covariance, dtype=torch.float64)).T + torch.tensor(mean)


@pytest.mark.parametrize(
    ("covariance", "mean", "expected"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], (3.0, 4.0), 25.0),
        # (3 - 1)^2 + (2 - 1)^2 for deviations that differ along the axes.
        ([[9.0, 0.0], [0.0, 4.0]], (0.0, 0.0), 5.0),
        # Eigenvalues 1.5 and 0.5: what is not on the diagonal counts.
        ([[1.0, 0.5], [0.5, 1.0]], (0.0, 0.0), (1.5**0.5 - 1) ** 2 + (0.5**0.5 - 1) ** 2),
    ],
)
def test_the_distance_of_two_sets_is_that_of_the_normal_distributions_with_their_moments(covariance, mean, expected):
    standard = exact_cloud([[1.0, 0.0], [0.0, 1.0]], (0.0, 0.0))
    for pair in [(standard, exact_cloud(covariance, mean)), (exact_cloud(covariance, mean), standard)]:
        assert frechet_distance(*pair) == pytest.approx(expected, abs=1e-5)
