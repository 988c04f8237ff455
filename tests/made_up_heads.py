# SPDX-License-Identifier: Apache-2.0
"""A head that nobody has: the public template within a skull, a scalp, eyes and a neck."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from monai_cadp.data.brain_template import brain_template

__all__ = ["head_and_brain"]

# The template's brain is larger than most.
SIZE = 0.97
SHAPE = (108, 124, 132)


def head_and_brain(tilt=0.0, shift=(0.0, 0.0, 0.0), size=SIZE, t1=True):
    """Return the T1 (or T2) scan of a head, of its brain alone, and their affine: float32 arrays, 2 mm.

    Args:
        tilt: degrees by which the head nods.
        shift: in millimetres.
        size: of the brain against the template.
    """
    template = brain_template(SHAPE, 2.0).t1[0].numpy()
    middle = np.array(ndimage.center_of_mass(template > 0.05))
    angle = np.deg2rad(tilt)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]) / size
    # The brain lies above the middle: beneath it are the face and the neck.
    centre = np.array([54, 60, 84])
    brain = ndimage.affine_transform(template, turn, middle - turn @ centre, order=1)
    inside = ndimage.binary_fill_holes(ndimage.binary_closing(brain > 0.05, iterations=3))
    brain = np.where(inside, brain, 0)
    x, y, z = (axis * 2.0 for axis in np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]])
    x, y, z = x - 2 * centre[0], y - 2 * centre[1], z - 2 * centre[2]
    far = ndimage.distance_transform_edt(~inside) * 2.0
    face = ((x / 60) ** 2 + ((y - 35) / 55) ** 2 + ((z + 75) / 70) ** 2 < 1) | (
        (x / 55) ** 2 + ((y + 20) / 60) ** 2 < 1
    ) & (z < -40)
    soft = (far < 15) | face
    head = np.where(soft, 0.45, 0.0)
    head[(far > 10) & (far <= 15)] = 0.95
    head[far <= 10] = 0.08
    head[far <= 3] = 0.2
    for side in (-32, 32):
        head[((x - side) ** 2 + (y - 78) ** 2 + (z + 38) ** 2) < 12**2] = 0.25
    head[((x / 12) ** 2 + ((y - 60) / 25) ** 2 + ((z + 65) / 20) ** 2) < 1] = 0.02
    head = np.where(inside, np.maximum(brain, 0.2), head)
    if not t1:
        head, brain = np.where(head > 0, 1.05 - head, 0), np.where(inside, 1.05 - brain, 0)
    noise = np.abs(0.01 * np.random.RandomState(0).standard_normal(SHAPE))
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = np.array(shift) - 2 * np.array(SHAPE) / 2
    return (1000 * (head + noise)).astype(np.float32), (1000 * brain).astype(np.float32), affine
