# SPDX-License-Identifier: Apache-2.0
"""Batches are drawn independently, nobody moves a sum by more than the bound, noise is Gaussian."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from scipy.stats import kstest

from monai_cadp.privacy.discrete_gaussian import continuous_deviation, wide_squared_scale
from monai_cadp.privacy.noisy_sum import SumLattice, poisson_batch


def difference(first, second):
    return math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(first, second, strict=True)))


def lattice(bound, multiplier=1.0):
    return SumLattice(bound, multiplier)


def clipped_sum(rows, bound):
    """In units of the contributions."""
    chosen = lattice(bound)
    return [chosen.step * part for part in chosen.clipped_sum(rows)]


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3, 1e30])
def test_nobody_moves_a_sum_by_more_than_the_bound_and_a_control_that_clips_parts_does(size):
    def by_parts(rows):
        return [lattice(0.5).clipped_sum([part])[0] for part in rows]

    rows = [torch.randn(9, 4), size * torch.randn(9, 2, 3), size * torch.randn(9)]
    without = [part[1:] for part in rows]
    moved = difference(lattice(0.5).clipped_sum(rows), lattice(0.5).clipped_sum(without))
    # Integers: exactly, without any tolerance.
    assert moved**2 <= lattice(0.5).bound ** 2
    if size >= 1:
        assert difference(by_parts(rows), by_parts(without)) > lattice(0.5).bound


def test_sums_are_integers_and_no_contribution_is_longer_than_the_bound_in_exact_arithmetic():
    """Lengths on the edge, where floating-point norms are wrong in the last digits."""
    chosen = lattice(1.0, 0.25)
    for seed in range(200):
        row = torch.randn(1, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        (steps,) = chosen.clipped_sum([row / row.norm() * (1 + (seed - 100) * 1e-16)])
        assert torch.equal(steps, steps.round())
        assert 0 < sum(int(step) ** 2 for step in steps.tolist()) <= chosen.bound**2


def test_a_proposal_that_is_too_long_counts_as_nobody(monkeypatch):
    """Whatever floating-point arithmetic proposes, the exact sum of squares decides."""
    norm = torch.Tensor.norm
    monkeypatch.setattr(torch.Tensor, "norm", lambda self, *args, **options: norm(self, *args, **options) * (1 - 1e-6))
    assert not lattice(1.0).clipped_sum([torch.full((1, 3), 9.0)])[0].any()
    assert lattice(1.0).clipped_sum([torch.full((1, 3), 0.1)])[0].any()


@pytest.mark.parametrize("multiplier", [0.25, 0.7, 3.0, 40.0, 1e4, 1e6])
def test_noise_is_never_less_than_the_accountant_is_told_and_hardly_more(multiplier):
    chosen = lattice(0.1, multiplier)
    deviation = continuous_deviation(wide_squared_scale(chosen.levels))
    assert 1 <= deviation / (Fraction(multiplier) * chosen.bound) < 1 + Fraction(1, chosen.bound) * 2
    assert chosen.bound**2 < 2**53


@pytest.mark.parametrize("multiplier", [0.0, -1.0, 1e-3, 1e12, math.nan])
def test_a_multiplier_out_of_range_is_refused(multiplier, refused):
    with refused(ValueError, "noise_multiplier"):
        lattice(1.0, multiplier)


def test_short_contributions_are_added_as_they_are_and_stay_as_they_are():
    rows = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0, 6.0], dtype=torch.float64)]
    found = clipped_sum(rows, 100.0)
    assert found[0].tolist() == pytest.approx([4.0, 6.0], abs=1e-5) and float(found[1]) == pytest.approx(11, abs=1e-5)
    assert rows[1].tolist() == [5.0, 6.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_whoever_brings_no_finite_numbers_counts_as_nobody(value):
    rows = [torch.ones(3, 2), torch.ones(3)]
    rows[0][1, 1] = value
    rest = [part[[0, 2]] for part in rows]
    assert all(map(torch.equal, clipped_sum(rows, 10.0), clipped_sum(rest, 10.0)))


def test_the_sum_of_nobody_is_zero():
    assert [part.tolist() for part in clipped_sum([torch.zeros(0, 2), torch.zeros(0)], 1.0)] == [[0.0, 0.0], 0.0]


def gaussian(values, deviation):
    """Whether values may come from a normal distribution of this deviation; wrong with a probability of 1e-6."""
    spread = float(values.std()) / deviation
    return kstest(values / deviation, "norm").pvalue > 5e-7 and abs(spread - 1) < 5.1 / math.sqrt(2 * len(values))


def test_noise_is_gaussian_of_the_stated_deviation_and_a_control_off_by_three_percent_is_rejected():
    (values,) = lattice(1.5, 2.0).noisy([torch.zeros(100_001, dtype=torch.float64)])
    assert values.shape == (100_001,) and values.dtype == torch.float64
    assert gaussian(values, 3.0) and not gaussian(1.03 * values, 3.0)
    # A correlation of independent values deviates by 0.0045: five times that is rarer than 1e-6.
    half = values[:50_000] * values[50_000:100_000] / 9
    assert abs(float(half.mean())) < 5 * 50_000**-0.5


def test_noise_is_fresh_unless_a_test_brings_its_generator():
    like = torch.zeros(2, 3)
    noise = lattice(1.0).noise
    assert not torch.equal(noise(like), noise(like))
    first, second = (noise(like, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, second) and first.shape == like.shape


def enter_alone(one, other, rate):
    """Whether two batches may be of independent draws; six deviations from the mean are rarer than 1e-6."""
    count = len(one)
    return all(
        abs(int(inside.sum()) - count * probability) < 6 * math.sqrt(variance * count * probability * (1 - probability))
        # Neighbouring pairs overlap, which at most triples the variance.
        for inside, probability, variance in (
            (one, rate, 1),
            (other, rate, 1),
            (one & other, rate**2, 1),
            (one[1:] & one[:-1], rate**2, 3),
        )
    )


def test_every_image_enters_a_batch_by_a_draw_of_its_own_and_controls_that_share_draws_are_rejected():
    count, rate = 40_000, 0.3
    one, other = (torch.zeros(count, dtype=torch.bool).index_fill(0, poisson_batch(count, rate), True) for _ in "ab")
    assert enter_alone(one, other, rate)
    pairs = one[: count // 2].repeat_interleave(2)
    for first, second in ((one, one), (pairs, other), (one | (torch.arange(count) % 20 == 0), other)):
        assert not enter_alone(first, second, rate)
    assert len(poisson_batch(count, 1.0)) == count and len(poisson_batch(count, 2.0**-60)) == 0
