# SPDX-License-Identifier: Apache-2.0
"""Levels that see the whole coarser image: bounded, denoised, and aware of what is far away."""

from __future__ import annotations

import torch

from monai_cadp.networks import ConditionalINN, ContentBasis
from monai_cadp.networks.conditional_level import ConditionalLevel

SIZES = {"num_couplings": 6, "width": 16, "context_widths": (16, 16, 16), "embedding_size": 0}


def moved(module, size):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += size * torch.randn_like(parameter)
    return module


def test_details_depend_on_the_coarser_image_far_away():
    level = moved(ConditionalLevel(3, 1, (32, 32), **SIZES), 0.1)
    coarser = torch.randn(1, 1, 32, 32).requires_grad_()
    details, _ = level([torch.randn(1, 3, 32, 32)], c=[coarser, torch.zeros(1, 0)], rev=True, jac=False)
    (gradient,) = torch.autograd.grad(details[0][0, :, 0, 0].sum(), coarser)
    assert gradient[0, 0, 31, 31] != 0


def test_no_latents_blow_up_even_in_a_network_that_learnt_nonsense():
    level = moved(ConditionalLevel(3, 1, (16, 16), **SIZES), 0.5)
    embedding = torch.zeros(64, 0)
    usual, _ = level([torch.randn(64, 3, 16, 16)], c=[torch.randn(64, 1, 16, 16), embedding], rev=True, jac=False)
    far, _ = level([10 * torch.randn(64, 3, 16, 16)], c=[10 * torch.randn(64, 1, 16, 16), embedding], rev=True)
    assert far[0].isfinite().all()
    assert far[0].abs().max() < 100 * usual[0].abs().max()


def test_denoising_takes_away_the_noise_of_normal_details():
    """A level that is the identity has standard-normal details: the expected ones are known."""
    level = ConditionalLevel(3, 1, (8, 8), **SIZES)
    latent, coarser, embedding = torch.randn(2, 3, 8, 8), torch.randn(2, 1, 8, 8), torch.zeros(2, 0)
    noisy, _ = level([latent], c=[coarser, embedding], rev=True, jac=False)
    denoised = level.denoised(latent, coarser, embedding, torch.full((1, 1, 1), 0.6))
    assert torch.allclose(denoised, (1 - 0.36) * noisy[0], atol=1e-5)


def test_a_network_without_known_noise_draws_what_it_decodes():
    network = moved(ConditionalINN((16, 16), 1, num_classes=2, num_levels=1, context_width=16), 0.05).eval()
    z, condition = torch.randn(3, network.num_latents), torch.tensor([0, 1, 1])
    assert torch.allclose(network.draw(z, condition), network.decode(z, condition), atol=1e-5)
    network.input_noise.fill_(0.1)
    assert not torch.allclose(network.draw(z, condition), network.decode(z, condition), atol=1e-3)


def test_drawing_is_the_same_in_inference_mode():
    network = moved(ConditionalINN((16, 16), 1, num_classes=2, num_levels=1, context_width=16), 0.05).eval()
    network.input_noise.fill_(0.1)
    z, condition = torch.randn(3, network.num_latents), torch.tensor([0, 1, 1])
    expected = network.draw(z, condition)
    with torch.inference_mode():
        assert torch.equal(network.draw(z, condition), expected)


def test_samples_that_are_drawn_do_not_mix():
    network = moved(ConditionalINN((16, 16), 1, num_classes=2, num_levels=1, context_width=16), 0.05).eval()
    network.input_noise.fill_(0.1)
    z, condition = torch.randn(4, network.num_latents), torch.tensor([0, 1, 1, 0])
    alone = torch.cat([network.draw(z[i : i + 1], condition[i : i + 1]) for i in range(4)])
    together = network.draw(z, condition)
    assert (together - alone).abs().max() < 1e-5 * together.abs().max()


def test_large_images_get_levels_that_see_everything_and_small_ones_do_not():
    assert ConditionalINN((28, 28)).config["context_width"] == 0
    assert ConditionalINN((96, 128), num_couplings=0).coarse_shape == (1, 6, 8)
    assert ConditionalINN((64, 64, 64), num_couplings=0, context_width=16).coarse_shape == (1, 16, 16, 16)
    assert ConditionalINN((64, 64), 3, num_couplings=0).coarse_shape == (3, 4, 4)
    assert ConditionalINN((100, 100), num_couplings=0).coarse_shape == (1, 25, 25)


def test_a_network_of_an_older_version_is_the_same_network():
    """It states fewer options, and its fingerprint knows of no more."""
    network = ConditionalINN((8, 8), 1, num_levels=1, rank=4, num_couplings=1, width=8)
    state = network.state_dict()
    stated = state["_extra_state"]
    older = {name: value for name, value in stated["config"].items() if name not in network.later_options}
    state["_extra_state"] = {**stated, "config": older}
    again = ConditionalINN(**{**ConditionalINN.later_options, **older})
    again.load_state_dict(state)
    assert again.fingerprint() == network.fingerprint()
    assert set(network.later_options) == {
        *("dropout", "context_width", "num_unfolded_levels", "refiner_width", "num_masks", "mask_refiner_width")
    }


def test_features_are_left_out_where_weights_learn_and_nowhere_else():
    torch.manual_seed(0)
    network = ConditionalINN((8, 8), 1, context_width=16, dropout=0.5, width=16, num_couplings=4)
    with network.learning("public"), torch.no_grad():
        for parameter in network.whitening.parameters():
            if parameter.is_floating_point():
                parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.rand(3, 1, 8, 8)
    network.train()
    assert not torch.equal(network.log_prob(x), network.log_prob(x))
    with torch.no_grad():
        z, _ = network.encode(x)
        assert torch.equal(z, network.encode(x)[0])
        assert torch.allclose(network.decode(z), x, atol=1e-4)
    first, again = (ContentBasis.fit(network, 2, num_samples=32).directions for _ in range(2))
    assert torch.equal(first, again) and network.training
