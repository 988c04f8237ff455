# SPDX-License-Identifier: Apache-2.0
"""Masks as DICOM segmentations, by highdicom."""

from __future__ import annotations

import highdicom
from pydicom.dataset import Dataset

from monai_cadp.data.decoded_image import DecodedImage, numeric, to_ras
from monai_cadp.data.silence import Refusal

__all__ = ["decode_segmentation"]


def decode_segmentation(header: Dataset) -> DecodedImage:
    """Return the numbers of the segments, 0 where there is none, of the smallest volume that holds all frames."""
    try:
        segmentation = highdicom.seg.Segmentation.from_dataset(header, copy=False)
        volume = segmentation.get_volume(combine_segments=True, allow_missing_positions=True)
    except (ValueError, RuntimeError, AttributeError, TypeError, KeyError):
        raise Refusal(
            "A DICOM segmentation is no label map: its segments overlap or are fractions, or its frames are no "
            "parallel planes at equal distances; convert it to a NIfTI file of classes."
        ) from None
    voxels, affine = to_ras(numeric(volume.array)[None], volume.affine)
    return DecodedImage(voxels, affine=affine)
