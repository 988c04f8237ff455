# SPDX-License-Identifier: Apache-2.0
"""One person moves noisy moments by the square root of two at most, and their noise is what is stated."""

from __future__ import annotations

import math

import pytest
import torch

from monai_cadp.privacy.discrete_gaussian import wide_squared_scale
from monai_cadp.privacy.noisy_moments import REPLACEMENT, noisy_second_moments
from monai_cadp.privacy.noisy_sum import SumLattice


@pytest.fixture(autouse=True)
def no_noise(request, monkeypatch):
    if "noise" not in request.node.name:
        monkeypatch.setattr(SumLattice, "noise", lambda self, like, *_: torch.zeros_like(like, dtype=torch.int64))


def moments(rows, group, **options):
    """Without noise, where the fixture takes it away."""
    return noisy_second_moments(rows, group, 3, 1.0, **options)


@pytest.mark.parametrize("size", [0.1, 1.0, 50.0, 1e30])
def test_replacing_one_person_moves_them_by_the_root_of_two_at_most_and_a_control_without_clipping_by_more(size):
    generator = torch.Generator().manual_seed(0)
    rows, group = torch.randn(20, 6, generator=generator), torch.arange(20) % 3
    largest = 0.0
    for _ in range(40):
        other, other_group = rows.clone(), group.clone()
        other[4] = size * torch.randn(6, generator=generator)
        other_group[4] = int(torch.randint(3, (), generator=generator))
        largest = max(largest, float((moments(rows, group) - moments(other, other_group)).norm()))
        if size > 10:
            unclipped = other[4].double()
            assert float(torch.outer(unclipped, unclipped).norm()) > 100
    assert (1.2 if size >= 1 else 0.5) < largest <= REPLACEMENT


def test_a_person_with_many_images_moves_them_no_further():
    rows, group = 9 * torch.randn(30, 4), torch.arange(30) % 3
    weights = torch.full((30,), 1 / 10)  # three people of ten images
    without = torch.arange(30) >= 10
    moved = moments(rows, group, weights=weights) - moments(rows[without], group[without], weights=weights[without])
    assert 0 < float(moved.norm()) <= 1.0


def test_they_are_the_moments_of_short_vectors_group_by_group():
    rows, group = 0.1 * torch.randn(7, 3), torch.tensor([0, 0, 2, 2, 2, 0, 0])
    found = moments(rows, group)
    for g in range(3):
        members = rows[group == g].double()
        torch.testing.assert_close(found[g], members.T @ members, atol=1e-4, rtol=0)


def test_whoever_brings_no_finite_numbers_counts_as_nobody():
    rows, group = torch.rand(5, 3), torch.zeros(5).long()
    rows[1, 0], rows[3, 2] = math.nan, math.inf
    rest = torch.tensor([0, 2, 4])
    torch.testing.assert_close(moments(rows, group), moments(rows[rest], group[rest]), atol=1e-4, rtol=0)


def is_noise_of(deviation, diagonal, above):
    """Each deviation of 24,000 normal numbers is wrong by 0.5 %; five times that is rarer than 1e-6."""
    return all(
        abs(float(values.std()) / deviation - 1) < 0.025
        and abs(float(values.mean())) < 5 * deviation / math.sqrt(values.numel())
        for values in (diagonal, above)
    ) and abs(float((diagonal * above).mean())) < 5 * deviation**2 / math.sqrt(above.numel())


@pytest.mark.slow
def test_noise_has_the_stated_deviation_in_every_coordinate_of_the_frobenius_norm_and_controls_are_rejected():
    found = torch.stack([noisy_second_moments(torch.zeros(1, 3), torch.zeros(1).long(), 3, 5.0) for _ in range(2667)])
    assert torch.equal(found, found.transpose(2, 3))
    diagonal = found.diagonal(dim1=2, dim2=3)
    rows, columns = torch.triu_indices(3, 3, offset=1)
    above = found[:, :, rows, columns]
    assert is_noise_of(5.0, diagonal, above * math.sqrt(2))
    for control in ((diagonal, above), (0.95 * diagonal, above * math.sqrt(2)), (diagonal, diagonal)):
        assert not is_noise_of(5.0, *control)


@pytest.mark.parametrize("noise_multiplier", [0.3, 5.0, 1000.0])
def test_the_noise_is_what_the_proof_needs_and_at_most_a_thousandth_more(monkeypatch, noise_multiplier):
    """One deviation of the noise, rounded up, stands in the place of every draw."""

    def deviation(lattice, like, *_):
        return torch.full_like(like, math.isqrt(wide_squared_scale(lattice.levels)) + 1)

    monkeypatch.setattr(SumLattice, "noise", deviation)
    found = noisy_second_moments(torch.zeros(1, 3), torch.zeros(1).long(), 1, noise_multiplier)[0]
    rows, columns = torch.triu_indices(3, 3, offset=1)
    for values in (found.diagonal(), math.sqrt(2) * found[rows, columns]):
        assert noise_multiplier <= float(values.min()) and float(values.max()) <= 1.001 * noise_multiplier
