# SPDX-License-Identifier: Apache-2.0
"""Edges of draws are as strong as those of images: in every direction, at every scale, at every place."""

import math

import pytest
import torch

from monai_cadp.networks import ConditionalINN, calibrate_edges, calibrate_spectrum, fit_moments
from monai_cadp.networks.local_filter import DIRECTIONS, LocalFilter


def waves(direction, frequency=0.35, size=64):
    """An image of waves that run in one of eight directions over half a turn."""
    angle = math.pi * direction / DIRECTIONS
    down, across = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.cos(2 * math.pi * frequency * (down * math.sin(angle) + across * math.cos(angle)))[None, None]


def inside(x):
    return x[..., 16:-16, 16:-16]


def test_gains_of_one_change_nothing():
    x = torch.randn(2, 3, 40, 24)
    assert torch.equal(LocalFilter(3, (40, 24))(x), x)


@pytest.mark.parametrize("direction", range(DIRECTIONS))
def test_waves_of_one_direction_are_strengthened_and_others_are_not(direction):
    local_filter = LocalFilter(1, (64, 64))
    local_filter.gains[:, direction] = 2.0
    along, crossing = waves(direction), waves((direction + DIRECTIONS // 2) % DIRECTIONS)
    gain = inside(local_filter(along)).norm() / inside(along).norm()
    assert 1.5 < float(gain) < 2
    assert torch.allclose(inside(local_filter(crossing)), inside(crossing), atol=0.02)


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_waves_of_one_scale_are_strengthened_and_others_are_not(scale):
    local_filter = LocalFilter(1, (64, 64))
    local_filter.gains.unflatten(1, (-1, DIRECTIONS))[:, scale] = 2.0
    of_scale, finer = (waves(3, 0.35 / 2**octave) for octave in (scale, scale - 2))
    assert float(inside(local_filter(of_scale)).norm() / inside(of_scale).norm()) == pytest.approx(2, abs=0.05)
    if scale == 2:
        assert torch.allclose(inside(local_filter(finer)), inside(finer), atol=0.02)


def test_all_bands_together_are_the_image_but_for_what_is_coarser():
    local_filter = LocalFilter(1, (64, 64))
    local_filter.gains.fill_(2.0)
    x = sum(waves(direction, frequency) for direction, frequency in ((0, 0.4), (3, 0.2), (5, 0.1)))
    assert torch.allclose(inside(local_filter(x)), 2 * inside(x), atol=0.05)
    flat = torch.full((1, 1, 64, 64), 3.0)
    assert torch.allclose(local_filter(flat), flat, atol=1e-4)


def test_a_gain_acts_where_it_is():
    local_filter = LocalFilter(1, (64, 64))
    local_filter.gains[..., :2] = 2.0
    x = waves(2)
    difference = (local_filter(x) - x).abs().mean((0, 1, 2))
    assert float(difference[:8].min()) > 0.3 and float(difference[40:].max()) < 0.01


def test_channels_have_gains_of_their_own():
    local_filter = LocalFilter(2, (32, 32))
    local_filter.gains[1] = 2.0
    x = torch.randn(1, 2, 32, 32)
    y = local_filter(x)
    assert torch.allclose(y[:, 0], x[:, 0], atol=1e-5) and not torch.allclose(y[:, 1], x[:, 1], atol=0.5)


@pytest.mark.parametrize("shape", [(4, 4), (8, 12), (33, 20)])
def test_images_of_any_size_are_filtered(shape):
    local_filter = LocalFilter(1, shape)
    local_filter.gains.fill_(1.5)
    x = torch.randn(2, 1, *shape)
    assert local_filter(x).shape == x.shape and local_filter.strengths(x).shape[2:] == local_filter.gains.shape[1:]


def test_gains_stay_within_bounds_and_at_one_where_there_is_nothing():
    local_filter = LocalFilter(1, (32, 32))
    wanted = torch.ones_like(local_filter.gains)
    wanted[..., 0, 0] = 0
    found = wanted.clone()
    found[..., 1, 1], found[..., 2, 2] = 0.01, 100
    local_filter.strengthen(wanted, found)
    assert float(local_filter.gains[..., 0, 0].mean()) == pytest.approx(1, abs=1e-3)
    assert local_filter.gains.max() == 2.5 and float(local_filter.gains.min()) == pytest.approx(0.4)


# --- of a network -----------------------------------------------------------------------------------------------------


def striped(count=160, seed=0):
    """Images with stripes that run down the left half, and across the right one."""
    noise = torch.randn(count, 1, 48, 48, generator=torch.Generator().manual_seed(seed))
    down, across = (torch.nn.functional.avg_pool2d(noise, size, stride=1)[..., :40, :40] for size in ((9, 1), (1, 9)))
    return torch.cat([down[..., :20], across[..., 20:]], dim=3)


@pytest.fixture
def network():
    torch.manual_seed(0)
    inn = ConditionalINN((40, 40), 1, num_levels=2, context_width=16, num_couplings=0, num_detail_couplings=1)
    fit_moments(inn, lambda: [(striped(), None)])
    calibrate_spectrum(inn, lambda: [(striped(), None)])
    return inn


def anisotropy(x):
    """How much steeper images are across than down, on the left and on the right."""
    steep = [x.diff(dim=axis).abs()[..., :39, :39] for axis in (3, 2)]
    return [float(steep[0][..., half].mean() / steep[1][..., half].mean()) for half in (slice(0, 16), slice(24, 39))]


def test_edges_of_draws_get_the_directions_of_images_at_each_place(network):
    z = torch.randn(100, network.num_latents)
    before, of_images = anisotropy(network.draw(z).detach()), anisotropy(striped(seed=1))
    calibrate_edges(network, lambda: [(part, None) for part in striped().split(40)])
    after = anisotropy(network.draw(z).detach())
    assert of_images[0] > 2 > 0.5 > of_images[1]
    for side in range(2):
        assert abs(math.log(after[side] / of_images[side])) < 0.6 * abs(math.log(before[side] / of_images[side]))


def test_the_inverse_does_not_know_of_the_edges_and_the_record_does(network):
    x = striped(4)
    z, before = network.encode(x)[0], network.fingerprint()
    calibrate_edges(network, lambda: [(striped(), None)], training_data="public")
    assert torch.equal(network.encode(x)[0], z) and network.fingerprint() != before
    assert ("calibration", "public") in {(event["kind"], event["protection"]) for event in network.training_events}


@pytest.mark.slow
def test_calibrated_twice_is_calibrated_once(network):
    calibrate_edges(network, lambda: [(striped(), None)])
    once = network.local_filter.gains.clone()
    calibrate_edges(network, lambda: [(striped(), None)])
    assert torch.equal(network.local_filter.gains, once)


def test_a_checkpoint_from_before_there_was_the_filter_is_the_same_network(network):
    state = {name: tensor for name, tensor in network.state_dict().items() if name != "local_filter.gains"}
    again = ConditionalINN(**network.config)
    again.load_state_dict(state)
    assert again.fingerprint() == network.fingerprint()


def test_what_cannot_be_calibrated_is_refused(network, refused):
    fresh = ConditionalINN((40, 40), 1, num_levels=2, context_width=16, num_couplings=0, num_detail_couplings=1)
    with refused(ValueError, "calibrate its spectrum before"):
        calibrate_edges(fresh, lambda: [(striped(4), None)])
    with refused(ValueError, "No data came"):
        calibrate_edges(network, lambda: [])
    spoilt = striped(4)
    spoilt[0, 0, 0, 0] = torch.nan
    with refused(ValueError, "NaN or infinity"):
        calibrate_edges(network, lambda: [(spoilt, None)])
    volumes = ConditionalINN((8, 8, 8), 1, num_levels=1, context_width=16, num_couplings=0, num_detail_couplings=1)
    fit_moments(volumes, lambda: [(torch.randn(30, 1, 8, 8, 8), None)])
    calibrate_spectrum(volumes, lambda: [(torch.randn(30, 1, 8, 8, 8), None)])
    with refused(ValueError, "one of volumes"):
        calibrate_edges(volumes, lambda: [(torch.randn(4, 1, 8, 8, 8), None)])
