# SPDX-License-Identifier: Apache-2.0
"""Affine registration of one brain to the public template."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_cadp.data.brain_template import BRAIN_CENTRE, brain_template
from monai_cadp.data.public_grid import PublicGrid
from monai_cadp.data.resampling import resampled
from monai_cadp.data.silence import silenced_descriptors

__all__ = ["T1_CONTRAST", "RegisteredBrain", "register_brain"]

#: White matter is brighter than gray by this factor or more; on T2 and FLAIR images it is darker.
T1_CONTRAST = 1.05
# Right, anterior and superior size of the box around the template in which the two are compared, and its voxels, in
# millimetres. All voxels take part, so that nothing is drawn at random.
BOX, SPACING = (192.0, 240.0, 192.0), 3.0
# Of the levels, in voxels; the first is smoothed by one voxel of the box.
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
    _brain: np.ndarray
    # From millimetres of the template to indices of the brain.
    _to_voxels: np.ndarray

    def on_grid(self, grid: PublicGrid) -> np.ndarray:
        r"""Sample the brain on a grid that lies in the template's space.

        Returns:
            float32 array (\*grid.spatial_shape).
        """
        return _sampled(self._brain, self._to_voxels, grid)


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
    brain = np.where(mask, voxels, 0).astype(np.float32)
    # The same box around the middle of the brain, so that no axis of the scan matters any more.
    middle = affine[:3, :3] @ np.argwhere(mask).mean(0) + affine[:3, 3]
    around = PublicGrid(shape, spacing, middle.tolist())
    with _one_thread(), silenced_descriptors():
        to_scan = _optimised(
            _image(template.t1[0].numpy(), grid),
            _image(_sampled(brain, np.linalg.inv(affine), around), around),
            spacing,
        )
    to_voxels = np.linalg.inv(affine) @ to_scan
    there = _sampled(mask.astype(np.float32), to_voxels, grid) > 0.5
    brightness = _sampled(brain, to_voxels, grid)
    both, gray, white = (
        there & (share[0].numpy() > least)
        for share, least in ((template.t1, BRAIN), (template.gray, GRAY), (template.white, WHITE))
    )
    ratio = 0.0
    if gray.any() and white.any():
        ratio = float(np.median(brightness[white]) / max(np.median(brightness[gray]), 1e-6))
    dice = 2 * both.sum() / (there.sum() + (template.t1[0].numpy() > BRAIN).sum())
    stretches = np.linalg.svd(to_scan[:3, :3])[1]
    stretch = float(stretches.max() / max(stretches.min(), 1e-6))
    return RegisteredBrain(float(dice), ratio, stretch, brain, to_voxels)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let SimpleITK use one thread: the last bits depend on several, and a ledger refuses a scan whose bits differ."""
    from SimpleITK import ProcessObject

    # Its number is that of the whole process.
    with _lock:
        usual = ProcessObject.GetGlobalDefaultNumberOfThreads()
        ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        try:
            yield
        finally:
            ProcessObject.SetGlobalDefaultNumberOfThreads(usual)


def _sampled(voxels: np.ndarray, to_voxels: np.ndarray, grid: PublicGrid) -> np.ndarray:
    shape = (grid.spatial_shape[0], grid.spatial_shape[1], grid.spatial_shape[2])
    return resampled(voxels, np.linalg.inv(to_voxels), grid.affine, shape, outside=0.0)


def _image(voxels: np.ndarray, grid: PublicGrid) -> Any:
    # Here, because it takes long.
    import SimpleITK

    # The axes are named as they come: SimpleITK need not know that they point right and anterior.
    image = SimpleITK.GetImageFromArray(voxels.transpose(2, 1, 0).astype(np.float32))
    image.SetSpacing([grid.spacing] * 3)
    image.SetOrigin(grid.affine[:3, 3].tolist())
    return image


def _optimised(fixed: Any, moving: Any, spacing: float) -> np.ndarray:
    """Return the affine (4, 4) from millimetres of the fixed image to those of the moving one."""
    import SimpleITK

    start = SimpleITK.CenteredTransformInitializer(
        fixed, moving, SimpleITK.AffineTransform(3), SimpleITK.CenteredTransformInitializerFilter.MOMENTS
    )
    registration = SimpleITK.ImageRegistrationMethod()
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
    best = found if values[0] <= values[1] else start
    affine = np.eye(4)
    affine[:3, 3] = best.TransformPoint([0.0, 0.0, 0.0])
    affine[:3, :3] = np.stack([best.TransformPoint(axis) - affine[:3, 3] for axis in np.eye(3).tolist()], axis=1)
    return affine


_lock = threading.Lock()
