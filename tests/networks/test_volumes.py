# SPDX-License-Identifier: Apache-2.0
"""Levels that see their whole coarser image work in three dimensions, for volumes whose last channels are masks."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.data import join_masks, split_masks
from monai_cadp.networks import ConditionalINN, ContentBasis, calibrate_latents, calibrate_spectrum, fit_moments

SHAPE = (16, 24, 16)


def balls(count, seed=0):
    """Balls of many sizes and places in a noisy volume, with their masks."""
    generator = torch.Generator().manual_seed(seed)
    axes = [torch.arange(size) - (size - 1) / 2 for size in SHAPE]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    centres = torch.randn(count, 3, 1, 1, 1, generator=generator)
    radii = 4.5 + 0.5 * torch.randn(count, 1, 1, 1, generator=generator)
    masks = ((places - centres).norm(dim=1) < radii)[:, None].long()
    images = 0.3 + 0.4 * masks + 0.05 * torch.randn(count, 1, *SHAPE, generator=generator)
    return join_masks(images.clamp(0, 1), masks, 2, reach=3.0)


@pytest.fixture(scope="module")
def network():
    """Fitted, with weights that are not those of the identity, and calibrated."""
    torch.manual_seed(0)
    inn = ConditionalINN(
        SHAPE, 2, num_levels=2, context_width=16, num_detail_couplings=2, detail_width=16, refiner_width=16
    )
    volumes = balls(48)
    noisy = volumes + 0.01 * torch.randn(volumes.shape, generator=torch.Generator().manual_seed(1))
    fit_moments(inn, lambda: [(noisy, None)])
    inn.input_noise.fill_(0.01)
    for name, parameter in inn.named_parameters():
        if name.rpartition(".")[0].endswith("last") and parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.02)
    calibrate_latents(inn, lambda: [(balls(8, seed=2), None)])
    calibrate_spectrum(inn, lambda: [(volumes[:16], None)])
    return inn.eval()


def test_a_volume_is_split_to_few_places_and_into_three_dimensional_details(network):
    assert network.coarse_shape == (2, 4, 6, 4) and network.num_flows == 3
    assert [flow.dims_in[0] for flow in network.detail_flows] == [(14, 4, 6, 4), (14, 8, 12, 8)]


def test_decoding_takes_back_encoding(network):
    volumes = balls(3, seed=3)
    with torch.no_grad():
        z, log_det = network.encode(volumes)
        assert (network.decode(z) - volumes).abs().max() < 1e-4
    assert z.shape == (3, 2 * 16 * 24 * 16) and log_det.isfinite().all()


def test_draws_are_finite_and_in_the_range_of_the_volumes_and_have_masks(network):
    z = torch.randn(4, network.num_latents, generator=torch.Generator().manual_seed(4))
    drawn = network.draw(z)
    assert drawn.isfinite().all() and 0 <= float(drawn.min()) and float(drawn.max()) <= 1
    assert all(100 < int(mask.sum()) < 1500 for mask in split_masks(drawn, 2)[1])


def test_a_volume_s_draw_does_not_depend_on_those_beside_it(network):
    z = torch.randn(3, network.num_latents, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(network.draw(z)[1:2], network.draw(z[1:2]), atol=1e-4)


def test_the_filter_looks_at_all_three_axes_and_leaves_the_coarse_volume(network):
    gains = network.spectrum_gains
    assert gains.shape == (2, *SHAPE) and bool((gains[:, :4, :6, :4] == 1).all())
    assert all(not torch.allclose(gains, gains.flip(axis)) for axis in (1, 2, 3))


def test_its_content_basis_lies_in_the_coarse_volume(network):
    basis = ContentBasis.fit(network, 4, num_samples=4, in_subspace=True)
    assert basis.directions.shape[1] == 4 and basis.directions.shape[0] == 2 * 4 * 6 * 4


@pytest.mark.parametrize(
    ("shape", "coarse"),
    [
        ((16, 24, 16), (8, 12, 8)),
        ((32, 48, 32), (16, 24, 16)),
        ((64, 64, 64), (16, 16, 16)),
        ((96, 120, 96), (12, 15, 12)),
    ],
)
def test_a_volume_is_split_once_or_until_it_has_a_few_thousand_places(shape, coarse):
    assert ConditionalINN(shape, 1, context_width=16, num_couplings=0).coarse_shape[1:] == coarse


def test_only_the_finest_level_of_a_volume_folds_its_details():
    """A cell of 2 x 2 x 2 has eight times the details of a place: too many for the few places of a coarse volume."""
    inn = ConditionalINN(SHAPE, 1, num_levels=2, context_width=16)
    assert [flow.is_folded for flow in inn.detail_flows] == [False, True]
    inn = ConditionalINN(SHAPE, 1, num_levels=2, context_width=16, num_unfolded_levels=2)
    assert [flow.is_folded for flow in inn.detail_flows] == [False, False]
    assert all(flow.is_folded for flow in ConditionalINN((32, 32), 1, context_width=16).detail_flows)


def test_a_negative_number_of_levels_is_refused(refused):
    with refused(ValueError, "num_unfolded_levels is -1"):
        ConditionalINN(SHAPE, 1, context_width=16, num_unfolded_levels=-1)
