# SPDX-License-Identifier: Apache-2.0
"""A released volume as a new DICOM series, every element of which is written here."""

from __future__ import annotations

import io
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

__all__ = ["dicom_series"]

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
LARGEST_VALUE = 4095
# DICOM's long strings end here.
LONGEST_TEXT = 64


def dicom_series(volume: np.ndarray, affine: np.ndarray, guarantee: Mapping[str, Any]) -> list[bytes]:
    """Write a volume as axial slices of MR Image Storage, from bottom to top.

    Nothing comes from a source: identifiers are new and random, dates are empty, patient's attributes too, except for
    an identifier that is random as well. The pixels hold the released values on a scale of 12 bits.

    Args:
        volume: released values (X, Y, Z) in [0, 1], along right, anterior, superior.
        affine: from indices to millimetres (4, 4), of a public grid.
        guarantee: of the release, with "epsilon" and "delta"; stated in DeidentificationMethod.

    Returns:
        The files, one for every slice.

    References:
        DICOM PS3.3 A.4 (MR Image IOD), PS3.15 annex E (attribute confidentiality profiles).

    Example:
        >>> len(dicom_series(np.zeros((4, 5, 3)), np.eye(4), {"epsilon": 4.0, "delta": 0.0}))
        3
    """
    study, series, frame = generate_uid(None), generate_uid(None), generate_uid(None)
    patient = secrets.token_hex(8)
    geometry = RAS_TO_LPS @ affine
    spacing = np.linalg.norm(geometry[:3, :3], axis=0)
    # Rows run along the second axis of the volume, columns along the first.
    directions = [*(geometry[:3, 0] / spacing[0]), *(geometry[:3, 1] / spacing[1])]
    pixels = np.round(volume.clip(0, 1) * LARGEST_VALUE).astype("<u2")
    files = []
    for index in range(volume.shape[2]):
        slice_ = Dataset()
        slice_.SOPClassUID = MRImageStorage
        slice_.SOPInstanceUID = generate_uid(None)
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = study, series, frame
        _state_identity(slice_, patient, guarantee)
        _state_image(slice_)
        slice_.InstanceNumber = index + 1
        slice_.ImageOrientationPatient = [_decimal(value) for value in directions]
        slice_.ImagePositionPatient = [_decimal(value) for value in (geometry @ [0, 0, index, 1])[:3]]
        slice_.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
        slice_.SliceThickness = slice_.SpacingBetweenSlices = _decimal(spacing[2])
        plane = pixels[:, :, index].T
        slice_.Rows, slice_.Columns = plane.shape
        slice_.PixelData = plane.tobytes()
        files.append(_packed(slice_))
    return files


def _state_identity(slice_: Dataset, patient: str, guarantee: Mapping[str, Any]) -> None:
    slice_.PatientName = "Released^"
    slice_.PatientID = patient
    slice_.PatientBirthDate = slice_.PatientSex = ""
    slice_.PatientIdentityRemoved = "YES"
    slice_.DeidentificationMethod = [
        text[:LONGEST_TEXT]
        for text in (
            "New image by monai_cadp under differential privacy",
            f"epsilon {guarantee['epsilon']:g}, delta {guarantee['delta']:g}",
            f"unit {guarantee.get('unit', 'not stated')}",
        )
    ]
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    slice_.DeidentificationMethodCodeSequence = [code]
    # Drawn anew by a network: nobody's scan, and no patient's history.
    slice_.SyntheticData = "YES"
    slice_.DerivationDescription = "Drawn by a generative network for privatized content of a scan"
    slice_.LongitudinalTemporalInformationModified = "REMOVED"
    slice_.StudyDate = slice_.StudyTime = slice_.AccessionNumber = slice_.ReferringPhysicianName = slice_.StudyID = ""
    slice_.BurnedInAnnotation = "NO"
    slice_.Manufacturer = "monai_cadp"


def _state_image(slice_: Dataset) -> None:
    slice_.Modality, slice_.SeriesNumber = "MR", 1
    slice_.SeriesDescription = "Privatized volume"
    slice_.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    slice_.PositionReferenceIndicator = slice_.PatientPosition = slice_.Laterality = ""
    slice_.ScanningSequence, slice_.SequenceVariant = "RM", "NONE"
    slice_.ScanOptions = slice_.MRAcquisitionType = slice_.EchoTime = slice_.EchoTrainLength = slice_.RepetitionTime = (
        ""
    )
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 12, 11, 0
    slice_.WindowCenter, slice_.WindowWidth = LARGEST_VALUE // 2, LARGEST_VALUE
    slice_.PresentationLUTShape = "IDENTITY"


def _packed(slice_: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = slice_.SOPClassUID, slice_.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    FileDataset("", slice_, file_meta=meta, preamble=b"\0" * 128).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _decimal(value: float) -> str:
    """Return a number as a decimal string of at most 16 characters."""
    return f"{value:.6f}".rstrip("0").rstrip(".") if value else "0"
