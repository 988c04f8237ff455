# SPDX-License-Identifier: Apache-2.0
"""A brain comes to lie on the template however it lay, and the same one always comes to the same place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from monai_cadp.data import PublicGrid
from monai_cadp.data.brain_registration import T1_CONTRAST, register_brain
from monai_cadp.data.brain_template import brain_template

SHAPE, SPACING = (60, 72, 60), 3.6
GRID = PublicGrid((40, 50, 40), 4.8, (0.0, -17.0, 5.0))


def brain(tilt=0.0, size=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0), invert=False):
    """The template, nodding by an angle, of another size, elsewhere: (voxels, mask, affine)."""
    angle = np.deg2rad(tilt)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]) / size
    middle = (np.array(SHAPE) - 1) / 2
    template = brain_template(SHAPE, SPACING).t1[0].numpy()
    voxels = ndimage.affine_transform(template, turn, middle - turn @ middle, order=1)
    mask = voxels > 0.05
    return np.where(mask, 1.05 - voxels if invert else voxels, 0), mask, PublicGrid(SHAPE, SPACING, shift).affine


@pytest.mark.slow
@pytest.mark.parametrize(
    "moved",
    [
        {"shift": (31.0, -55.0, 140.0)},
        {"tilt": 20.0, "shift": (5.0, 0.0, -20.0)},
        {"tilt": -15.0, "size": (0.95, 0.9, 0.85)},
        {"size": (1.15, 1.1, 1.1)},
    ],
    ids=["moved", "tilted", "smaller", "larger"],
)
def test_a_brain_that_was_moved_turned_or_scaled_lands_on_the_template(moved):
    registered = register_brain(*brain(**moved), spacing=4.8)
    assert registered.dice >= 0.95
    template = brain_template(tuple(GRID.spatial_shape), GRID.spacing).t1[0].numpy()
    assert np.corrcoef(registered.on_grid(GRID).ravel(), template.ravel())[0, 1] > 0.97


def test_negative_control_a_centre_of_mass_alone_leaves_a_tilted_brain_tilted(monkeypatch):
    monkeypatch.setattr("monai_cadp.data.brain_registration.NUM_STEPS", 1)
    assert register_brain(*brain(tilt=20.0, size=(0.95, 0.9, 0.85)), spacing=4.8).dice < 0.94


def test_a_step_to_the_worse_is_not_kept(monkeypatch):
    settled = brain()
    monkeypatch.setattr("monai_cadp.data.brain_registration.NUM_STEPS", 1)
    start = register_brain(*settled, spacing=4.8).dice
    monkeypatch.setattr("monai_cadp.data.brain_registration.FIRST_STEP", 60.0)
    assert register_brain(*settled, spacing=4.8).dice >= start - 0.02


@pytest.mark.slow
def test_the_same_scan_gives_the_same_bits():
    one, other = (register_brain(*brain(tilt=10.0), spacing=4.8).on_grid(GRID) for _ in range(2))
    assert np.array_equal(one, other)


@pytest.mark.slow
def test_contrast_and_stretch_are_told():
    t1, t2 = (register_brain(*brain(invert=invert), spacing=4.8) for invert in (False, True))
    assert t1.white_to_gray > T1_CONTRAST > 1 > t2.white_to_gray
    voxels, mask, affine = brain(size=(1.0, 1.0, 0.5))
    assert t1.stretch < 1.1 and register_brain(voxels, mask, affine, spacing=4.8).stretch > 1.5
