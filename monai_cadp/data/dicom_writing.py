# SPDX-License-Identifier: Apache-2.0
"""Releases as new DICOM objects, every element of which is written here, and how such objects are known again."""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, SecondaryCaptureImageStorage, generate_uid

from monai_cadp.privacy.exact_numbers import as_read

__all__ = ["dicom_picture", "dicom_series", "is_written_here"]

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
LARGEST_VALUE = 4095
# DICOM's long strings end here.
LONGEST_TEXT = 64
# Made by generate_uid(None), of 128 random bits.
RANDOM_UID = re.compile(r"2\.25\.[0-9]{1,39}")
RANDOM_PATIENT = re.compile("[0-9a-f]{16}")
# What differs from one object to another: random names, places on the public grid, and pixels.
RANDOM = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
MEASURES = (
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "InstanceNumber",
    "Rows",
    "Columns",
)


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
        slice_ = _stated_slice(guarantee)
        slice_.PatientID, slice_.SOPInstanceUID = patient, generate_uid(None)
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = study, series, frame
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


def dicom_picture(pixels: np.ndarray, guarantee: Mapping[str, Any]) -> bytes:
    """Write an image in two dimensions as Secondary Capture Image Storage, in a study of its own.

    Nothing comes from a source, as in :func:`dicom_series`.

    Args:
        pixels: released values, uint8 (height, width), or (height, width, 3) of red, green and blue.
        guarantee: of the release, with "epsilon" and "delta"; stated in DeidentificationMethod.

    Returns:
        The file.

    References:
        DICOM PS3.3 A.8.1 (Secondary Capture Image IOD), PS3.15 annex E (attribute confidentiality profiles).

    Example:
        >>> dicom_picture(np.zeros((4, 5), np.uint8), {"epsilon": 4.0, "delta": 0.0})[128:132]
        b'DICM'
    """
    picture = _stated_picture(guarantee, samples=1 if pixels.ndim == 2 else 3)
    picture.PatientID = secrets.token_hex(8)
    picture.StudyInstanceUID, picture.SeriesInstanceUID, picture.SOPInstanceUID = (generate_uid(None) for _ in range(3))
    picture.InstanceNumber = 1
    picture.Rows, picture.Columns = pixels.shape[:2]
    content = np.ascontiguousarray(pixels).tobytes()
    picture.PixelData = content + b"\0" * (len(content) % 2)
    picture["PixelData"].VR = "OB"
    return _packed(picture)


def is_written_here(content: bytes, guarantee: Mapping[str, Any]) -> bool:
    """Tell whether a file is one that this module writes for a guarantee, and nothing else.

    Every element must be one that is written here, with the value that stands there for all releases of the guarantee;
    the others are names as random ones look like, measures, which are numbers, and as many pixels as these say. Pixels
    themselves cannot tell: an original's fit where all that was written around it has been taken from a release.

    Args:
        content: of the file.
        guarantee: of the release, as for :func:`dicom_series`.

    Example:
        >>> promised = {"epsilon": 4.0, "delta": 0.0}
        >>> content = dicom_picture(np.zeros((4, 5), np.uint8), promised)
        >>> is_written_here(content, promised), is_written_here(content, {"epsilon": 1.0, "delta": 0.0})
        (True, False)
    """
    try:
        found = pydicom.dcmread(io.BytesIO(content))
        is_volume = found.SOPClassUID == MRImageStorage
        stated = _stated_slice(guarantee) if is_volume else _stated_picture(guarantee, int(found.SamplesPerPixel))
        expected = Dataset()
        for name in RANDOM:
            if name in found and RANDOM_UID.fullmatch(str(found[name].value)):
                setattr(expected, name, found[name].value)
        for name in MEASURES:
            if name in found:
                setattr(expected, name, found[name].value)
        if not RANDOM_PATIENT.fullmatch(str(found.PatientID)):
            return False
        stated.PatientID = found.PatientID
        size = found.Rows * found.Columns * found.SamplesPerPixel * found.BitsAllocated // 8
        if len(found.PixelData) != size + size % 2:
            return False
        for element in expected:
            stated.add(element)
        stated.PixelData = found.PixelData
        stated["PixelData"].VR = "OW" if is_volume else "OB"
        # Written anew from what is allowed, it must be the same file to the last byte.
        return _packed(stated) == content
    except Exception:
        # Whatever it is that cannot be read so.
        return False


def _stated_slice(guarantee: Mapping[str, Any]) -> Dataset:
    """Return all that slices of released volumes have in common."""
    slice_ = Dataset()
    slice_.SOPClassUID = MRImageStorage
    _state_identity(slice_, guarantee)
    slice_.Modality, slice_.SeriesNumber = "MR", 1
    slice_.SeriesDescription = "Privatized volume"
    slice_.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    slice_.PositionReferenceIndicator = slice_.PatientPosition = slice_.Laterality = ""
    slice_.ScanningSequence, slice_.SequenceVariant = "RM", "NONE"
    slice_.ScanOptions = slice_.MRAcquisitionType = slice_.EchoTime = slice_.EchoTrainLength = slice_.RepetitionTime = (
        ""
    )
    _state_pixels(slice_, samples=1, bits_allocated=16, bits_stored=12)
    slice_.WindowCenter, slice_.WindowWidth = LARGEST_VALUE // 2, LARGEST_VALUE
    slice_.PresentationLUTShape = "IDENTITY"
    return slice_


def _stated_picture(guarantee: Mapping[str, Any], samples: int) -> Dataset:
    """Return all that released images in two dimensions have in common."""
    picture = Dataset()
    picture.SOPClassUID = SecondaryCaptureImageStorage
    _state_identity(picture, guarantee)
    picture.Modality, picture.SeriesNumber = "OT", 1
    picture.SeriesDescription = "Privatized image"
    picture.ImageType = ["DERIVED", "SECONDARY"]
    # A synthetic image, in the words of the standard.
    picture.ConversionType = "SYN"
    picture.PatientOrientation = picture.Laterality = ""
    _state_pixels(picture, samples=samples, bits_allocated=8, bits_stored=8)
    return picture


def _state_identity(image: Dataset, guarantee: Mapping[str, Any]) -> None:
    image.PatientName = "Released^"
    image.PatientBirthDate = image.PatientSex = ""
    image.PatientIdentityRemoved = "YES"
    image.DeidentificationMethod = [
        text[:LONGEST_TEXT]
        for text in (
            "New image by monai_cadp under differential privacy",
            f"epsilon {as_read(guarantee['epsilon'])}, delta {as_read(guarantee['delta'])}",
            f"unit {guarantee.get('unit', 'not stated')}",
        )
    ]
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    image.DeidentificationMethodCodeSequence = [code]
    # Drawn anew by a network: nobody's scan, and no patient's history.
    image.SyntheticData = "YES"
    image.DerivationDescription = "Drawn by a generative network for privatized content of a scan"
    image.LongitudinalTemporalInformationModified = "REMOVED"
    image.StudyDate = image.StudyTime = image.AccessionNumber = image.ReferringPhysicianName = image.StudyID = ""
    image.BurnedInAnnotation = "NO"
    image.Manufacturer = "monai_cadp"


def _state_pixels(image: Dataset, samples: int, bits_allocated: int, bits_stored: int) -> None:
    image.SamplesPerPixel = samples
    image.PhotometricInterpretation = "MONOCHROME2" if samples == 1 else "RGB"
    if samples > 1:
        image.PlanarConfiguration = 0
    image.BitsAllocated, image.BitsStored, image.HighBit = bits_allocated, bits_stored, bits_stored - 1
    image.PixelRepresentation = 0


def _packed(slice_: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = slice_.SOPClassUID, slice_.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # Not the version of a library, which may change before a file is looked at again.
    meta.ImplementationVersionName = "MONAI_CADP"
    buffer = io.BytesIO()
    FileDataset("", slice_, file_meta=meta, preamble=b"\0" * 128).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _decimal(value: float) -> str:
    """Return a number as a decimal string of at most 16 characters."""
    return f"{value:.6f}".rstrip("0").rstrip(".") if value else "0"
