# SPDX-License-Identifier: Apache-2.0
"""Skull stripping: where the brain is in the T1 scan of a head."""

from __future__ import annotations

import numpy as np

from monai_cadp.data.silence import Refusal, silenced_descriptors
from monai_cadp.extras import extra

__all__ = ["extract_brain"]

# Intracranial volumes of adults, in millilitres, and by which share one may lie outside: a head in the enlarged space
# of the MNI152 template has 1,956.
SMALLEST, LARGEST, TOLERANCE = 1100.0, 1900.0, 0.1


def extract_brain(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Find the brain, with the fluid around it, by the network of deepbet, which comes with its weights.

    It runs on the processor, in memory: no file is written, and nothing is downloaded. It takes some seconds and
    1.2 GB.

    Args:
        voxels: the scan (X, Y, Z), whose axes point about right, anterior, superior.
        affine: from indices to millimetres (4, 4).

    Returns:
        Whether each voxel is in the brain, bool (X, Y, Z).

    Raises:
        Refusal: if no brain is found, or its volume is not that of an adult.
        MissingExtraError: if deepbet is not installed.

    References:
        Fisch et al.: deepbet: Fast brain extraction of T1-weighted MRI using Convolutional Neural Networks, Computers
        in Biology and Medicine 179, 2024.
    """
    with extra("brain", "Finding the brain in a head"):
        from deepbet import BrainExtraction
    import nibabel

    image = nibabel.Nifti1Image(voxels.astype(np.float32), affine)
    try:
        with silenced_descriptors():
            _, found, _ = BrainExtraction(no_gpu=True).run(image)
    except (AssertionError, IndexError, RuntimeError, ValueError):
        # Its network has marked nothing.
        raise Refusal("No brain was found in a scan; expected the T1 scan of a whole head.") from None
    mask = np.asanyarray(found.dataobj) > 0
    volume = mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
    if not (1 - TOLERANCE) * SMALLEST <= volume <= (1 + TOLERANCE) * LARGEST:
        raise Refusal(
            f"What was taken for the brain in a scan is {'smaller' if volume < SMALLEST else 'larger'} than an "
            f"adult's; expected a whole head, with {SMALLEST:,.0f} to {LARGEST:,.0f} ml within the skull, give or take "
            f"{TOLERANCE:.0%}."
        )
    return mask
