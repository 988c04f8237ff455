# SPDX-License-Identifier: Apache-2.0
"""Batches are independent coins, nobody moves a sum by more than the bound, noise is Gaussian."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest

from monai_cadp.privacy.noisy_sum import clipped_sum, gaussian_noise, poisson_batch


def difference(first, second):
    return math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(first, second, strict=True)))


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3, 1e30])
def test_nobody_moves_a_sum_by_more_than_the_bound_and_a_twin_that_clips_parts_does(size):
    def by_parts(rows, bound):
        return [clipped_sum([part], bound)[0] for part in rows]

    rows = [torch.randn(9, 4), size * torch.randn(9, 2, 3), size * torch.randn(9)]
    without = [part[1:] for part in rows]
    assert difference(clipped_sum(rows, 0.5), clipped_sum(without, 0.5)) <= 0.5
    if size >= 1:
        assert difference(by_parts(rows, 0.5), by_parts(without, 0.5)) > 0.5


def test_short_contributions_are_added_as_they_are():
    rows = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0, 6.0])]
    assert [part.tolist() for part in clipped_sum(rows, 100.0)] == [[4.0, 6.0], 11.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_whoever_brings_no_finite_numbers_counts_as_nobody(value):
    rows = [torch.ones(3, 2), torch.ones(3)]
    rows[0][1, 1] = value
    assert [part.tolist() for part in clipped_sum(rows, 10.0)] == [[2.0, 2.0], 2.0]


def test_the_sum_of_nobody_is_zero():
    assert [part.tolist() for part in clipped_sum([torch.zeros(0, 2), torch.zeros(0)], 1.0)] == [[0.0, 0.0], 0.0]


def gaussian(values, deviation):
    """Whether values may come from a normal distribution of this deviation; wrong with a probability of 1e-6."""
    spread = float(values.std()) / deviation
    return kstest(values / deviation, "norm").pvalue > 5e-7 and abs(spread - 1) < 5.1 / math.sqrt(2 * len(values))


def test_noise_is_gaussian_of_the_stated_deviation_and_a_twin_off_by_three_percent_is_rejected():
    values = gaussian_noise(torch.zeros(100_001), deviation=3.0)
    assert values.shape == (100_001,) and values.dtype == torch.float64
    assert gaussian(values, 3.0) and not gaussian(1.03 * values, 3.0)
    # A correlation of independent values deviates by 0.0045: five times that is rarer than 1e-6.
    half = values[:50_000] * values[50_000:100_000] / 9
    assert abs(float(half.mean())) < 5 * 50_000**-0.5


def test_noise_is_fresh_unless_a_test_brings_its_generator():
    like = torch.zeros(2, 3)
    assert not torch.equal(gaussian_noise(like, 1.0), gaussian_noise(like, 1.0))
    first, second = (gaussian_noise(like, 1.0, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, second) and first.shape == like.shape


def test_every_image_enters_a_batch_by_its_own_coin():
    """Counts are binomial; six deviations from the mean are rarer than 1e-6."""
    count, rate = 40_000, 0.3
    one, other = (torch.zeros(count, dtype=torch.bool).index_fill(0, poisson_batch(count, rate), True) for _ in "ab")
    for inside, probability in ((one, rate), (other, rate), (one & other, rate**2), (one[1:] & one[:-1], rate**2)):
        # Neighbouring pairs overlap, which at most triples the variance.
        deviation = math.sqrt(3 * count * probability * (1 - probability))
        assert abs(int(inside.sum()) - count * probability) < 6 * deviation
    assert len(poisson_batch(count, 1.0)) == count and len(poisson_batch(count, 2.0**-60)) == 0
