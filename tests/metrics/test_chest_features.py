# SPDX-License-Identifier: Apache-2.0
"""The numbers of a chest film follow what they are named after."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.metrics import CHEST_FEATURES, chest_features


def film(lung=0.2, top=10, middle=32, half=4, left=8):
    """A bright chest with two dark lungs and a heart of half a width between them, below the middle."""
    image = torch.full((1, 1, 64, 64), 0.8)
    image[:, :, top:48, left : middle - half] = lung
    image[:, :, top:48, middle + half : 56] = lung
    return image


def change(**options):
    before, after = chest_features(film())[0], chest_features(film(**options))[0]
    return dict(zip(CHEST_FEATURES, (after - before).tolist(), strict=True))


def test_brighter_lungs_are_brighter_and_of_the_same_size():
    changed = change(lung=0.3)
    assert changed["lung intensity"] == pytest.approx(0.1, abs=0.01)
    assert max(abs(changed[name]) for name in CHEST_FEATURES[1:]) < 0.01


def test_shorter_lungs_are_smaller_and_a_wide_heart_is_wide():
    assert change(top=24)["lung area"] < -0.1
    assert change(half=10)["heart width"] > 0.1


def test_a_missing_part_of_one_lung_is_an_asymmetry():
    assert change(left=18)["asymmetry"] < -0.1
    flipped = chest_features(film(left=18).flip(3))[0]
    assert flipped[3] == pytest.approx(-float(chest_features(film(left=18))[0][3]), abs=0.05)


def test_the_resolution_has_no_part_in_it():
    large = film().repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(chest_features(large), chest_features(film()), atol=1e-4)


def test_a_black_film_gives_numbers():
    assert chest_features(torch.zeros(1, 1, 64, 64)).isfinite().all()


def test_volumes_and_colour_are_refused(refused):
    with refused(ValueError, "expected \\(B, 1, H, W\\)"):
        chest_features(torch.zeros(1, 3, 64, 64))
