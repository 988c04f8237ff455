# SPDX-License-Identifier: Apache-2.0
"""Masks as DICOM segmentations by highdicom, and how those of a release are known again."""

from __future__ import annotations

import io
from collections.abc import Sequence

import highdicom
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from monai_cadp.data.decoded_image import DecodedImage, numeric, to_ras
from monai_cadp.data.dicom_writing import RANDOM_UID
from monai_cadp.data.silence import Refusal

__all__ = ["decode_segmentation", "dicom_segmentation", "is_segmentation_written_here"]

MAKER = "monai_cadp"
# Of how segmentations are written, and not of the package or a library, which may change before one is looked at again.
FORMAT = "1"
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
    return _written(mask, series, num_mask_classes, *(generate_uid(None) for _ in range(3)))


def is_segmentation_written_here(content: bytes, series: Sequence[bytes]) -> bool:
    """Tell whether a file is one that :func:`dicom_segmentation` writes for a released series, and nothing else.

    The mask that its bits say and its own three random names are taken from it, and all else from the series: written
    anew, it must be the same file to the last byte. So it says the guarantee that the series says, and refers to it.
    Bits themselves cannot tell, as pixels of images cannot. What another version of highdicom has written otherwise is
    not known again.

    Args:
        content: of the file.
        series: the files of the released volume, each of which
            :func:`~monai_cadp.data.dicom_writing.is_written_here`.

    Example:
        >>> from monai_cadp.data.dicom_writing import dicom_series
        >>> promised = {"epsilon": 4.0, "delta": 0.0}
        >>> one, other = (dicom_series(np.zeros((4, 5, 3)), np.eye(4), promised) for _ in range(2))
        >>> content = dicom_segmentation(np.ones((4, 5, 3)), one, 2)
        >>> is_segmentation_written_here(content, one), is_segmentation_written_here(content, other)
        (True, False)
    """
    try:
        found = dcmread(io.BytesIO(content))
        organization = found.DimensionOrganizationSequence[0].DimensionOrganizationUID
        names = [str(name) for name in (found.SeriesInstanceUID, found.SOPInstanceUID, organization)]
        if not all(RANDOM_UID.fullmatch(name) for name in names):
            return False
        # Along right, anterior and superior, as released masks are.
        mask = decode_segmentation(found).voxels[0]
        return _written(mask, series, len(found.SegmentSequence) + 1, *names) == content
    except Exception:
        # Whatever it is that cannot be read so.
        return False


def _written(
    mask: np.ndarray,
    series: Sequence[bytes],
    num_mask_classes: int,
    series_uid: str,
    instance_uid: str,
    organization_uid: str,
) -> bytes:
    slices = [dcmread(io.BytesIO(content)) for content in series]
    made_by = highdicom.AlgorithmIdentificationSequence(MAKER, codes.DCM.ArtificialIntelligence, FORMAT)
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
        series_instance_uid=series_uid,
        series_number=2,
        sop_instance_uid=instance_uid,
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=FORMAT,
        device_serial_number="0",
        # So that it covers the volume.
        omit_empty_frames=False,
    )
    # What highdicom adds of its own: when, and by what, this was written.
    del written.InstanceCreationDate, written.InstanceCreationTime, written.ContributingEquipmentSequence
    made = {"ContentDate": MADE_ON, "ContentTime": MADE_AT}
    for name, value in (made | {name: slices[0][name].value for name in STATED}).items():
        setattr(written, name, value)
    for sequence in (written.DimensionOrganizationSequence, written.DimensionIndexSequence):
        for item in sequence:
            item.DimensionOrganizationUID = organization_uid
    written.file_meta.ImplementationVersionName = "MONAI_CADP"
    buffer = io.BytesIO()
    written.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
