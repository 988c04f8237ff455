# SPDX-License-Identifier: Apache-2.0
"""What a calibrated network draws has the variation, the grain and the range of images."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.networks import (
    ConditionalINN,
    calibrate_histogram,
    calibrate_latents,
    calibrate_spectrum,
    fit_moments,
)
from monai_cadp.networks.spectrum import cosine_transform


def overlearnt(seed=0):
    """A network that takes images for less varied than others of their kind are."""
    torch.manual_seed(seed)
    inn = ConditionalINN((16, 16), 1, 2, num_levels=2, context_width=16, num_couplings=2, num_detail_couplings=2)
    fit_moments(inn, lambda: [(torch.randn(400, 1, 16, 16), torch.arange(400) % 2)])
    return inn


def held_out(count=400):
    return 1.5 * torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(5)), torch.arange(count) % 2


def test_calibrated_latents_of_held_out_images_have_the_deviation_of_the_prior_in_every_part():
    inn = overlearnt()
    calibrate_latents(inn, lambda: zip(*(part.split(100) for part in held_out()), strict=True))
    z, _ = inn.encode(*held_out())
    assert all(float(part.square().mean()) == pytest.approx(1, abs=1e-3) for part in inn.part_latents(z))
    drawn = inn.decode(torch.randn(400, 256), held_out()[1])
    assert float(drawn.detach().std()) == pytest.approx(1.5, rel=0.05)


def test_a_calibrated_network_is_the_inverse_of_itself_and_its_likelihood_counts_the_scale():
    inn = overlearnt()
    x, labels = held_out(4)
    before = inn.log_prob(x, labels)
    calibrate_latents(inn, lambda: [held_out()])
    z, log_det = inn.encode(x, labels)
    assert torch.allclose(inn.decode(z, labels), x, atol=1e-4)
    jacobian = torch.autograd.functional.jacobian(lambda one: inn.encode(one, labels[:1])[0].sum(0), x[:1])
    expected = torch.linalg.slogdet(jacobian.reshape(256, 256).double()).logabsdet
    assert float(log_det[0]) == pytest.approx(float(expected), rel=1e-3)
    after = inn.log_prob(x, labels)
    assert torch.allclose(sum(inn.part_log_probs(x, labels)[: inn.num_flows]), after, rtol=1e-4)
    assert bool((after > before).all())


def test_calibrated_twice_is_calibrated_once():
    inn = overlearnt()
    calibrate_latents(inn, lambda: [held_out()])
    once = inn.latent_deviations.clone()
    calibrate_latents(inn, lambda: [held_out()])
    assert torch.allclose(inn.latent_deviations, once, rtol=1e-4)


def test_a_calibration_is_recorded_and_one_that_does_not_fit_is_refused(refused):
    inn = overlearnt()
    calibrate_latents(inn, lambda: [held_out()], training_data="public")
    assert {(event["kind"], event["protection"]) for event in inn.training_events} == {
        ("moments", "unprotected"),
        ("calibration", "public"),
    }
    with refused(ValueError, "no U-Net"):
        calibrate_latents(ConditionalINN((8, 8)), lambda: [(torch.rand(2, 1, 8, 8), None)])
    with refused(ValueError, "No data came"):
        calibrate_latents(inn, lambda: [])


def test_a_checkpoint_from_before_there_was_calibration_is_the_same_network():
    inn = overlearnt()
    state = inn.state_dict()
    del state["latent_deviations"]
    again = ConditionalINN(**inn.config)
    again.load_state_dict(state)
    assert again.fingerprint() == inn.fingerprint() and again.training_events == inn.training_events
    calibrate_latents(again, lambda: [held_out()])
    assert again.fingerprint() != inn.fingerprint()


def test_a_single_odd_image_does_not_make_all_draws_odd():
    inn = overlearnt()
    x, labels = held_out(20)
    x[0] *= 1e4
    calibrate_latents(inn, lambda: [(x, labels)])
    assert inn.latent_deviations.tolist() == [2.0] * inn.num_flows
    inn = overlearnt()
    calibrate_latents(inn, lambda: [(torch.zeros(20, 1, 16, 16), labels)])
    assert float(inn.latent_deviations.min()) >= 0.5 and bool(inn.encode(x[1:], labels[1:])[1].isfinite().all())


def test_what_the_subspace_of_the_coarse_image_does_not_hold_has_no_say():
    """Of held-out images much lies outside; what is inside varies as it was learnt, and so do draws."""
    torch.manual_seed(0)
    inn = ConditionalINN((8, 8), 1, num_levels=0, rank=4, context_width=16, num_couplings=0)
    inside = torch.randn(400, 1, 1, 1) * torch.ones(8, 8)
    fit_moments(inn, lambda: [(inside + 0.01 * torch.randn(400, 1, 8, 8), None)])
    inn.whitening.inside.set_covariances(torch.diag(torch.tensor([64.0, 0.01, 0.01, 0.01]))[None])
    x = torch.randn(400, 1, 1, 1) * torch.ones(8, 8) + 0.1 * torch.randn(400, 1, 8, 8)
    before = float(inn.decode(torch.randn(400, 64)).detach().std())
    calibrate_latents(inn, lambda: [(x, None)])
    assert float(inn.decode(torch.randn(400, 64)).detach().std()) == pytest.approx(before, rel=0.1)


def test_weights_of_a_part_alone_leave_the_calibration_as_it_is():
    inn = overlearnt()
    calibrate_latents(inn, lambda: [held_out()])
    before = inn.latent_deviations.clone()
    whole = inn.state_dict()
    inn.load_state_dict({name: whole[name] for name in whole if name.startswith("detail_flows")}, strict=False)
    assert torch.equal(inn.latent_deviations, before)


def grainy(count=300, seed=0):
    """Images from -1 to 1 whose grain is along rows only, and stronger in some images than in others."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.avg_pool2d(torch.randn(count, 1, 16, 20, generator=generator), (1, 5), stride=1)
    strength = torch.exp(0.5 * torch.randn(count, 1, 1, 1, generator=generator))
    return (strength * x).clamp(-1, 1), torch.arange(count) % 2


def drawn(inn, count=300):
    return inn.draw(torch.randn(count, 256, generator=torch.Generator().manual_seed(9)), torch.arange(count) % 2)


def log_powers(x):
    return (cosine_transform(x).square() + 1e-4).log().mean(0)


def error(inn, x):
    """How far the mean log power of draws is from that of images, in neighbourhoods of frequencies."""
    difference = (log_powers(drawn(inn).detach()) - log_powers(x))[None]
    return float(torch.nn.functional.avg_pool2d(difference, 4)[..., 1:].abs().mean())


@pytest.fixture
def drawing():
    """A network that knows how large details are, and not that their grain has a direction."""
    torch.manual_seed(0)
    inn = ConditionalINN((16, 16), 1, 2, num_levels=2, context_width=16, num_couplings=0, num_detail_couplings=1)
    fit_moments(inn, lambda: [grainy()])
    return inn


def test_draws_get_the_power_that_images_have_at_each_frequency(drawing):
    x, labels = grainy()
    before = error(drawing, x)
    calibrate_spectrum(drawing, lambda: zip(x.split(64), labels.split(64), strict=True))
    assert error(drawing, grainy(seed=1)[0]) < 0.5 * before


def test_no_draw_leaves_the_range_of_images(drawing):
    far = 30 * torch.randn(50, 256)
    assert drawing.draw(far, torch.arange(50) % 2).abs().max() > 2
    calibrate_spectrum(drawing, lambda: [grainy()])
    x = drawing.draw(far, torch.arange(50) % 2)
    assert (float(x.min()), float(x.max())) == (-1, 1)


def test_the_inverse_and_the_likelihood_do_not_know_of_the_filter(drawing):
    x, labels = grainy(8)
    z, log_prob = drawing.encode(x, labels)[0], drawing.log_prob(x, labels)
    calibrate_spectrum(drawing, lambda: [grainy()])
    assert torch.equal(drawing.encode(x, labels)[0], z) and torch.equal(drawing.log_prob(x, labels), log_prob)
    assert torch.allclose(drawing.decode(z, labels), x, atol=1e-4)
    assert not torch.allclose(drawing.draw(z, labels), x, atol=1e-2)


def test_what_the_coarse_image_holds_stays_as_it_is(drawing):
    z, labels = 0.1 * torch.randn(8, 256), torch.arange(8) % 2
    before = cosine_transform(drawing.draw(z, labels))
    calibrate_spectrum(drawing, lambda: [grainy()])
    after = cosine_transform(drawing.draw(z, labels))
    assert torch.allclose(after[..., :4, :4], before[..., :4, :4], atol=1e-3)
    assert not torch.allclose(after[..., 4:, 4:], before[..., 4:, 4:], atol=1e-3)


def test_what_a_subspace_of_the_coarse_image_does_not_hold_gets_the_power_of_images():
    """Four numbers of 256 are held: the lowest two frequencies along both axes stay, and white noise gets a grain."""
    torch.manual_seed(0)
    inn = ConditionalINN((16, 16), 1, 2, num_levels=0, rank=4, context_width=16, num_couplings=0)
    x, labels = grainy()
    fit_moments(inn, lambda: [(x, labels)])
    before = error(inn, x)
    calibrate_spectrum(inn, lambda: [(x, labels)])
    assert error(inn, grainy(seed=1)[0]) < 0.5 * before
    assert bool((inn.spectrum_gains[:, :2, :2] == 1).all()) and not bool((inn.spectrum_gains[:, 2:, 2:] == 1).any())


def test_a_filter_fitted_twice_is_the_one_that_was_fitted_once(drawing):
    calibrate_spectrum(drawing, lambda: [grainy()])
    once = drawing.spectrum_gains.clone()
    calibrate_spectrum(drawing, lambda: [grainy()])
    assert torch.equal(drawing.spectrum_gains, once)


def test_a_few_images_with_much_grain_do_not_decide_for_all(drawing):
    x, labels = grainy()
    calibrate_spectrum(drawing, lambda: [(x, labels)])
    gains = drawing.spectrum_gains.clone()
    spoilt = x.clone()
    spoilt[:3] = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(3)).clamp(-1, 1)
    calibrate_spectrum(drawing, lambda: [(spoilt, labels)])
    assert torch.allclose(drawing.spectrum_gains, gains, rtol=0.1)


def test_a_filter_is_recorded_and_changes_the_fingerprint(drawing, refused):
    before = drawing.fingerprint()
    calibrate_spectrum(drawing, lambda: [grainy()], training_data="public")
    assert drawing.fingerprint() != before
    assert ("calibration", "public") in {(event["kind"], event["protection"]) for event in drawing.training_events}
    with refused(ValueError, "no U-Net"):
        calibrate_spectrum(ConditionalINN((8, 8)), lambda: [(torch.rand(2, 1, 8, 8), None)])
    with refused(ValueError, "No data came"):
        calibrate_spectrum(drawing, lambda: [])
    x, labels = grainy(4)
    x[0, 0, 0, 0] = torch.nan
    with refused(ValueError, "NaN or infinity"):
        calibrate_spectrum(drawing, lambda: [(x, labels)])


def test_a_checkpoint_from_before_there_was_a_filter_is_the_same_network(drawing):
    state = drawing.state_dict()
    for name in ("spectrum_gains", "lowest_value", "highest_value"):
        del state[name]
    again = ConditionalINN(**drawing.config)
    again.load_state_dict(state)
    assert again.fingerprint() == drawing.fingerprint()
    z, labels = torch.randn(4, 256), torch.arange(4) % 2
    assert torch.equal(again.eval().draw(z, labels), drawing.eval().draw(z, labels))


def test_channels_and_volumes_have_filters_of_their_own():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.avg_pool3d(torch.randn(60, 1, 10, 10, 18, generator=generator), 3, stride=1)
    x = torch.cat([smooth, 3 * torch.randn(60, 1, 8, 8, 16, generator=generator)], dim=1)
    inn = ConditionalINN((8, 8, 16), 2, num_levels=1, context_width=16, num_couplings=0, num_detail_couplings=1)
    fit_moments(inn, lambda: [(x, None)])
    calibrate_spectrum(inn, lambda: [(x, None)])
    assert inn.spectrum_gains.shape == (2, 8, 8, 16) and inn.lowest_value.tolist() == x.amin((0, 2, 3, 4)).tolist()
    finest = inn.spectrum_gains[:, 4:, 4:, 8:].mean((1, 2, 3))
    assert float(finest[0]) < 0.9 * float(finest[1])


# --- the histogram ----------------------------------------------------------------------------------------------------


def skewed(count=300, seed=0):
    """Images from 0 to 1 that are mostly dark, of two channels of which the second is darker."""
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.nn.functional.avg_pool2d(torch.randn(count, 2, 18, 18, generator=generator), 3, stride=1)
    return torch.sigmoid(6 * smooth) ** torch.tensor([2.0, 4.0]).reshape(1, 2, 1, 1)


@pytest.fixture
def bright():
    """A network that knows mean, variance and range of them, and not that they are skewed."""
    torch.manual_seed(0)
    inn = ConditionalINN((16, 16), 2, num_levels=2, context_width=16, num_couplings=0, num_detail_couplings=1)
    fit_moments(inn, lambda: [(skewed(), None)])
    calibrate_spectrum(inn, lambda: [(skewed(), None)])
    return inn


def deciles(x):
    return torch.quantile(x.detach().transpose(0, 1).flatten(1), torch.linspace(0.05, 0.95, 10), dim=1)


def drawn_of(inn, count=300):
    return inn.draw(torch.randn(count, inn.num_latents, generator=torch.Generator().manual_seed(9)))


def test_draws_get_the_histogram_of_images_channel_by_channel(bright):
    x = skewed()
    before = (deciles(drawn_of(bright)) - deciles(skewed(seed=1))).abs()
    calibrate_histogram(bright, lambda: [(part, None) for part in x.split(64)])
    after = (deciles(drawn_of(bright)) - deciles(skewed(seed=1))).abs()
    assert bool((before.amax(0) > 0.05).all()) and float(after.max()) < 0.02
    assert float(x.min()) <= float(drawn_of(bright).min()) and float(drawn_of(bright).max()) <= float(x.max())


def test_a_brighter_draw_stays_the_brighter_one(bright):
    before = drawn_of(bright)
    calibrate_histogram(bright, lambda: [(skewed(), None)])
    after = drawn_of(bright)
    for channel in range(2):
        order = before[:, channel].flatten().argsort()
        assert bool((after[:, channel].flatten()[order].diff() >= -1e-6).all())
    assert bool((bright.matched_values.diff(dim=1) >= 0).all())


def test_matched_twice_is_matched_once(bright):
    calibrate_histogram(bright, lambda: [(skewed(), None)])
    once = bright.matched_values.clone()
    calibrate_histogram(bright, lambda: [(skewed(), None)])
    assert torch.equal(bright.matched_values, once)


def test_the_inverse_and_the_likelihood_do_not_know_of_the_curve(bright):
    x = skewed(8)
    z, log_prob, plain = bright.encode(x)[0], bright.log_prob(x), bright.draw(bright.encode(x)[0])
    calibrate_histogram(bright, lambda: [(skewed(), None)])
    assert torch.equal(bright.encode(x)[0], z) and torch.equal(bright.log_prob(x), log_prob)
    assert not torch.allclose(bright.draw(z), plain, atol=1e-2)


def test_values_to_which_many_draws_are_clipped_get_the_middle_of_their_share(bright):
    """A tenth of the voxels of every draw is at the upper end, and images have nothing there but one voxel."""
    x = skewed()
    with bright.learning("public"):
        bright.highest_value.copy_(torch.quantile(x.transpose(0, 1).flatten(1), 0.9, dim=1))
    calibrate_histogram(bright, lambda: [(x.minimum(bright.highest_value.reshape(1, 2, 1, 1)) * 0.8, None)])
    assert bool((bright.matched_values[:, -1] < bright.highest_value).all())


def test_a_curve_is_recorded_and_needs_a_range_and_data(bright, refused):
    before = bright.fingerprint()
    calibrate_histogram(bright, lambda: [(skewed(), None)], training_data="public")
    assert bright.fingerprint() != before
    assert ("calibration", "public") in {(event["kind"], event["protection"]) for event in bright.training_events}
    fresh = ConditionalINN((16, 16), 2, num_levels=2, context_width=16, num_couplings=0, num_detail_couplings=1)
    for network in (fresh, ConditionalINN((8, 8))):
        with refused(ValueError, "calibrate its spectrum before"):
            calibrate_histogram(network, lambda: [(skewed(), None)])
    with refused(ValueError, "No data came"):
        calibrate_histogram(bright, lambda: [])
    x = skewed(4)
    x[0, 0, 0, 0] = torch.nan
    with refused(ValueError, "NaN or infinity"):
        calibrate_histogram(bright, lambda: [(x, None)])


def test_a_checkpoint_from_before_there_was_a_curve_is_the_same_network(bright):
    state = bright.state_dict()
    del state["matched_values"]
    again = ConditionalINN(**bright.config)
    again.load_state_dict(state)
    assert again.fingerprint() == bright.fingerprint()
    z = torch.randn(4, bright.num_latents)
    assert torch.equal(again.eval().draw(z), bright.eval().draw(z))
