# SPDX-License-Identifier: Apache-2.0
"""Affine registration of one brain to the public template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_cadp.data.brain_template import BRAIN_CENTRE, brain_template
from monai_cadp.data.public_grid import PublicGrid
from monai_cadp.data.silence import silenced_descriptors
from monai_cadp.data.volume_sampling import sample_on_grid, volume_image

__all__ = ["T1_CONTRAST", "RegisteredBrain", "register_brain"]

#: White matter is brighter than gray by this factor or more; on T2 and FLAIR images it is darker.
T1_CONTRAST = 1.05

# Right, anterior and superior size of the box around the template in which the two are compared, and its voxels, in
# millimetres. All voxels take part, so that nothing is drawn at random.
BOX, SPACING = (192.0, 240.0, 192.0), 3.0
# Of every level, in voxels; the first is smoothed by one voxel of the box.
SHRINK = (2, 1)
NUM_BINS = 32
# Of regular step gradient descent: first and smallest step, how many, and what a step is multiplied by where the
# direction turns. Plain gradient descent does not converge here.
FIRST_STEP, SMALLEST_STEP, NUM_STEPS, RELAXATION, SMALLEST_GRADIENT = 2.0, 1e-3, 300, 0.6, 1e-6
# Voxels of the template that are surely of the brain, of gray or of white matter.
BRAIN, GRAY, WHITE = 0.05, 0.7, 0.9


@dataclass(frozen=True)
class RegisteredBrain:
    """One brain that lies on the template, and how well.

    Args:
        dice: overlap of its mask with that of the template, 0 to 1.
        white_to_gray: how much brighter it is where the template has white matter than where that is gray: above 1 in
            T1 contrast.
        stretch: of the map, along the axis that it stretches most against the one that it stretches least, 1 or more.
    """

    dice: float
    white_to_gray: float
    stretch: float
    _image: Any
    _transform: Any

    def on_grid(self, grid: PublicGrid) -> np.ndarray:
        r"""Sample the brain on a grid that lies in the template's space.

        Returns:
            float32 array (\*grid.spatial_shape).
        """
        with silenced_descriptors():
            return sample_on_grid(self._image, grid.spatial_shape, grid.spacing, grid.affine[:3, 3], self._transform)


def register_brain(
    voxels: np.ndarray, mask: np.ndarray, affine: np.ndarray, spacing: float = SPACING
) -> RegisteredBrain:
    """Register a brain to the MNI152 template by an affine map, starting from its centre of mass.

    The map has the largest mutual information (Mattes) of all voxels; where the optimiser ends at less than it
    started from, the start is kept. One thread and no random numbers: the same scan gives the same result.

    Args:
        voxels: the scan (X, Y, Z), 0 or more.
        mask: where its brain is (X, Y, Z), bool.
        affine: from indices to millimetres right, anterior, superior (4, 4).
        spacing: of the voxels that are compared, in millimetres; more is faster.

    References:
        Mattes, Haynor, Vesselle, Lewellen, Eubank: PET-CT image registration in the chest using free-form deformations,
        IEEE Transactions on Medical Imaging 22, 2003. The template: :func:`brain_template`.

    Example:
        >>> template = brain_template((48, 60, 48), spacing=4.0).t1[0].numpy()
        >>> affine = PublicGrid((48, 60, 48), 4.0, (9.0, -11.0, 3.0)).affine
        >>> register_brain(template, template > 0.05, affine).dice > 0.95
        True
    """
    right, anterior, superior = (round(size / spacing) for size in BOX)
    shape = (right, anterior, superior)
    template, grid = brain_template(shape, spacing), PublicGrid(shape, spacing, BRAIN_CENTRE)
    with silenced_descriptors():
        fixed = volume_image(template.t1[0].numpy(), grid.affine)
        moving = volume_image(np.where(mask, voxels, 0), affine)
        transform = _optimised(fixed, moving, spacing)
        place = (shape, spacing, grid.affine[:3, 3], transform)
        there = sample_on_grid(volume_image(mask, affine), *place) > 0.5
        brightness = sample_on_grid(moving, *place)
    brain, gray, white = (
        there & (share[0].numpy() > least)
        for share, least in ((template.t1, BRAIN), (template.gray, GRAY), (template.white, WHITE))
    )
    ratio = 0.0
    if gray.any() and white.any():
        ratio = float(np.median(brightness[white]) / max(np.median(brightness[gray]), 1e-6))
    dice = 2 * brain.sum() / (there.sum() + (template.t1[0].numpy() > BRAIN).sum())
    return RegisteredBrain(float(dice), ratio, _stretch(transform), moving, transform)


def _stretch(transform: Any) -> float:
    origin = np.array(transform.TransformPoint([0.0, 0.0, 0.0]))
    stretches = np.linalg.svd([transform.TransformPoint(axis) - origin for axis in np.eye(3).tolist()])[1]
    return float(stretches.max() / max(stretches.min(), 1e-6))


def _optimised(fixed: Any, moving: Any, spacing: float) -> Any:
    # Here, because it takes long.
    import SimpleITK

    # Averaged over the voxels of the template.
    width = np.sqrt(np.maximum((0.42 * spacing) ** 2 - (0.42 * np.array(moving.GetSpacing())) ** 2, 1e-6))
    moving = SimpleITK.SmoothingRecursiveGaussian(moving, width.tolist())
    start = SimpleITK.CenteredTransformInitializer(
        fixed, moving, SimpleITK.AffineTransform(3), SimpleITK.CenteredTransformInitializerFilter.MOMENTS
    )
    registration = SimpleITK.ImageRegistrationMethod()
    registration.SetNumberOfThreads(1)
    registration.SetMetricAsMattesMutualInformation(NUM_BINS)
    registration.SetMetricSamplingStrategy(registration.NONE)
    registration.SetInterpolator(SimpleITK.sitkLinear)
    registration.SetOptimizerAsRegularStepGradientDescent(
        FIRST_STEP, SMALLEST_STEP, NUM_STEPS, RELAXATION, SMALLEST_GRADIENT
    )
    registration.SetOptimizerScalesFromPhysicalShift()
    registration.SetShrinkFactorsPerLevel(list(SHRINK))
    registration.SetSmoothingSigmasPerLevel([spacing, 0.0])
    registration.SetInitialTransform(start, inPlace=False)
    found = registration.Execute(fixed, moving)
    # Less is better.
    values = []
    for transform in (found, start):
        registration.SetInitialTransform(transform, inPlace=False)
        values.append(registration.MetricEvaluate(fixed, moving))
    return found if values[0] <= values[1] else start
