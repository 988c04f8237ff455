# SPDX-License-Identifier: Apache-2.0
"""Input noise comes from a seed where a training is to be repeated, and from one stream an image where it is secret."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.engines import ColumnNoise, GaussianNoise
from monai_cadp.privacy import randomness
from monai_cadp.privacy.randomness import SecretDraws

NOISES = [GaussianNoise(0.1), ColumnNoise(steps=[0.0, 0.5, 0.0], deviation=0.1)]


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: type(noise).__name__)
def test_secret_noise_has_a_key_of_its_own_for_every_image_and_no_seed(noise, monkeypatch):
    keys, entropy = [], randomness.os.urandom
    monkeypatch.setattr(randomness.os, "urandom", lambda count: keys.append(entropy(count)) or keys[-1])
    x = torch.zeros(5, 3)
    torch.manual_seed(0)
    first = noise(x, generator=SecretDraws())
    torch.manual_seed(0)
    assert not torch.equal(first, noise(x, generator=SecretDraws()))
    assert all(len(key) == 32 for key in keys)
    # Ten images; a table's columns take two streams each, of both kinds.
    assert len(set(keys)) == len(keys) == (20 if isinstance(noise, ColumnNoise) else 10)
    assert len(first.unique(dim=0)) == 5


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: type(noise).__name__)
def test_seeded_noise_repeats(noise):
    x = torch.zeros(5, 3)
    first, second = (noise(x, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_secret_and_seeded_noise_have_one_law():
    x = torch.zeros(2, 50_000)
    for noise in (GaussianNoise(0.1), ColumnNoise(steps=[0.5] * 50_000, deviation=0.1)):
        secret, seeded = noise(x, generator=SecretDraws()), noise(x, generator=torch.Generator().manual_seed(3))
        assert float(secret.mean()) == pytest.approx(float(seeded.mean()), abs=0.003)
        assert float(secret.std()) == pytest.approx(float(seeded.std()), rel=0.03)
