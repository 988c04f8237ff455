# SPDX-License-Identifier: Apache-2.0
"""Other methods are what they are said to be: noise with its promise, and obfuscation with none."""

from __future__ import annotations

import math

import pytest
import torch

from monai_cadp.baselines import GaussianBlur, Mosaic, PixelNoise
from monai_cadp.privacy.auditing import epsilon_lower_bound

EVERY = [PixelNoise(1.0), PixelNoise(1.0, cell=3), GaussianBlur(1.5), Mosaic(3)]
SHAPES = [(1, 10, 8), (3, 7, 9), (1, 6, 5, 4)]


@pytest.mark.parametrize("method", EVERY, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_are_kept_and_intensities_stay_in_range(method, shape):
    x = 3 * torch.randn(2, *shape)
    x[0, 0, 0, 0] = math.nan
    y = method(x)
    assert y.shape == x.shape and y.isfinite().all() and 0 <= y.min() and y.max() <= 1


@pytest.mark.parametrize("method", [PixelNoise(1e4), GaussianBlur(1.5), Mosaic(3)], ids=lambda m: type(m).__name__)
def test_no_image_has_an_influence_on_another(method):
    x = torch.rand(4, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    x[1:] = x[1:] * 1e6
    # Noise of so large an epsilon deviates by 0.008, and never by 0.3.
    assert (method(x)[0] - method(x[:1])[0]).abs().max() < (0.3 if method.guarantee else 1e-6)


@pytest.mark.parametrize("cell", [1, 4])
def test_the_noise_of_pixels_has_the_scale_of_its_sensitivity(cell):
    """With so large an epsilon nothing is clipped: a Laplace variable of scale n / epsilon has that mean deviation."""
    epsilon, side = 5e3, 16
    cells = (side // cell) ** 2
    y = PixelNoise(epsilon, cell)(torch.full((200, 1, side, side), 0.5))
    noise = y[:, :, ::cell, ::cell] - 0.5
    assert float(noise.abs().mean()) == pytest.approx(cells / epsilon, rel=0.05)
    assert torch.equal(y, Mosaic(cell)(y))


def audited(release):
    """A lower bound of what black and white images of 2 x 2 pixels give away, at an error probability of 1e-6."""
    count = 20_000
    white, black = (release(torch.full((2 * count, 1, 2, 2), value)).mean((1, 2, 3)) for value in (1.0, 0.0))
    threshold = torch.cat([white[:count], black[:count]]).quantile(0.95)
    hits, false = int((white[count:] > threshold).sum()), int((black[count:] > threshold).sum())
    return epsilon_lower_bound(hits, count, false, count)


@pytest.mark.slow
def test_noise_on_pixels_keeps_its_promise_and_a_control_with_the_noise_of_one_pixel_does_not():
    assert audited(PixelNoise(1.0)) <= 1.0

    def of_one_pixel(x):
        noise = torch.distributions.Laplace(0.0, 1.0).sample(x.shape)
        return x + noise

    assert audited(of_one_pixel) > 1.0


def test_what_promises_nothing_says_so():
    assert GaussianBlur(2.0).guarantee is None and Mosaic(2).guarantee is None
    guarantee = PixelNoise(2.0, cell=3, unit="patient").guarantee
    assert (guarantee.epsilon, guarantee.delta, guarantee.unit) == (2.0, 0.0, "patient")
    assert guarantee.training_data.protection == "public"


def test_a_blur_is_a_blur_and_a_mosaic_has_cells():
    x = torch.zeros(1, 1, 15, 15)
    x[0, 0, 7, 7] = 1.0
    blurred = GaussianBlur(2.0)(x)
    assert blurred.argmax() == x.argmax() and blurred.max() < 0.1 and blurred.sum() == pytest.approx(1.0, abs=0.05)
    assert len(Mosaic(5)(torch.rand(1, 1, 15, 15)).unique()) == 9


@pytest.mark.parametrize(
    "make",
    [
        lambda: PixelNoise(0.0),
        lambda: PixelNoise(1.0, cell=0),
        lambda: GaussianBlur(0.0),
        lambda: Mosaic(0),
        lambda: Mosaic(3)(torch.rand(4, 4)),
    ],
)
def test_impossible_parameters_are_refused(make, refused):
    with refused(ValueError, "expected"):
        make()
