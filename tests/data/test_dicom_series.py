# SPDX-License-Identifier: Apache-2.0
"""DICOM in and out: what is suspect or incomplete is refused, and a new series holds nothing but the release."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from monai_cadp.data import PublicGrid, ReadImage, ReadVolume
from monai_cadp.data.dicom_writing import dicom_picture, dicom_series, is_written_here
from monai_cadp.data.file_items import file_item

VALIDATOR = shutil.which("dciodvfy")

GRID = PublicGrid((6, 7, 5), spacing=2.0, centre=(1.0, -3.0, 4.0))
GUARANTEE = {"epsilon": 4.0, "delta": 0.0, "unit": "volume"}


@pytest.fixture
def volume():
    return np.random.default_rng(0).random((6, 7, 5))


def read(files):
    return [pydicom.dcmread(io.BytesIO(content)) for content in files]


def slices(files, folder, count=6):
    return files.series(folder, (np.arange(4 * 5 * count).reshape(4, 5, count) % 251).astype(np.int16))


def test_a_missing_slice_is_noticed(files, tmp_path, refused):
    folder = slices(files, tmp_path / "series")
    ReadImage((4, 4, 4), intensity_range=(0, 255))(folder)
    next(path for path in folder.iterdir() if pydicom.dcmread(path).ImagePositionPatient[2] == 2).unlink()
    with refused(ValueError, "gaps between its slices"):
        ReadImage((4, 4, 4), intensity_range=(0, 255))(folder)


def test_slices_of_two_sizes_are_refused(files, tmp_path, refused):
    folder = slices(files, tmp_path / "series")
    path = next(iter(folder.iterdir()))
    dataset = pydicom.dcmread(path)
    dataset.PixelSpacing = [3.0, 3.0]
    dataset.save_as(path)
    with refused(ValueError, "mixes slices of several sizes"):
        ReadImage((4, 4, 4), intensity_range=(0, 255))(folder)


def test_files_that_are_not_dicom_do_not_belong_into_a_series(files, tmp_path, refused):
    folder, read = slices(files, tmp_path / "series"), ReadImage((4, 4, 4), intensity_range=(0, 255))
    expected = read(folder)
    # But for notes, which nobody takes for a slice.
    (folder / "notes.txt").write_text("Mustermann-1954")
    assert (read(folder) == expected).all()
    # A slice is one whatever it is called.
    named = sorted(folder.glob("*.dcm"))[0]
    named.rename(folder / "slice.txt")
    assert (read(folder) == expected).all()
    (folder / "viewer.exe").write_text("Mustermann-1954")
    with refused(ValueError, "not DICOM"):
        read(folder)


@pytest.mark.parametrize(
    ("changes", "suspect"),
    [
        ({}, False),
        ({"BurnedInAnnotation": "YES"}, True),
        ({"BurnedInAnnotation": "NO"}, False),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.3.1"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.3.1", "BurnedInAnnotation": "NO"}, False),
        # Optical coherence tomography, and a registration: their numbers only begin alike.
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.5.4"}, False),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.1"}, False),
    ],
)
def test_text_that_may_be_burned_in_is_refused(files, tmp_path, refused, changes, suspect):
    path = files.dicom(tmp_path / "a.dcm", **changes)
    if suspect:
        with refused(ValueError, "text burned into its pixels"):
            ReadImage((4, 4), intensity_range=(0, 255))(path)
    else:
        assert ReadImage((4, 4), intensity_range=(0, 255))(path).shape == (1, 4, 4)


@pytest.mark.parametrize("name", ["rtplan.dcm", "reportsi.dcm", "waveform_ecg.dcm"])
def test_a_file_without_an_image_is_refused(name, refused, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shutil.copy(get_testdata_file(name, download=False), tmp_path / "a.dcm")
    with refused(ValueError, "holds no image"):
        ReadImage((4, 4), intensity_range=(0, 255))(tmp_path / "a.dcm")


MR_FILES = (
    "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_truncated.dcm", "CT_small.dcm", "693_J2KI.dcm",
    "JPEG2000.dcm", "JPGExtended.dcm", "examples_overlay.dcm", "rtdose.dcm", "liver_1frame.dcm", "badVR.dcm",
    "SC_rgb_rle_2frame.dcm", "examples_ybr_color.dcm", "no_meta.dcm", "ExplVR_BigEndNoMeta.dcm",
)  # fmt: skip


@pytest.mark.parametrize("name", MR_FILES)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_every_file_of_pydicom_is_read_or_refused_with_a_reason(name, spatial_dims, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shutil.copy(get_testdata_file(name, download=False), tmp_path / "a.dcm")
    try:
        if spatial_dims == 2:
            volume = ReadImage((4, 4), intensity_range=(0, 4095))(tmp_path / "a.dcm")
        else:
            volume = ReadVolume(GRID)(tmp_path / "a.dcm")
        assert np.isfinite(volume.numpy()).all()
    except ValueError as error:
        assert str(error).endswith(".") and "/" not in str(error)


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"])
def test_encodings_of_one_image_are_read_alike(name, tmp_path):
    paths = [get_testdata_file(each, download=False) for each in ("MR_small.dcm", name)]
    one, other = (ReadImage((64, 64), intensity_range=(0, 4095))(path) for path in paths)
    assert (one - other).abs().max() == 0


@pytest.fixture
def series(volume, tmp_path):
    """A folder with one intact series."""
    folder = tmp_path / "series"
    folder.mkdir()
    for index, content in enumerate(dicom_series(volume, GRID.affine, GUARANTEE)):
        (folder / f"{index}.dcm").write_bytes(content)
    return folder


def change(path, function):
    slice_ = pydicom.dcmread(path)
    function(slice_)
    slice_.save_as(path)


@pytest.mark.parametrize(
    "name", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SeriesInstanceUID"]
)
def test_an_attribute_that_a_series_lacks_is_named(series, refused, name):
    for value in ("", None):
        change(series / "1.dcm", lambda slice_, value=value: setattr(slice_, name, value))
        with refused(ValueError, f"lacks {name}; export it again"):
            ReadVolume(GRID)(series)
    change(series / "1.dcm", lambda slice_: delattr(slice_, name))
    with refused(ValueError, f"lacks {name}; export it again"):
        ReadVolume(GRID)(series)


@pytest.mark.parametrize("name", ["Rows", "BitsAllocated", "PhotometricInterpretation"])
def test_an_attribute_that_an_image_lacks_is_named(series, refused, name):
    change(series / "1.dcm", lambda slice_: delattr(slice_, name))
    with refused(ValueError, f"lacks {name}; export it again"):
        ReadImage((6, 7), intensity_range=(0, 4095))(series / "1.dcm")


def test_a_file_without_a_preamble_is_named_as_such(series, refused):
    content = (series / "1.dcm").read_bytes()
    (series / "1.dcm").write_bytes(content[132:])
    for read, path in ((ReadVolume(GRID), series), (ReadImage((6, 7), intensity_range=(0, 4095)), series / "1.dcm")):
        with refused(ValueError, "has no preamble"):
            read(path)


def test_the_index_of_a_viewer_is_counted_and_a_dicomdir_passed_over(series, refused):
    shutil.copy(get_testdata_file("DICOMDIR"), series / "DICOMDIR")
    shutil.copy(get_testdata_file("DICOMDIR"), series / "index.dcm")
    assert ReadVolume(GRID)(series).shape == (1, 6, 7, 5)
    (series / "LICENSE.txt").write_text("of the collection")
    (series / "sidecar.json").write_text("{}")
    assert ReadVolume(GRID)(series).shape == (1, 6, 7, 5)
    (series / "viewer.exe").write_bytes(b"MZ")
    with refused(ValueError, "1 of .* files of a folder are not DICOM, such as the index of a viewer"):
        ReadVolume(GRID)(series)


def test_the_directory_of_a_medium_makes_no_other_item_of_a_series(series):
    """By another item the series would be released a second time, with other noise."""
    item = file_item(series, None)
    for name in ("DICOMDIR", "+index.dcm"):
        shutil.copy(get_testdata_file("DICOMDIR"), series / name)
        assert file_item(series, None) == item
    (series / "+notes.txt").write_text("of the collection")
    assert file_item(series, None) == item


def test_slices_at_unequal_distances_are_refused_as_such(series, refused):
    change(series / "4.dcm", lambda slice_: setattr(slice_, "ImagePositionPatient", [-5, 9, 17]))
    with refused(ValueError, "unequal distances"):
        ReadVolume(GRID)(series)


def test_a_series_read_again_is_the_volume(volume, tmp_path):
    for index, content in enumerate(dicom_series(volume, GRID.affine, GUARANTEE)):
        (tmp_path / f"{(index * 3) % 5}.dcm").write_bytes(content)
    again = ReadImage(GRID.spatial_shape, intensity_range=(0, 4095))(tmp_path)
    assert np.abs(again[0].numpy() - volume).max() < 1e-3


def test_a_series_lies_where_the_grid_does(volume):
    first, *_, last = read(dicom_series(volume, GRID.affine, GUARANTEE))
    corner = (GRID.affine @ [0, 0, 0, 1])[:3] * [-1, -1, 1]
    assert np.allclose([float(value) for value in first.ImagePositionPatient], corner)
    assert float(last.ImagePositionPatient[2]) == corner[2] + 8.0
    assert [float(value) for value in first.ImageOrientationPatient] == [-1, 0, 0, 0, -1, 0]
    assert [float(value) for value in first.PixelSpacing] == [2.0, 2.0]


def test_voxels_that_are_no_cubes_on_turned_axes_keep_their_spacing(volume):
    """The first axis of the volume runs from the feet to the head, the second from left to right."""
    affine = np.array([[0, 2.0, 0, 5], [0, 0, 3.0, 6], [0.5, 0, 0, 7], [0, 0, 0, 1]])
    first, second, *_ = read(dicom_series(volume, affine, GUARANTEE))
    assert [float(value) for value in first.ImageOrientationPatient] == [0, 0, 1, -1, 0, 0]
    assert [float(value) for value in first.PixelSpacing] == [2.0, 0.5]
    assert np.allclose(np.subtract(second.ImagePositionPatient, first.ImagePositionPatient), [0, -3, 0])
    assert float(first.SliceThickness) == 3.0


def test_a_series_says_that_it_names_nobody_and_why(volume):
    for part in read(dicom_series(volume, GRID.affine, GUARANTEE)):
        assert part.SeriesDescription == "Privatized volume"
        assert part.PatientIdentityRemoved == "YES" and part.BurnedInAnnotation == "NO"
        assert "epsilon 4, delta 0" in part.DeidentificationMethod
        assert part.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert part.Modality == "MR" and part.SOPClassUID.name == "MR Image Storage"
        assert not part.StudyDate and not part.PatientBirthDate and part.PatientName == "Released^"


def test_a_series_says_that_it_is_synthetic(volume):
    for content in dicom_series(volume, np.eye(4), GUARANTEE):
        slice_ = pydicom.dcmread(io.BytesIO(content))
        assert slice_.SyntheticData == "YES" and "Drawn by a generative network" in slice_.DerivationDescription


@pytest.mark.skipif(VALIDATOR is None and "CI" not in os.environ, reason="needs dicom3tools")
@pytest.mark.parametrize(("kind", "required"), [("MRImage", "ImagePositionPatient"), ("SCImage", "ConversionType")])
def test_a_validator_of_dicom_finds_no_error(volume, tmp_path, kind, required):
    written = dicom_series(volume, np.eye(4), GUARANTEE) if kind == "MRImage" else pictures()
    for content in written:
        (tmp_path / "object.dcm").write_bytes(content)
        said = subprocess.run([VALIDATOR, str(tmp_path / "object.dcm")], capture_output=True, text=True).stderr
        # The one attribute that is younger than the validator.
        errors = [line for line in said.splitlines() if line.startswith("Error") and "(0x0008,0x001c)" not in line]
        assert kind in said and not errors
        broken = pydicom.dcmread(tmp_path / "object.dcm")
        del broken[required]
        broken.save_as(tmp_path / "object.dcm")
        said = subprocess.run([VALIDATOR, str(tmp_path / "object.dcm")], capture_output=True, text=True).stderr
        assert "Error - Missing attribute" in said


def pictures():
    random = np.random.default_rng(1)
    return [dicom_picture(random.integers(0, 256, shape).astype(np.uint8), GUARANTEE) for shape in ((5, 7), (5, 7, 3))]


def test_a_picture_read_again_is_the_release_and_names_nobody(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7)).astype(np.uint8)
    (tmp_path / "a.dcm").write_bytes(dicom_picture(pixels, GUARANTEE))
    again = ReadImage((5, 7), intensity_range=(0, 255))(tmp_path / "a.dcm")
    assert (again[0].numpy() * 255).round().astype(np.uint8).tolist() == pixels.tolist()
    gray, color = read(pictures())
    assert (gray.PhotometricInterpretation, color.PhotometricInterpretation) == ("MONOCHROME2", "RGB")
    for picture in (gray, color):
        assert picture.SyntheticData == picture.PatientIdentityRemoved == "YES" and picture.ConversionType == "SYN"
        assert "epsilon 4, delta 0" in picture.DeidentificationMethod and picture.PatientName == "Released^"
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID"):
        assert gray[name].value != color[name].value


def test_a_picture_in_colour_read_again_has_its_colours():
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    (picture,) = read([dicom_picture(pixels, GUARANTEE)])
    assert picture.pixel_array.tolist() == pixels.tolist()


def test_an_object_states_no_smaller_epsilon_than_its_guarantee():
    (picture,) = read([dicom_picture(np.zeros((5, 7), np.uint8), {**GUARANTEE, "epsilon": 0.907259049})])
    assert "epsilon 0.90726, delta 0" in picture.DeidentificationMethod


@pytest.mark.parametrize("length", [64, 65])
def test_a_text_of_64_characters_is_kept_whole_and_a_longer_one_is_cut_there(length):
    text = ("unit " + "0123456789" * 7)[:length]
    (picture,) = read([dicom_picture(np.zeros((5, 7), np.uint8), {**GUARANTEE, "unit": text.removeprefix("unit ")})])
    assert picture.DeidentificationMethod[-1] == text[:64]


def test_an_object_is_known_again_for_its_own_guarantee_alone(volume):
    for content in (*dicom_series(volume, GRID.affine, GUARANTEE), *pictures()):
        assert is_written_here(content, GUARANTEE) and not is_written_here(content + b"\0", GUARANTEE)
        assert not is_written_here(content, {**GUARANTEE, "epsilon": 1.0})
        assert not is_written_here(content, {**GUARANTEE, "unit": "patient"})
    for name in ("MR_small.dcm", "CT_small.dcm", "SC_rgb_rle_2frame.dcm"):
        with open(get_testdata_file(name, download=False), "rb") as file:
            assert not is_written_here(file.read(), GUARANTEE)


def test_two_series_of_one_volume_share_no_identifier(volume):
    one, other = (read(dicom_series(volume, GRID.affine, GUARANTEE)) for _ in range(2))
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID", "PatientID"):
        assert not {str(part[name].value) for part in one} & {str(part[name].value) for part in other}
    assert len({part.SOPInstanceUID for part in one}) == 5 and len({part.SeriesInstanceUID for part in one}) == 1
