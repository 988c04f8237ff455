# SPDX-License-Identifier: Apache-2.0
"""Masks as DICOM segmentations: what is written belongs to the released series alone, and is read as what it was."""

from __future__ import annotations

import io
import os
import shutil
import subprocess

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from benchmarks.reading_phantom import places
from monai_cadp.data import PublicGrid, ReadLabelledVolume, ReadVolume
from monai_cadp.data.dicom_segmentation import dicom_segmentation
from monai_cadp.data.dicom_writing import dicom_series

VALIDATOR = shutil.which("dciodvfy")
GRID = PublicGrid((12, 15, 9), spacing=2.0, centre=(1.0, -3.0, 4.0))
GUARANTEE = {"epsilon": 4.0, "delta": 0.0, "unit": "volume"}
# All that a segmentation may hold at its top, by what its value comes from.
FIXED = {
    *("ImageType", "SOPClassUID", "SyntheticData", "ContentDate", "ContentTime", "Modality", "Manufacturer"),
    *("ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "SeriesNumber", "InstanceNumber"),
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "LossyImageCompression", "SegmentationType", "SegmentSequence"),
    *("SegmentsOverlap", "ContentLabel", "ContentDescription", "PresentationLUTShape", "ContentCreatorName"),
    *("PatientName", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("DerivationDescription", "LongitudinalTemporalInformationModified", "BurnedInAnnotation"),
    "SharedFunctionalGroupsSequence",
}
EMPTY = {
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "PositionReferenceIndicator"),
}
RANDOM = {
    *("SOPInstanceUID", "SeriesInstanceUID", "DimensionOrganizationSequence", "DimensionIndexSequence"),
    *("ReferencedSeriesSequence", "SourceImageSequence", "PerFrameFunctionalGroupsSequence"),
    *("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"),
}


def mask_of(grid=GRID, classes=3):
    """A ball of each class but the background."""
    where, mask = places(grid.affine, grid.spatial_shape), np.zeros(grid.spatial_shape, np.uint8)
    for number in range(1, classes):
        mask[np.linalg.norm(where - grid.centre - [6.0 * number - 9, 4.0, 1.0 - number], axis=-1) < 5] = number
    return mask


def written(mask=None, classes=3):
    """A series and the segmentation of a mask."""
    mask = mask_of() if mask is None else mask
    series = dicom_series(np.random.default_rng(0).random(GRID.spatial_shape), GRID.affine, GUARANTEE)
    return [pydicom.dcmread(io.BytesIO(one)) for one in (*series, dicom_segmentation(mask, series, classes))]


def stored(folder, mask, **options):
    """A series in a folder of its own, and a segmentation beside it, as paths."""
    series = dicom_series(np.random.default_rng(0).random(GRID.spatial_shape), GRID.affine, GUARANTEE)
    (folder / "series").mkdir()
    for index, content in enumerate(series):
        (folder / "series" / f"{index}.dcm").write_bytes(content)
    (folder / "mask.dcm").write_bytes(dicom_segmentation(mask, series, options.pop("classes", 3)))
    return folder / "series", folder / "mask.dcm"


@pytest.mark.parametrize("mask", [mask_of(), np.zeros(GRID.spatial_shape, np.uint8)], ids=["balls", "nothing"])
def test_a_mask_is_read_as_what_was_written(mask, tmp_path):
    image, classes = ReadLabelledVolume(GRID, 3, intensity_range=(0, 4095))(*stored(tmp_path, mask))
    assert np.array_equal(classes[0].numpy(), mask)
    assert image.shape == classes.shape


def test_a_segmentation_refers_to_the_released_series_and_shares_its_place_and_patient():
    *series, segmentation = written()
    (referenced,) = segmentation.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == series[0].SeriesInstanceUID
    uids = {one.ReferencedSOPInstanceUID for one in referenced.ReferencedInstanceSequence}
    assert uids == {one.SOPInstanceUID for one in series}
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert segmentation[name].value == series[0][name].value
    assert segmentation.SeriesInstanceUID != series[0].SeriesInstanceUID
    assert [one.SegmentNumber for one in segmentation.SegmentSequence] == [1, 2]


def test_it_says_that_it_is_synthetic_and_under_which_guarantee():
    segmentation = written()[-1]
    assert segmentation.SyntheticData == "YES" and segmentation.PatientIdentityRemoved == "YES"
    assert "epsilon 4, delta 0" in segmentation.DeidentificationMethod


def test_every_element_is_on_a_list_and_tells_nothing_of_when_or_where_it_was_written():
    one, other = (written()[-1] for _ in range(2))
    names = {element.keyword for element in one} - {"PixelData"}
    assert names <= FIXED | EMPTY | RANDOM
    assert all(one[name].value in ("", None) for name in names & EMPTY)
    for name in names & FIXED:
        assert one[name].value == other[name].value, name
    for name in names & RANDOM:
        assert one[name].value != other[name].value, name
    times = [element for element in one.iterall() if element.VR in ("DA", "TM", "DT") and element.value]
    assert {(element.keyword, element.value) for element in times} == {
        ("ContentDate", "20000101"),
        ("ContentTime", "000000"),
    }


@pytest.mark.skipif(VALIDATOR is None and "CI" not in os.environ, reason="needs dicom3tools")
def test_a_validator_of_dicom_finds_no_error(tmp_path):
    _, path = stored(tmp_path, mask_of())
    said = subprocess.run([VALIDATOR, str(path)], capture_output=True, text=True).stderr
    # The one attribute that is younger than the validator.
    errors = [line for line in said.splitlines() if line.startswith("Error") and "(0x0008,0x001c)" not in line]
    assert "Segmentation" in said and not errors
    broken = pydicom.dcmread(path)
    del broken.SegmentSequence
    broken.save_as(path)
    assert "Error - Missing attribute" in subprocess.run([VALIDATOR, str(path)], capture_output=True, text=True).stderr


# --- segmentations from elsewhere -------------------------------------------------------------------------------------


def segmentation_from_elsewhere(folder, mask, kind="BINARY", **options):
    """A segmentation as a hospital's tools write it; returns its series and its file."""
    series, path = stored(folder, mask_of())
    slices = [pydicom.dcmread(one) for one in sorted(series.iterdir())]
    count = mask.shape[-1] if mask.ndim == 4 else int(mask.max())
    segments = [
        highdicom.seg.SegmentDescription(n, f"{n}", codes.SCT.Organ, codes.SCT.Liver, "MANUAL")
        for n in range(1, count + 1)
    ]
    highdicom.seg.Segmentation(
        slices, mask, kind, segments, "1.2.3", 2, "1.2.3.4", 1, "maker", "model", "1", "2", **options
    ).save_as(path)
    return series, path


def test_frames_without_anything_may_be_left_out(tmp_path):
    series, path = segmentation_from_elsewhere(tmp_path, mask_of().transpose(2, 1, 0))
    assert pydicom.dcmread(path).NumberOfFrames < 2 * GRID.spatial_shape[2]
    _, classes = ReadLabelledVolume(GRID, 3, intensity_range=(0, 4095))(series, path)
    assert np.array_equal(classes[0].numpy(), mask_of())


def test_a_small_segment_far_from_the_middle_is_read_in_its_place(tmp_path):
    mask = np.zeros(GRID.spatial_shape, np.uint8)
    mask[2:4, 2:4, 0:2] = 1
    series, path = segmentation_from_elsewhere(tmp_path, mask.transpose(2, 1, 0))
    _, classes = ReadLabelledVolume(GRID, 2, intensity_range=(0, 4095))(series, path)
    assert np.array_equal(classes[0].numpy(), mask)


def test_a_segmentation_of_an_image_in_another_format_is_read_in_its_own_place(tmp_path):
    _, path = stored(tmp_path, mask_of())
    affine = np.diag([-1.0, 1.0, 3.0, 1.0])
    affine[:3, 3] = np.array(GRID.centre) - affine[:3, :3] @ np.array([20, 22, 5])
    image = np.random.default_rng(0).random((41, 45, 11)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "image.nii.gz")
    grid = PublicGrid((13, 15, 9), spacing=2.0)
    _, classes = ReadLabelledVolume(grid, 3)(tmp_path / "image.nii.gz", path)
    for number in (1, 2):
        middle = 2.0 * (np.argwhere(classes[0].numpy() == number).mean(0) - [6, 7, 4])
        true = places(GRID.affine, GRID.spatial_shape)[mask_of() == number].mean(0) - GRID.centre
        # Half a voxel.
        assert np.abs(middle - true).max() <= 1.0 + 1e-6


def test_segments_that_overlap_are_refused(tmp_path, refused):
    both = np.stack([mask_of().transpose(2, 1, 0) > 0] * 2, axis=-1).astype(np.uint8)
    paths = segmentation_from_elsewhere(tmp_path, both)
    with refused(ValueError, "no label map: its segments overlap or are fractions"):
        ReadLabelledVolume(GRID, 3)(*paths)


def test_segments_that_are_fractions_are_refused(tmp_path, refused):
    share = np.where(mask_of() > 0, 0.4, 0.0).transpose(2, 1, 0)
    paths = segmentation_from_elsewhere(tmp_path, share[..., None], "FRACTIONAL")
    with refused(ValueError, "no label map: its segments overlap or are fractions"):
        ReadLabelledVolume(GRID, 3)(*paths)


def test_a_segment_that_is_no_class_is_refused(tmp_path, refused):
    paths = stored(tmp_path, mask_of(), classes=3)
    with refused(ValueError, "something else than the classes 0 to 1"):
        ReadLabelledVolume(GRID, 2)(*paths)


def test_a_segmentation_is_no_scan(tmp_path, refused):
    _, path = stored(tmp_path, mask_of())
    with refused(ValueError, "is a segmentation"):
        ReadVolume(GRID)(path)
