# SPDX-License-Identifier: Apache-2.0
"""A bad file is refused, and the refusal tells nothing about whose it is."""

from __future__ import annotations

import gc
import shutil
import traceback
import warnings

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from monai_cadp.data import ReadImage

CANARY = "Mustermann-1954"
CT_RANGE = (-1024.0, 3072.0)


def missing(files, folder):
    return folder / f"{CANARY}.png"


def text_called_png(files, folder):
    (folder / f"{CANARY}.png").write_text("no image")
    return folder / f"{CANARY}.png"


def empty_png(files, folder):
    (folder / f"{CANARY}.png").write_bytes(b"")
    return folder / f"{CANARY}.png"


def truncated(path, keep=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def noise(*shape):
    return np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)


def truncated_png(files, folder):
    return truncated(files.picture(folder / f"{CANARY}.png", noise(64, 64)))


def truncated_jpeg(files, folder):
    return truncated(files.picture(folder / f"{CANARY}.jpeg", noise(64, 64)))


def truncated_nifti(files, folder):
    return truncated(files.nifti(folder / f"{CANARY}.nii", noise(8, 8, 1)))


def truncated_packed_nifti(files, folder):
    return truncated(files.nifti(folder / f"{CANARY}.nii.gz", noise(32, 32, 1)))


def truncated_dicom(files, folder):
    return truncated(files.dicom(folder / f"{CANARY}.dcm"))


def truncated_metaimage(files, folder):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(noise(32, 32)), str(folder / f"{CANARY}.mha"))
    return truncated(folder / f"{CANARY}.mha")


def volume(files, folder):
    return files.nifti(folder / f"{CANARY}.nii", noise(4, 4, 4))


def color_values(files, folder):
    rgb = np.zeros((4, 4, 1), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    return files.nifti(folder / f"{CANARY}.nii", rgb)


def complex_values(files, folder):
    return files.nifti(folder / f"{CANARY}.nii", np.ones((4, 4, 1), dtype=np.complex64))


def two_channels(files, folder):
    return files.nifti(folder / f"{CANARY}.nii", np.ones((4, 4, 1, 2), dtype=np.float32))


def five_channels_of_a_volume_without_depth(files, folder):
    return files.nifti(folder / f"{CANARY}.nii", np.ones((4, 4, 1, 5), dtype=np.float32))


def unknown_format(files, folder):
    np.save(folder / f"{CANARY}.npy", np.ones((4, 4)))
    return folder / f"{CANARY}.npy"


def several_frames(files, folder):
    frame = Image.new("L", (4, 4))
    frame.save(folder / f"{CANARY}.tiff", save_all=True, append_images=[frame])
    return folder / f"{CANARY}.tiff"


def empty_series(files, folder):
    (folder / CANARY).mkdir()
    return folder / CANARY


def not_a_path(files, folder):
    return [str(folder / CANARY)]


def series_in_two_dimensions(files, folder):
    return files.series(folder / CANARY, np.zeros((4, 4, 3), dtype=np.int16))


BAD = [
    missing, text_called_png, empty_png, truncated_png, truncated_jpeg, truncated_nifti, truncated_packed_nifti,
    truncated_dicom, truncated_metaimage, volume, color_values, complex_values, two_channels,
    five_channels_of_a_volume_without_depth, unknown_format, several_frames, empty_series, not_a_path,
    series_in_two_dimensions,
]  # fmt: skip


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_bad_file_is_refused_in_one_sentence_that_tells_nothing(files, tmp_path, make, capfd, caplog):
    path = make(files, tmp_path)
    capfd.readouterr()
    with pytest.raises(ValueError) as caught:
        ReadImage((4, 4), 1, intensity_range=(0, 1))(path)
    message = str(caught.value)
    assert message.endswith(".") and ". " not in message
    # Nor does an error inside the error, what a logger prints of it, or anything a library has said meanwhile.
    assert caught.value.__context__ is None and caught.value.__cause__ is None
    shown = "".join(traceback.format_exception_only(caught.value)) + "".join(capfd.readouterr()) + caplog.text
    assert CANARY not in shown and str(tmp_path) not in shown


@pytest.mark.parametrize("make", [volume, lambda files, folder: files.dicom(folder / "a.dcm")], ids=["nifti", "dicom"])
def test_a_medical_format_needs_a_public_range(files, tmp_path, make):
    shape = (4, 4, 4) if make is volume else (4, 4)
    with pytest.raises(ValueError, match="intensity_range"):
        ReadImage(shape)(make(files, tmp_path))


def test_a_series_with_two_slices_at_one_place_is_refused(files, tmp_path):
    folder = files.series(tmp_path / CANARY, np.zeros((4, 4, 3), dtype=np.int16))
    shutil.copy(folder / "0.dcm", folder / "copy.dcm")
    with pytest.raises(ValueError, match="two slices at one position"):
        ReadImage((4, 4, 4), intensity_range=(0, 1))(folder)


def test_a_folder_with_two_series_is_refused(files, tmp_path):
    folder = files.series(tmp_path / CANARY, np.zeros((4, 4, 3), dtype=np.int16))
    files.dicom(folder / "other.dcm")
    with pytest.raises(ValueError, match="one DICOM series"):
        ReadImage((4, 4, 4), intensity_range=(0, 1))(folder)


def test_what_a_library_finds_odd_in_a_header_is_not_passed_on(files, tmp_path):
    folder = files.series(tmp_path / "series", np.zeros((4, 4, 3), dtype=np.int16), uid=CANARY)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert ReadImage((4, 4, 3), intensity_range=(0, 1))(folder).shape == (1, 4, 4, 3)
        gc.collect()
    assert CANARY not in "".join(str(warning.message) for warning in warned)
