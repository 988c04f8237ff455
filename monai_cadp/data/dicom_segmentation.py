# SPDX-License-Identifier: Apache-2.0
"""Masks as DICOM segmentations, by highdicom."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.metadata import version

import highdicom
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from monai_cadp.data.decoded_image import DecodedImage, numeric, to_ras
from monai_cadp.data.silence import Refusal

__all__ = ["decode_segmentation", "dicom_segmentation"]

MAKER = "monai_cadp"
# A segmentation must say when it was made: at one fixed moment, as all released files.
MADE_ON, MADE_AT = "20000101", "000000"
# What a released series says of itself, and highdicom does not take over.
STATED = (
    *("SyntheticData", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("DerivationDescription", "LongitudinalTemporalInformationModified", "BurnedInAnnotation"),
)


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
    return DecodedImage(voxels, affine=affine, is_segmentation=True)


def dicom_segmentation(mask: np.ndarray, series: Sequence[bytes], num_mask_classes: int) -> bytes:
    """Write the mask of a released volume as a DICOM segmentation of its series, one segment for every class.

    Patient, study and place are those of the series, whose every element :func:`dicom_series` has written; the rest is
    new and random, or the same for all releases.

    Args:
        mask: classes (X, Y, Z), along right, anterior, superior; 0 for the background.
        series: the files of the released volume.
        num_mask_classes: with the background.

    Returns:
        The file.

    References:
        DICOM PS3.3 A.51 (Segmentation IOD).
    """
    slices = [dcmread(io.BytesIO(content)) for content in series]
    made_by = highdicom.AlgorithmIdentificationSequence(MAKER, codes.DCM.ArtificialIntelligence, version(MAKER))
    segments = [
        highdicom.seg.SegmentDescription(
            number,
            f"class {number}",
            codes.SCT.AnatomicalStructure,
            codes.SCT.AnatomicalStructure,
            highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            made_by,
        )
        for number in range(1, num_mask_classes)
    ]
    written = highdicom.seg.Segmentation(
        slices,
        mask.transpose(2, 1, 0).astype(np.uint8),
        highdicom.seg.SegmentationTypeValues.BINARY,
        segments,
        series_instance_uid=generate_uid(None),
        series_number=2,
        sop_instance_uid=generate_uid(None),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=version(MAKER),
        device_serial_number="0",
        # So that it covers the volume.
        omit_empty_frames=False,
    )
    # What highdicom adds of its own: when, and by what, this was written.
    del written.InstanceCreationDate, written.InstanceCreationTime, written.ContributingEquipmentSequence
    made = {"ContentDate": MADE_ON, "ContentTime": MADE_AT}
    for name, value in (made | {name: slices[0][name].value for name in STATED}).items():
        setattr(written, name, value)
    buffer = io.BytesIO()
    written.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
