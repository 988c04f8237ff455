# SPDX-License-Identifier: Apache-2.0
"""A scan comes to the public grid from any orientation, spacing and format, and brings nothing else along."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from nibabel.orientations import axcodes2ornt

from monai_cadp.data import PublicGrid, ReadVolume

CANARY = "Mustermann-1954"
GRID = PublicGrid((20, 24, 16), spacing=2.0)


def head(spacing=(1.0, 1.0, 1.0), size=(40, 48, 32)):
    """An egg with a bright ball in its right, front, upper part; (array, affine) in right, anterior, superior."""
    axes = [(np.arange(int(n / s)) - (int(n / s) - 1) / 2) * s for n, s in zip(size, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    array = 100.0 * ((x / 16) ** 2 + (y / 20) ** 2 + (z / 13) ** 2 < 1)
    array += 80.0 * ((x - 7) ** 2 + (y - 9) ** 2 + (z - 5) ** 2 < 9)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [axis[0] for axis in axes]
    return array.astype(np.float32), affine


def oriented(array, affine, codes):
    orientation = axcodes2ornt(codes)
    image = nibabel.Nifti1Image(array, affine)
    return image.as_reoriented(nibabel.orientations.ornt_transform(axcodes2ornt("RAS"), orientation))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(*head()), path)
    return ReadVolume(GRID)(path)


def test_what_is_right_in_front_and_above_stays_there(reference):
    x, y, z = np.unravel_index(int(reference[0].argmax()), GRID.spatial_shape)
    place = GRID.affine @ [x, y, z, 1]
    assert np.abs(place[:3] - [7, 9, 5]).max() < 3


@pytest.mark.parametrize("codes", ["LPS", "LAS", "SRA", "PIR", "AIL"])
def test_orientation_makes_no_difference(codes, reference, tmp_path):
    nibabel.save(oriented(*head(), codes), tmp_path / "a.nii")
    assert (ReadVolume(GRID)(tmp_path / "a.nii") - reference).abs().max() < 1e-4


@pytest.mark.parametrize("spacing", [(0.5, 1.0, 2.0), (2.0, 2.0, 2.0), (1.0, 0.8, 1.6)])
def test_spacing_makes_little_difference(spacing, reference, tmp_path):
    nibabel.save(nibabel.Nifti1Image(*head(spacing)), tmp_path / "a.nii")
    assert np.corrcoef(ReadVolume(GRID)(tmp_path / "a.nii").flatten(), reference.flatten())[0, 1] > 0.97


def test_place_in_the_scanner_and_units_make_no_difference(reference, tmp_path):
    array, affine = head()
    affine[:3, 3] += [31.0, -55.0, 140.0]
    nibabel.save(nibabel.Nifti1Image(3.7 * array, affine), tmp_path / "a.nii")
    assert (ReadVolume(GRID)(tmp_path / "a.nii") - reference).abs().max() < 1e-4


def test_a_turned_head_is_turned_back(reference, tmp_path):
    """An oblique affine says where the axes point."""
    array, affine = head()
    angle = np.deg2rad(12)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    image = nibabel.Nifti1Image(array, turn @ affine)
    nibabel.save(image, tmp_path / "a.nii")
    x, y, _ = np.unravel_index(int(ReadVolume(GRID)(tmp_path / "a.nii")[0].argmax()), GRID.spatial_shape)
    expected = turn[:2, :2] @ [7, 9]
    assert np.abs((GRID.affine @ [x, y, 0, 1])[:2] - expected).max() < 3


def test_formats_agree(reference, files, tmp_path):
    array, affine = head()
    image = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    image.SetOrigin([-affine[0, 3], -affine[1, 3], affine[2, 3]])
    SimpleITK.WriteImage(image, str(tmp_path / "a.nrrd"))
    assert (ReadVolume(GRID)(tmp_path / "a.nrrd") - reference).abs().max() < 1e-3
    # Slices of a series run to the left and to the back.
    folder = files.series(tmp_path / "series", array[::-1, ::-1].astype(np.int16), pixel_spacing=1.0)
    assert (ReadVolume(GRID)(folder) - reference).abs().max() < 1e-2


def test_only_voxels_come_out(files, tmp_path):
    path = files.nifti(tmp_path / f"{CANARY}.nii.gz", *head())
    volume = ReadVolume(GRID)(path)
    assert type(volume) is torch.Tensor and not vars(volume)
    assert volume.shape == (1, *GRID.spatial_shape) and volume.dtype == torch.float32
    assert 0 <= volume.min() and volume.max() <= 1


def test_what_lies_outside_of_a_standardised_scan_is_dark(tmp_path):
    """It is 0, as what was masked away, and half of the head is darker."""
    array, affine = head()
    inside = array > 0
    tissue = np.where(inside, array + 40.0 * np.indices(array.shape)[0] / len(array), 0.0)
    nibabel.save(nibabel.Nifti1Image(tissue.astype(np.float32), affine), tmp_path / "a.nii")
    standardised = np.where(inside, (tissue - tissue[inside].mean()) / tissue[inside].std(), 0.0)
    nibabel.save(nibabel.Nifti1Image(standardised.astype(np.float32), affine), tmp_path / "b.nii")
    plain, scaled = (ReadVolume(GRID)(tmp_path / name) for name in ("a.nii", "b.nii"))
    assert float(scaled[0, 0, 0, 0]) == 0
    assert np.corrcoef(plain.flatten(), scaled.flatten())[0, 1] > 0.85


def test_the_bright_part_of_the_head_has_the_brightness_asked_for(tmp_path):
    array, affine = head()
    nibabel.save(nibabel.Nifti1Image(np.where(array > 0, 100.0, 0.0), affine), tmp_path / "a.nii")
    assert ReadVolume(GRID, bright=0.6)(tmp_path / "a.nii").max() == pytest.approx(0.6, abs=0.01)


def test_the_centre_of_mass_goes_where_it_should(tmp_path):
    nibabel.save(nibabel.Nifti1Image(*head()), tmp_path / "a.nii")
    volume = ReadVolume(GRID, mass_centre=(4.0, -2.0, 0.0))(tmp_path / "a.nii")[0]
    places = np.indices(GRID.spatial_shape).reshape(3, -1).T * GRID.spacing
    weights = (volume > 0.1).float().numpy().flatten()
    centre = (places * weights[:, None]).sum(0) / weights.sum() + GRID.affine[:3, 3]
    assert np.abs(centre - [4.0, -2.0, 0.0]).max() < 1.0


def four_dimensions(folder):
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 8, 3), np.float32), np.eye(4)), folder / f"{CANARY}.nii")


def without_contrast(folder):
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4)), folder / f"{CANARY}.nii")


def flat(folder):
    nibabel.save(nibabel.Nifti1Image(np.random.rand(8, 8, 1).astype(np.float32), np.eye(4)), folder / f"{CANARY}.nii")


def three_slices(folder):
    nibabel.save(nibabel.Nifti1Image(np.random.rand(8, 8, 3).astype(np.float32), np.eye(4)), folder / f"{CANARY}.nii")


def without_geometry(folder):
    image = nibabel.Nifti1Image(np.random.rand(8, 8, 8).astype(np.float32), None)
    image.header.set_zooms((1e-6, 1, 1))
    image.set_sform(np.diag([1e-6, 1, 1, 1]), code=1)
    nibabel.save(image, folder / f"{CANARY}.nii")


@pytest.mark.parametrize(
    "make", [four_dimensions, without_contrast, flat, three_slices, without_geometry], ids=lambda m: m.__name__
)
def test_what_is_no_scan_of_a_head_is_refused(make, refused, tmp_path):
    make(tmp_path)
    with refused(ValueError, "expected"):
        ReadVolume(GRID)(tmp_path / f"{CANARY}.nii")


def test_not_finite_voxels_are_dark(tmp_path, reference):
    array, affine = head()
    array[0, 0, 0], array[1, 1, 1] = np.nan, np.inf
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "a.nii")
    assert (ReadVolume(GRID)(tmp_path / "a.nii") - reference).abs().max() < 1e-4


@pytest.mark.parametrize("bad", [{"mass_centre": (1.0, 2.0)}, {"bright": 0.0}, {"bright": 1.5}])
def test_impossible_parameters_are_refused(bad, refused):
    with refused(ValueError, "expected"):
        ReadVolume(GRID, **bad)


@pytest.mark.parametrize("bad", [((4, 4), 1.0), ((4, 4, 0), 1.0), ((4, 4, 4), 0.0), ((4, 4, 4), 1.0, (0.0,))])
def test_impossible_grids_are_refused(bad, refused):
    with refused(ValueError, "expected"):
        PublicGrid(*bad)


def test_the_middle_of_a_grid_is_where_it_was_asked_for():
    grid = PublicGrid((5, 7, 9), spacing=2.0, centre=(1.0, 2.0, 3.0))
    assert (grid.affine @ [2, 3, 4, 1])[:3].tolist() == [1.0, 2.0, 3.0]
