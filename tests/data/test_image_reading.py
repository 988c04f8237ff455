# SPDX-License-Identifier: Apache-2.0
"""Images are read on a public scale and to a public shape, and nothing else of their files comes out."""

from __future__ import annotations

import pickle

import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_cadp.data import ReadImage, ReadImageD, ReadImaged, ReadImageDict

CANARY = "Mustermann-1954"
CT_RANGE = (-1024.0, 3072.0)


def test_an_eight_bit_picture_is_read_on_the_scale_of_its_format(files, tmp_path):
    path = files.picture(tmp_path / "a.png", [[0, 51], [102, 204]])
    assert torch.allclose(ReadImage((2, 2))(path), torch.tensor([[[0.0, 0.2], [0.4, 0.8]]]))


def test_a_sixteen_bit_picture_is_read_on_the_scale_of_its_format(tmp_path):
    Image.fromarray(np.array([[0, 65535], [13107, 0]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert torch.allclose(ReadImage((2, 2))(tmp_path / "a.png"), torch.tensor([[[0.0, 1.0], [0.2, 0.0]]]))


@pytest.mark.parametrize("brightest", [40, 80, 250])
def test_one_bright_pixel_does_not_change_the_others(files, tmp_path, brightest):
    array = np.full((4, 4), 20)
    array[0, 0] = brightest
    image = ReadImage((4, 4))(files.picture(tmp_path / "a.png", array))
    assert torch.allclose(image[0, 1:], torch.full((3, 4), 20 / 255))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_every_kind_of_picture_becomes_gray_or_color(tmp_path, mode, in_channels):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(tmp_path / f"a.{suffix}")
    image = ReadImage((4, 6), in_channels)(tmp_path / f"a.{suffix}")
    assert image.shape == (in_channels, 4, 6) and torch.allclose(image, torch.ones(()), atol=0.02)


def test_color_becomes_its_luminance(tmp_path):
    Image.new("RGB", (2, 2), (255, 0, 0)).save(tmp_path / "a.png")
    assert torch.allclose(ReadImage((2, 2), 1)(tmp_path / "a.png"), torch.tensor(0.299), atol=1e-3)


def test_rotation_stated_by_a_camera_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.array([[0, 255]], dtype=np.uint8))
    stored.save(tmp_path / "a.png", exif=exif)
    assert ReadImage((2, 1))(tmp_path / "a.png").flatten().tolist() == [0.0, 1.0]


def test_a_volume_is_clipped_to_the_public_range(files, tmp_path):
    path = files.nifti(tmp_path / "a.nii.gz", np.array([-5000, 0, 50, 100, 5000], dtype=np.float32).reshape(5, 1, 1))
    image = ReadImage((5, 1, 1), intensity_range=(0, 100))(path)
    assert image.flatten().tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_values_that_are_not_finite_become_the_low_end(files, tmp_path):
    path = files.nifti(tmp_path / "a.nii", np.array([np.nan, np.inf, -np.inf, 1], dtype=np.float32).reshape(4, 1, 1))
    assert ReadImage((4, 1, 1), intensity_range=(0, 1))(path).flatten().tolist() == [0.0, 0.0, 0.0, 1.0]


def test_channels_of_a_volume_are_its_last_axis_in_the_file(files, tmp_path):
    array = np.random.default_rng(0).random((3, 4, 5, 2)).astype(np.float32)
    image = ReadImage((3, 4, 5), 2, intensity_range=(0, 1))(files.nifti(tmp_path / "a.nii", array))
    assert torch.allclose(image, torch.from_numpy(array).movedim(-1, 0))
    assert image.is_contiguous()


def test_a_single_slice_is_an_image_in_two_dimensions(files, tmp_path):
    array = np.random.default_rng(0).random((3, 4, 1)).astype(np.float32)
    image = ReadImage((3, 4), intensity_range=(0, 1))(files.nifti(tmp_path / "a.nii", array))
    assert torch.allclose(image[0], torch.from_numpy(array[..., 0]))


def test_volumes_of_all_formats_point_right_anterior_superior(files, tmp_path):
    left_posterior = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    expected = torch.from_numpy(left_posterior[::-1, ::-1].copy()).float() / 59
    files.nifti(tmp_path / "a.nii.gz", left_posterior, np.diag([-1.0, -1.0, 1.0, 1.0]))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(left_posterior.transpose(2, 1, 0)), str(tmp_path / "a.mha"))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(left_posterior.transpose(2, 1, 0)), str(tmp_path / "a.nrrd"))
    files.series(tmp_path / "series", left_posterior)
    read = ReadImage((3, 4, 5), intensity_range=(0, 59))
    for name in ("a.nii.gz", "a.mha", "a.nrrd", "series"):
        assert torch.allclose(read(tmp_path / name)[0], expected), name


def test_dicom_is_read_in_hounsfield_units(files, tmp_path):
    path = files.dicom(tmp_path / "a.dcm")
    stored = pydicom.dcmread(path).pixel_array
    expected = ((stored - 1024.0).clip(*CT_RANGE) - CT_RANGE[0]) / (CT_RANGE[1] - CT_RANGE[0])
    image = ReadImage((128, 128), intensity_range=CT_RANGE)(path)
    assert torch.allclose(image[0].double(), torch.from_numpy(expected), atol=1e-6)


def test_dicom_without_a_suffix_is_recognised(files, tmp_path):
    assert ReadImage((8, 8), intensity_range=CT_RANGE)(files.dicom(tmp_path / "1.2.840")).shape == (1, 8, 8)


def test_dicom_whose_small_values_are_bright_is_turned_over(files, tmp_path):
    read = ReadImage((16, 16), intensity_range=CT_RANGE)
    plain = read(files.dicom(tmp_path / "a.dcm"))
    turned = read(files.dicom(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1"))
    assert torch.allclose(turned, 1 - plain, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 4), (9, 5), (16, 20)])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_resizing_keeps_a_constant_image_constant(files, tmp_path, shape, in_channels):
    image = ReadImage(shape, in_channels)(files.picture(tmp_path / "a.png", np.full((8, 11), 102)))
    assert image.shape == (in_channels, *shape) and torch.allclose(image, torch.tensor(0.4))


def test_resizing_never_leaves_the_unit_interval(files, tmp_path):
    path = files.picture(tmp_path / "a.png", np.full((11, 13), 255))
    assert all(float(ReadImage((size, size + 1))(path).max()) <= 1.0 for size in range(1, 40))


@pytest.mark.parametrize("shape", [(3, 3, 3), (4, 8, 2), (12, 12, 12)])
def test_resizing_keeps_a_constant_volume_constant(files, tmp_path, shape):
    path = files.nifti(tmp_path / "a.nii", np.full((6, 7, 8), 2, dtype=np.int16))
    assert torch.allclose(ReadImage(shape, intensity_range=(0, 4))(path), torch.full((1, *shape), 0.5))


def test_resizing_treats_the_axes_of_a_volume_alike(files, tmp_path):
    array = np.random.default_rng(0).random((6, 6, 6)).astype(np.float32)
    read = ReadImage((3, 3, 3), intensity_range=(0, 1))
    image = read(files.nifti(tmp_path / "a.nii", array))
    turned = read(files.nifti(tmp_path / "b.nii", np.ascontiguousarray(array.transpose(2, 0, 1))))
    assert torch.allclose(turned[0], image[0].permute(2, 0, 1), atol=1e-5)


def test_only_a_plain_tensor_comes_out(files, tmp_path):
    image = ReadImage((8, 8, 8), intensity_range=(0, 1))(
        files.nifti(tmp_path / f"{CANARY}.nii", np.ones((4, 4, 4), "f4"))
    )
    assert type(image) is torch.Tensor and not isinstance(image, MetaTensor)
    assert image.dtype == torch.float32 and image.is_contiguous()
    assert CANARY.encode() not in pickle.dumps(image)


def test_the_dictionary_form_replaces_paths_and_adds_nothing(files, tmp_path):
    path = files.picture(tmp_path / "a.png", np.zeros((4, 4)))
    item = {"image": path, "label": 3}
    result = ReadImaged("image", (4, 4))(item)
    assert list(result) == ["image", "label"] and result["label"] == 3
    assert torch.equal(result["image"], ReadImage((4, 4))(path))
    assert item["image"] == path
    assert ReadImageD is ReadImaged and ReadImageDict is ReadImaged


def test_a_missing_key_may_be_allowed():
    assert ReadImaged("image", (4, 4), allow_missing_keys=True)({"label": 1}) == {"label": 1}
    with pytest.raises(KeyError):
        ReadImaged("image", (4, 4))({"label": 1})


def test_the_reader_can_be_sent_to_a_worker(files, tmp_path):
    path = files.picture(tmp_path / "a.png", np.arange(16).reshape(4, 4))
    read = ReadImage((4, 4))
    assert torch.equal(pickle.loads(pickle.dumps(read))(path), read(path))


@pytest.mark.parametrize(
    "parameters",
    [
        {"spatial_shape": ()},
        {"spatial_shape": (4,)},
        {"spatial_shape": (4, 0)},
        {"spatial_shape": (4, 4, 4, 4)},
        {"in_channels": 0},
        {"intensity_range": (1, 1)},
        {"intensity_range": (2, 1)},
        {"intensity_range": (0, float("nan"))},
        {"intensity_range": (float("-inf"), 1)},
        {"intensity_range": (0, 1, 2)},
    ],
    ids=str,
)
def test_a_bad_parameter_is_refused_at_once(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        ReadImage(**{"spatial_shape": (4, 4), **parameters})
