# SPDX-License-Identifier: Apache-2.0
"""Draws are on the scale, in the grey values and with the masks that all images have."""

import pytest
import torch

from monai_cadp.data import join_masks, split_masks
from monai_cadp.networks import ConditionalINN, calibrate_format, calibrate_histogram, calibrate_spectrum, fit_moments
from monai_cadp.networks.image_format import ImageFormat


def smooth(count=40, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.avg_pool2d(torch.randn(count, 1, size + 4, size + 4, generator=generator), 5, stride=1)


def percentiles(x, *shares):
    return torch.quantile(x.flatten(2), torch.tensor(shares), dim=2)


def on_one_scale(x):
    """Images of which a hundredth is below 0.1, and a hundredth above 0.8."""
    dark, bright = (mark[..., None, None] for mark in percentiles(x, 0.01, 0.99))
    return (0.1 + 0.7 * (x - dark) / (bright - dark)).clamp(0, 1)


def discs(count=60, size=24, seed=0, pieces=1):
    """Images with the channel of a mask that is a disc, or several, of radii from 3 to 5."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).float()
    masks = torch.zeros(count, 1, size, size)
    for mask in masks:
        radius = 3 + 2 * torch.rand((), generator=generator)
        for piece in range(pieces):
            middle = torch.tensor([size / 2, (piece + 0.5) * size / pieces])
            mask[0, (place - middle[:, None, None]).square().sum(0) < radius**2] = 1
    return join_masks(smooth(count, size, seed), masks, num_classes=2, reach=3.0)


def fitted(*batches, num_masks=0):
    image_format = ImageFormat(batches[0].shape[1])
    image_format.fit(batches, num_masks)
    return image_format


# --- the scale --------------------------------------------------------------------------------------------------------


def test_draws_get_the_percentiles_that_all_images_have():
    found = fitted(*on_one_scale(smooth()).split(16))
    drawn = 1.5 * on_one_scale(smooth(seed=1)) - 0.2
    marks = percentiles(found.scaled(drawn), 0.01, 0.99)
    assert float((marks[0] - 0.1).abs().max()) < 0.02 and float((marks[1] - 0.8).abs().max()) < 0.02
    assert float((percentiles(drawn, 0.99) - 0.8).abs().min()) > 0.1


def test_images_that_differ_in_their_percentiles_leave_draws_as_they_are():
    x = on_one_scale(smooth()) * torch.linspace(0.8, 1, 40).reshape(-1, 1, 1, 1)
    drawn = torch.rand(3, 1, 16, 16)
    assert torch.equal(fitted(x).scaled(drawn), drawn)


def test_a_draw_without_contrast_is_not_blown_up():
    drawn = 0.5 + 1e-4 * smooth(2)
    assert float(fitted(on_one_scale(smooth())).scaled(drawn).std()) < 1e-3


def test_every_channel_has_a_scale_of_its_own():
    x = torch.cat([on_one_scale(smooth()), smooth(seed=1)], dim=1)
    drawn = torch.cat([3 * smooth(seed=2), 3 * smooth(seed=3)], dim=1)
    scaled = fitted(x).scaled(drawn)
    assert torch.equal(scaled[:, 1], drawn[:, 1]) and not torch.allclose(scaled[:, 0], drawn[:, 0], atol=0.1)


# --- grey values ------------------------------------------------------------------------------------------------------


def test_draws_have_the_grey_values_of_eight_bits():
    x = (255 * on_one_scale(smooth())).round() / 255
    drawn = torch.rand(4, 1, 16, 16)
    stored = fitted(x).stored(drawn)
    assert torch.allclose(255 * stored, (255 * stored).round(), atol=1e-3)
    assert float((stored - drawn).abs().max()) <= 0.5001 / 255


def test_steps_are_found_where_volumes_have_steps_of_their_own_and_were_clipped():
    whole = (100 * smooth()).round()
    dark, bright = (mark[..., None, None] for mark in percentiles(whole, 0.02, 0.98))
    x = ((whole - dark) / (bright - dark)).clamp(-0.013, 1.013)
    steps = 1 / (bright - dark)
    assert float(fitted(x).steps) == pytest.approx(float(steps.median()), rel=0.1)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_images_without_steps_leave_draws_as_they_are(share):
    x = smooth()
    x[: int(40 * share)] = (50 * x[: int(40 * share)]).round() / 50
    drawn = torch.rand(3, 1, 16, 16)
    assert torch.equal(fitted(x).stored(drawn), drawn)


def test_images_of_one_value_say_nothing_of_steps():
    x = (255 * on_one_scale(smooth())).round() / 255
    assert float(fitted(torch.cat([torch.zeros(30, 1, 16, 16), x])).steps) == pytest.approx(1 / 255, rel=1e-3)
    assert float(fitted(torch.zeros(3, 1, 16, 16)).steps) == 0


# --- masks ------------------------------------------------------------------------------------------------------------


def with_masks(found, drawn):
    return found.stored(found.sized(drawn))


def sizes(joined):
    return split_masks(joined, 2)[1].flatten(1).sum(1)


def test_masks_of_draws_are_as_large_as_the_means_of_their_channels_say():
    """A draw whose channel rises too slowly has too small a mask by far, and the right mean."""
    found, x = fitted(discs(), num_masks=1), discs(seed=1)
    blurred = x.clone()
    blurred[:, 1:] = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x[:, 1:], (3,) * 4), 7, stride=1)
    before, after = sizes(blurred), sizes(with_masks(found, blurred))
    assert float((before / sizes(x)).median()) < 0.7
    assert float((after / sizes(x) - 1).abs().max()) < 0.1


def test_masks_of_images_stay_as_large_as_they_are():
    x = discs(seed=1)
    assert float((sizes(with_masks(fitted(discs(), num_masks=1), x)) / sizes(x) - 1).abs().max()) < 0.05


@pytest.mark.parametrize("pieces", [1, 2])
def test_masks_of_draws_have_no_more_pieces_than_those_of_images(pieces):
    x = discs(pieces=pieces)
    specked = x.clone()
    specked[:, 1, 1:3, 1:3], specked[:, 1, 21:23, 21:23] = 1.0, 1.0
    masks = split_masks(with_masks(fitted(x, num_masks=1), specked), 2)[1]
    assert not masks[:, 0, 1:3, 1:3].any() and not masks[:, 0, 21:23, 21:23].any()
    assert float((masks.flatten(1).sum(1) / sizes(x) - 1).abs().max()) < 0.2


def test_a_class_that_is_in_no_image_is_in_no_draw():
    x = discs()
    x[:, 1] = 0
    assert int(sizes(with_masks(fitted(x, num_masks=1), discs(seed=1))).sum()) == 0


def test_an_image_is_no_mask_unless_somebody_says_so():
    drawn = torch.rand(2, 2, 24, 24)
    assert torch.equal(with_masks(fitted(discs()), drawn), drawn)


# --- all three --------------------------------------------------------------------------------------------------------


def test_what_was_not_looked_for_leaves_draws_as_they_are():
    drawn = torch.randn(2, 3, 4, 4)
    assert torch.equal(with_masks(ImageFormat(3), drawn), drawn) and torch.equal(ImageFormat(3).scaled(drawn), drawn)


def test_no_draw_has_an_influence_on_another():
    x = discs()
    x[:, :1] = (255 * on_one_scale(x[:, :1])).round() / 255
    found, drawn = fitted(x, num_masks=1), 1.2 * discs(4, seed=1)
    together = with_masks(found, found.scaled(drawn))
    alone = torch.cat([with_masks(found, found.scaled(one)) for one in drawn.split(1)])
    assert torch.equal(together, alone)


def test_looking_again_is_looking_once():
    x = discs(pieces=2)
    again, once = fitted(x, num_masks=1), fitted(discs(), num_masks=1)
    again.fit([discs()], 1)
    assert all(torch.equal(one, other) for one, other in zip(again.buffers(), once.buffers(), strict=True))


@pytest.mark.parametrize("num_masks", [-1, 2])
def test_a_number_of_masks_that_leaves_no_image_is_refused(num_masks, refused):
    with refused(ValueError, "num_masks is"):
        ImageFormat(2).fit([discs(4)], num_masks)
    with refused(ValueError, "No data came"):
        ImageFormat(2).fit([])


# --- of a network -----------------------------------------------------------------------------------------------------


@pytest.fixture
def network():
    torch.manual_seed(0)
    inn = ConditionalINN((16, 16), 1, num_levels=2, context_width=16, num_couplings=0, num_detail_couplings=1)
    batches = [((255 * on_one_scale(smooth(200))).round() / 255, None)]
    fit_moments(inn, lambda: batches)
    calibrate_spectrum(inn, lambda: batches)
    return inn, batches


def test_a_network_draws_in_the_format_of_its_images(network):
    inn, batches = network
    z = torch.randn(50, 256, generator=torch.Generator().manual_seed(1))
    before, latents = inn.draw(z), inn.encode(batches[0][0][:4])[0]
    calibrate_format(inn, lambda: batches, training_data="public")
    calibrate_histogram(inn, lambda: batches, training_data="public")
    after = inn.draw(z)
    assert torch.allclose(255 * after, (255 * after).round(), atol=1e-3)
    assert float(percentiles(after, 0.99).std()) < 0.2 * float(percentiles(before, 0.99).std())
    assert torch.equal(inn.encode(batches[0][0][:4])[0], latents)
    assert ("calibration", "public") in {(event["kind"], event["protection"]) for event in inn.training_events}


def test_a_format_changes_the_fingerprint_and_stays_in_a_checkpoint(network):
    inn, batches = network
    before = inn.fingerprint()
    calibrate_format(inn, lambda: batches)
    again = ConditionalINN(**inn.config)
    again.load_state_dict(inn.state_dict())
    assert again.fingerprint() == inn.fingerprint() != before
    z = torch.randn(4, 256)
    assert torch.equal(again.eval().draw(z), inn.eval().draw(z))


def test_a_checkpoint_from_before_there_was_a_format_is_the_same_network(network):
    inn, _ = network
    state = {name: tensor for name, tensor in inn.state_dict().items() if not name.startswith("image_format.")}
    again = ConditionalINN(**inn.config)
    again.load_state_dict(state)
    assert again.fingerprint() == inn.fingerprint()
    assert [event["kind"] for event in again.training_events] == [event["kind"] for event in inn.training_events]


def test_a_format_needs_a_network_that_draws_and_finite_data(network, refused):
    inn, batches = network
    with refused(ValueError, "has no format"):
        calibrate_format(ConditionalINN((8, 8)), lambda: batches)
    spoilt = batches[0][0].clone()
    spoilt[0, 0, 0, 0] = torch.nan
    with refused(ValueError, "NaN or infinity"):
        calibrate_format(inn, lambda: [(spoilt, None)])
    with refused(ValueError, "No data came"):
        calibrate_format(inn, lambda: [])
