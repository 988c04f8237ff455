# SPDX-License-Identifier: Apache-2.0
"""Fitted moments make the latents of Gaussian data white, class by class."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.networks import ConditionalINN, fit_moments, refit_moments


def gaussian(label, count, seed, size=6):
    """Class-conditional Gaussian data with a mean and a covariance of the class's own."""
    own = torch.Generator().manual_seed(label)
    mixing = torch.eye(size) + 0.5 * torch.randn(size, size, generator=own)
    mean = 3 * torch.randn(size, generator=own)
    return mean + torch.randn(count, size, generator=torch.Generator().manual_seed(1000 + seed)) @ mixing.T


def labelled(counts, seed=0):
    x = torch.cat([gaussian(label, count, seed + 10 * label) for label, count in enumerate(counts)])
    return x, torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def white(z, tolerance):
    return z.mean(0).abs().max() < tolerance and (z.T.cov() - torch.eye(z.shape[1])).abs().max() < tolerance


def test_unseen_gaussian_data_become_white_in_every_class():
    x, labels = labelled([20000, 10000, 15000])
    inn = ConditionalINN((), 6, num_classes=3, num_couplings=0)
    fit_moments(inn, lambda: [(x, labels)])
    unseen, classes = labelled([10000] * 3, seed=500)
    z, _ = inn.encode(unseen, classes)
    for label in range(3):
        assert white(z[classes == label], 0.1)


def test_whitening_does_not_hide_what_another_class_looks_like():
    x, labels = labelled([5000, 5000])
    inn = ConditionalINN((), 6, num_classes=2, num_couplings=0)
    fit_moments(inn, lambda: [(x, labels)])
    assert not white(inn.encode(x, 1 - labels)[0][labels == 0], 0.5)


def test_a_float_condition_is_regressed_out():
    generator = torch.Generator().manual_seed(0)
    condition = torch.randn(20000, 2, generator=generator)
    x = gaussian(0, 20000, 0) + condition @ torch.randn(2, 6, generator=generator)
    inn = ConditionalINN((), 6, condition_size=2, num_couplings=0)
    fit_moments(inn, lambda: [(x, condition)])
    z, _ = inn.encode(x, condition)
    assert white(z, 0.02)
    assert (z.T @ condition / len(z)).abs().max() < 0.02


def test_the_order_and_the_size_of_batches_do_not_matter():
    x, labels = labelled([600, 600])
    whole, parts = (ConditionalINN((), 6, num_classes=2, num_couplings=0) for _ in range(2))
    fit_moments(whole, lambda: [(x, labels)])
    order = torch.randperm(1200, generator=torch.Generator().manual_seed(0))
    fit_moments(parts, lambda: [(x[i], labels[i]) for i in order.split(100)])
    torch.testing.assert_close(whole.log_prob(x, labels), parts.log_prob(x, labels), rtol=1e-3, atol=1e-3)


def test_the_subspace_is_that_of_most_variance():
    generator = torch.Generator().manual_seed(0)
    deviations = torch.tensor([9.0, 7.0] + [0.5] * 14)
    axes = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q
    x = (torch.randn(3000, 16, generator=generator) * deviations @ axes.T).reshape(3000, 1, 4, 4)
    inn = ConditionalINN((4, 4), rank=2, num_couplings=0, num_levels=0)
    fit_moments(inn, lambda: [(x, None)])
    rest = x.flatten(1) - inn.decode(inn.encode(x)[0] @ inn.whitening.basis @ inn.whitening.basis.T).flatten(1)
    assert rest.square().mean() < 0.3
    assert white(inn.encode(x)[0], 0.15)


def test_the_subspace_of_an_image_too_large_for_its_covariance_is_that_of_most_variance():
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(70 * 70, 2, generator=generator)).Q
    x = torch.randn(400, 2, generator=generator) * torch.tensor([90.0, 60.0]) @ axes.T
    x = (x + 0.5 * torch.randn(400, 70 * 70, generator=generator)).reshape(400, 1, 70, 70)
    inn = ConditionalINN((70, 70), rank=2, num_couplings=0, num_levels=0)
    fit_moments(inn, lambda: [(x, None)])
    assert (inn.whitening.basis.T @ axes).square().sum() > 1.98


def test_where_images_share_a_space_every_voxel_has_a_size_of_its_own():
    """Around one pattern, one half is 20 times as noisy as the other; one scale for both would hide the quiet half."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.ones(8, 8)
    noise[:, 4:] = 0.05
    x = torch.randn(2000, 1, 1, 1, generator=generator) * torch.linspace(-3, 3, 64).reshape(8, 8)
    x = x + noise * torch.randn(2000, 1, 8, 8, generator=generator)
    quiet = []
    for num_maps in (1, 0):
        inn = ConditionalINN((8, 8), rank=1, num_couplings=0, num_levels=0, num_maps=num_maps)
        fit_moments(inn, lambda: [(x, None)])
        quiet.append(float(inn.encode(x)[0].std(0).reshape(8, 8)[:, 4:].mean()))
    assert 0.5 < quiet[0] < 1.5 and quiet[1] < 0.2


@pytest.mark.parametrize("counts", [[500, 1], [500, 0], [1, 500], [500, 2]])
def test_a_class_with_hardly_a_sample_does_not_break_the_network(counts):
    x, labels = labelled(counts)
    inn = ConditionalINN((), 6, num_classes=2, num_couplings=0)
    fit_moments(inn, lambda: [(x, labels)])
    for label in (0, 1):
        condition = torch.full((8,), label)
        z = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
        images = inn.decode(z, condition)
        latents, log_det = inn.encode(images, condition)
        assert torch.isfinite(images).all() and torch.isfinite(log_det).all()
        assert (latents - z).abs().max() < 1e-3


@pytest.mark.parametrize("count", [1, 2, 40])
def test_constant_data_leave_an_invertible_network(count):
    x = torch.full((count, 1, 4, 4), 0.5)
    inn = ConditionalINN((4, 4), num_couplings=0, num_levels=1)
    fit_moments(inn, lambda: [(x, None)])
    other = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    latents, log_det = inn.encode(other)
    assert torch.isfinite(latents).all() and torch.isfinite(log_det).all()
    assert (inn.decode(latents) - other).abs().max() < 1e-4


def test_a_full_subspace_is_inverted_to_the_last_digits():
    x = gaussian(0, 2000, 0)
    inn = ConditionalINN((), 6, num_couplings=0)
    fit_moments(inn, lambda: [(x, None)])
    assert (inn.decode(inn.encode(x)[0]) - x).abs().max() < 1e-5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_data_that_are_not_finite_are_refused_before_anything_is_changed(refused, value):
    x = gaussian(0, 100, 0)
    x[7, 3] = value
    inn = ConditionalINN((), 6)
    before = inn.fingerprint()
    with refused(ValueError, "NaN or infinity; expected finite pixels"):
        fit_moments(inn, lambda: [(x, None)])
    assert inn.fingerprint() == before


def test_no_data_are_refused(refused):
    with refused(ValueError, "No data came .*expected at least one batch"):
        fit_moments(ConditionalINN((), 6), lambda: [])


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_a_checkpoint_holds_a_factor_and_its_reader_the_inverse(threads):
    """With several threads, and sizes as large as these, some libraries get inverses by LU wrong."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(900, 1, 20, 20, generator=generator) * torch.linspace(0.1, 3, 400).reshape(20, 20)
    fitted, loaded = (ConditionalINN((20, 20), rank=390, num_couplings=0, num_levels=0) for _ in range(2))
    fit_moments(fitted, lambda: [(x, None)])
    assert not any("inverse" in name for name in fitted.state_dict())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        loaded.load_state_dict(fitted.state_dict())
    finally:
        torch.set_num_threads(before)
    assert (loaded.decode(loaded.encode(x)[0]) - x).abs().max() < 1e-3


def test_few_images_refit_what_they_show_and_take_nothing_for_constant():
    """Of 20 images in 32 dimensions most directions show no variance; the one that the network has counts, too."""
    generator = torch.Generator().manual_seed(0)
    inn = ConditionalINN(spatial_shape=(), in_channels=32, rank=32, num_couplings=0)
    fit_moments(inn, lambda: [(torch.randn(2000, 32, generator=generator), None)])
    refit_moments(inn, lambda: [(3 + torch.randn(20, 32, generator=generator), None)])
    z, _ = inn.encode(3 + torch.randn(2000, 32, generator=generator))
    assert 0.8 < float(z.square().mean()) < 1.5
    assert float(inn.decode(torch.randn(2000, 32, generator=generator)).detach().mean()) == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("images", [20, 100])
def test_few_images_say_how_much_images_vary_whatever_the_network_had_learnt(images):
    """What was augmented varies more: here twice as far in all directions, and of that nothing is left."""
    generator = torch.Generator().manual_seed(0)
    inn = ConditionalINN(spatial_shape=(), in_channels=32, rank=32, num_couplings=0)
    fit_moments(inn, lambda: [(2 * torch.randn(2000, 32, generator=generator), None)])
    plain = torch.randn(images, 32, generator=generator)
    refit_moments(inn, lambda: [(plain, None)])
    drawn = inn.decode(torch.randn(5000, 32, generator=generator)).detach()
    assert float(drawn.var(0).sum() / plain.var(0, correction=0).sum()) == pytest.approx(1, abs=0.05)


def test_one_image_says_nothing_of_how_images_vary():
    generator = torch.Generator().manual_seed(0)
    inn = ConditionalINN(spatial_shape=(), in_channels=4, num_couplings=0)
    fit_moments(inn, lambda: [(2 * torch.randn(2000, 4, generator=generator), None)])
    refit_moments(inn, lambda: [(torch.ones(1, 4), None)])
    drawn = inn.decode(torch.randn(5000, 4, generator=generator)).detach()
    assert float(drawn.std()) > 1.5 and float(drawn.mean()) == pytest.approx(1, abs=0.1)
