# SPDX-License-Identifier: Apache-2.0
"""A volume and its mask are read onto one public grid, and whatever does not fit is refused without a name."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch

from monai_cadp.data import LabelledVolumes, PublicGrid, ReadLabelledVolume
from tests.conftest import CANARY

GRID = PublicGrid((16, 20, 12), spacing=2.0)
# Of the phantom's organ, in millimetres from the middle of the image.
CENTRE, RADII = np.array([4.0, -5.0, 2.0]), np.array([6.0, 8.0, 5.0])


def places(affine, shape):
    """Millimetres (a, b, c, 3) of the voxels of a volume."""
    indices = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), axis=-1)
    return indices @ affine[:3, :3].T + affine[:3, 3]


def organ(affine, shape):
    """How far out in an ellipsoid every voxel lies; 1 is its edge."""
    return np.linalg.norm((places(affine, shape) - CENTRE) / RADII, axis=-1)


def around(matrix, shape):
    """The affine whose middle voxel lies at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) // 2)
    return affine


def phantom(folder, affine=None, shape=(36, 44, 28), mask_affine=None, classes=None, name=f"{CANARY}.nii.gz"):
    """An image whose organ is brighter, and its mask."""
    affine = around(np.eye(3), shape) if affine is None else affine
    mask_affine = affine if mask_affine is None else mask_affine
    bright = 100 + 800 / (1 + np.exp(8 * (organ(affine, shape) - 1)))
    mask = (organ(mask_affine, shape) < 1).astype(np.uint8) if classes is None else classes
    for part, voxels, one in (("images", bright.astype(np.float32), affine), ("labels", mask, mask_affine)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels, one), folder / part / name)
    return folder


def rotation(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


SHEAR = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, np.tan(np.radians(-18.5))], [0.0, 0.0, 1.0]])
MATRICES = {
    "axes as they are": np.eye(3),
    "to the left and to the back": np.diag([-1.0, -1.0, 1.0]),
    "axes in another order": np.array([[0.0, 0, 1.2], [1.2, 0, 0], [0, -1.2, 0]]),
    "thick slices": np.diag([1.0, 1.0, 2.5]),
    "oblique": rotation(25.0),
    "sheared by a tilted gantry": SHEAR,
}
# Odd: the middle of an even number of voxels depends on which way they go.
SHAPE = (49, 53, 41)


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("mask_matrix", [None, np.diag([-1.0, 1.0, -1.0])], ids=["one space", "a mask of other axes"])
def test_what_lies_somewhere_is_read_there_in_image_and_mask(tmp_path, matrix, mask_matrix):
    affine = around(matrix, SHAPE)
    other = affine if mask_matrix is None else around(mask_matrix, SHAPE)
    item = LabelledVolumes(phantom(tmp_path, affine, SHAPE, other), ReadLabelledVolume(GRID, 2))[0]
    on_grid = around(2.0 * np.eye(3), GRID.spatial_shape)
    true = organ(on_grid, GRID.spatial_shape)
    mask, image = item["mask"][0].numpy(), item["image"][0].numpy()
    middle = places(on_grid, GRID.spatial_shape)[mask == 1].mean(0)
    assert np.abs(middle - CENTRE).max() < 1.0, middle
    # Nearest voxels of thick slices are off by half of one.
    assert 2 * ((mask == 1) & (true < 1)).sum() / ((mask == 1).sum() + (true < 1).sum()) > 0.85
    assert np.corrcoef(image.ravel(), (1 / (1 + np.exp(8 * (true - 1)))).ravel())[0, 1] > 0.98


def test_a_volume_on_the_grid_s_own_lattice_is_only_cropped(tmp_path):
    """Odd sizes, too: half a voxel's move would blur it."""
    voxels = np.random.default_rng(0).random((17, 21, 13)).astype(np.float32)
    for part, array in (("images", voxels), ("labels", (voxels > 0.5).astype(np.uint8))):
        (tmp_path / part).mkdir()
        nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / part / "a.nii.gz")
    item = LabelledVolumes(tmp_path, ReadLabelledVolume(GRID, 2, intensity_range=(0, 1)))[0]
    cropped = voxels[1:, 1:, 1:] if np.allclose(item["image"][0, 0, 0, 0], voxels[1, 1, 1]) else voxels[:-1, :-1, :-1]
    assert np.abs(item["image"][0].numpy() - cropped).max() < 1e-6
    assert np.array_equal(item["mask"][0].numpy(), cropped > 0.5)


def test_intensities_have_a_public_range_or_two_percentiles(tmp_path):
    folder = phantom(tmp_path)
    image = LabelledVolumes(folder, ReadLabelledVolume(GRID, 2, intensity_range=(-900, 1100)))[0]["image"]
    assert float(image.min()) == pytest.approx(0.5, abs=0.01) and float(image.max()) == pytest.approx(0.9, abs=0.03)
    image = LabelledVolumes(folder, ReadLabelledVolume(GRID, 2))[0]["image"]
    low, high = np.percentile(image, [1, 99])
    assert (low, high) == (pytest.approx(0.1, abs=1e-3), pytest.approx(0.8, abs=1e-3))


def test_a_scale_of_the_scanner_s_own_makes_no_difference(tmp_path):
    one = LabelledVolumes(phantom(tmp_path / "a"), ReadLabelledVolume(GRID, 2))[0]["image"]
    file = tmp_path / "a" / "images" / f"{CANARY}.nii.gz"
    scaled = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(scaled.get_fdata() * 340.0, scaled.affine), file)
    other = LabelledVolumes(tmp_path / "a", ReadLabelledVolume(GRID, 2))[0]["image"]
    assert torch.allclose(one, other, atol=1e-4)


def test_a_series_whose_small_values_are_bright_is_turned_over(files, tmp_path):
    """And not as black: the range is in the units of the file."""
    voxels = np.random.default_rng(0).integers(0, 1000, (9, 9, 9)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(np.ones((9, 9, 9), np.uint8), np.diag([-1.0, -1, 1, 1])), tmp_path / "mask.nii")
    read = ReadLabelledVolume(PublicGrid((9, 9, 9), spacing=1.0), 2, intensity_range=(100, 1100))
    plain, _ = read(files.series(tmp_path / "plain", voxels), tmp_path / "mask.nii")
    turned = files.series(tmp_path / "turned", 1200 - voxels)
    for path in turned.iterdir():
        header = pydicom.dcmread(path)
        header.PhotometricInterpretation = "MONOCHROME1"
        header.save_as(path)
    assert plain.max() > 0.5
    assert torch.allclose(read(turned, tmp_path / "mask.nii")[0], plain, atol=1e-6)


def test_a_datalist_says_class_and_subject(tmp_path):
    phantom(tmp_path)
    pair = {"image": f"images/{CANARY}.nii.gz", "mask": f"labels/{CANARY}.nii.gz"}
    entries = [{**pair, "label": 1, "subject": "7"}]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries, "test": [pair]}))
    item = LabelledVolumes(tmp_path / "list.json", ReadLabelledVolume(GRID, 2))[0]
    assert (int(item["label"]), item["subject"]) == (1, "7") and CANARY not in item["item"]
    bare = LabelledVolumes(tmp_path / "list.json", ReadLabelledVolume(GRID, 2), datalist_key="test")[0]
    assert set(bare) == {"image", "mask"} and torch.equal(bare["image"], item["image"])


def test_the_list_of_a_datalist_follows_the_split(tmp_path):
    phantom(tmp_path)
    pair = {"image": f"images/{CANARY}.nii.gz", "mask": f"labels/{CANARY}.nii.gz"}
    lists = {key: [{**pair, "label": label}] for label, key in enumerate(("training", "validation", "test"))}
    (tmp_path / "list.json").write_text(json.dumps(lists))
    for label, split in enumerate(("train", "val", "test")):
        assert (
            int(LabelledVolumes(tmp_path / "list.json", ReadLabelledVolume(GRID, 2), split=split)[0]["label"]) == label
        )
        assert len(LabelledVolumes(tmp_path, ReadLabelledVolume(GRID, 2), split=split)) == 1


def test_a_metaimage_with_a_nifti_mask_is_a_pair(tmp_path):
    folder = phantom(tmp_path)
    expected = LabelledVolumes(folder, ReadLabelledVolume(GRID, 2))[0]
    file = folder / "images" / f"{CANARY}.nii.gz"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(file)), str(folder / "images" / f"{CANARY}.mha"))
    file.unlink()
    item = LabelledVolumes(folder, ReadLabelledVolume(GRID, 2))[0]
    assert torch.allclose(item["image"], expected["image"], atol=1e-5) and torch.equal(item["mask"], expected["mask"])


def test_subjects_of_a_folder_are_found_in_names(tmp_path):
    for name in ("anna_1.nii.gz", "anna_2.nii.gz", "bert_1.nii.gz"):
        phantom(tmp_path, name=name)
    volumes = LabelledVolumes(tmp_path, ReadLabelledVolume(GRID, 2), subject_pattern="^([a-z]+)_")
    assert [volumes[index]["subject"] for index in range(3)] == ["anna", "anna", "bert"]
    assert len({volumes[index]["item"] for index in range(3)}) == 3


# --- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["images", "labels"])
def test_what_has_no_partner_is_refused(tmp_path, refused, part):
    phantom(tmp_path)
    (tmp_path / part / f"{CANARY}.nii.gz").rename(tmp_path / part / f"{CANARY}2.nii.gz")
    with refused(ValueError, "2 files .* have no partner"):
        LabelledVolumes(tmp_path, ReadLabelledVolume(GRID, 2))


def test_a_datalist_without_a_mask_is_refused(tmp_path, refused):
    phantom(tmp_path)
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"image": f"images/{CANARY}.nii.gz"}]}))
    with refused(ValueError, 'Entry 1 of 1 of the datalist has no text under "mask"'):
        LabelledVolumes(tmp_path / "list.json", ReadLabelledVolume(GRID, 2))


def test_a_list_of_a_folder_is_refused(tmp_path, refused):
    """Or the whole folder would be released, in place of what was asked for."""
    with refused(ValueError, "datalist_key was given, but the source is a folder"):
        LabelledVolumes(phantom(tmp_path), ReadLabelledVolume(GRID, 2), datalist_key="test")


def test_an_unknown_split_is_refused(tmp_path, refused):
    with refused(ValueError, "The split is 'testing'; expected one of train, val, test"):
        LabelledVolumes(phantom(tmp_path), ReadLabelledVolume(GRID, 2), split="testing")


def test_litter_and_empty_folders_are_no_volumes(tmp_path):
    phantom(tmp_path)
    for part in ("images", "labels"):
        (tmp_path / part / "__MACOSX").mkdir()
        (tmp_path / part / "__MACOSX" / "._a.nii.gz").write_bytes(b"no volume")
        (tmp_path / part / "Thumbs.db").write_bytes(b"no volume")
    (tmp_path / "images" / "empty").mkdir()
    assert len(LabelledVolumes(tmp_path, ReadLabelledVolume(GRID, 2))) == 1


def test_a_file_that_is_no_volume_is_not_passed_over(tmp_path, refused):
    phantom(tmp_path)
    (tmp_path / "images" / f"{CANARY}.zip").write_text("volumes")
    with refused(ValueError, "1 files .* are no volumes"):
        LabelledVolumes(tmp_path, ReadLabelledVolume(GRID, 2))


@pytest.mark.parametrize("value", [2, -1, 0.5])
def test_a_mask_of_an_unknown_class_is_refused(tmp_path, refused, value):
    classes = np.zeros((36, 44, 28), dtype=np.float32)
    classes[3, 4, 5] = value
    volumes = LabelledVolumes(phantom(tmp_path, classes=classes), ReadLabelledVolume(GRID, 2))
    with refused(ValueError, "something else than the classes 0 to 1"):
        volumes[0]


def test_a_mask_somewhere_else_is_refused(tmp_path, refused):
    far = around(np.eye(3), (36, 44, 28))
    far[0, 3] += 500
    volumes = LabelledVolumes(phantom(tmp_path, mask_affine=far), ReadLabelledVolume(GRID, 2))
    with refused(ValueError, "does not lie where its image does"):
        volumes[0]


def corner_at(place, spacing=(1.0, 1.0, 1.0)):
    """The affine whose first voxel lies at a place."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = place
    return affine


FIRST_CORNER = corner_at((-17, -21, -13))
ONE_CORNER = np.zeros((80, 80, 80), np.uint8)
ONE_CORNER[:5, :5, :5] = 1
BEYOND = np.zeros((60, 60, 60), np.uint8)
BEYOND[15:] = 1
# Image and mask cover the image's middle voxel together, all of them.
WRONG_PLACES = {
    "no origin": {"affine": corner_at((-17, -21, -13)), "mask_affine": corner_at((0, 0, 0))},
    "no distances": {"affine": corner_at((0, 0, 0), (1, 1, 2.5)), "mask_affine": corner_at((0, 0, 12))},
    "a third away": {"affine": corner_at((-17, -21, -13)), "mask_affine": corner_at((-17, -6, -13))},
    "a small part": {"mask_affine": corner_at((-4, -4, -4), (2, 2, 2)), "classes": np.ones((9, 9, 9), np.uint8)},
    "a small part that juts out": {"mask_affine": corner_at((-20, -4, -4)), "classes": np.ones((9, 9, 9), np.uint8)},
    "no distances of thick slices": {"affine": corner_at((-17, -21, -65), (1, 1, 5)), "mask_affine": FIRST_CORNER},
    "most labels beyond the image": {"mask_affine": corner_at((0, -30, -30)), "classes": BEYOND},
    "labels beyond the image": {"mask_affine": corner_at((-40, -40, -8)), "classes": ONE_CORNER},
}


@pytest.mark.parametrize("wrong", WRONG_PLACES.values(), ids=WRONG_PLACES)
def test_a_mask_with_the_header_of_something_else_is_refused(tmp_path, refused, wrong):
    volumes = LabelledVolumes(phantom(tmp_path, **wrong), ReadLabelledVolume(GRID, 2))
    with refused(ValueError, "A mask does not lie where its image does, or covers a small part of it alone"):
        volumes[0]


def organ_on(affine, shape):
    return {"mask_affine": affine, "classes": (organ(affine, shape) < 1).astype(np.uint8)}


RIGHT_PLACES = {
    "rounded": organ_on(around(np.eye(3) * 1.0004, (36, 44, 28)) + 1e-3 * np.eye(4, k=3), (36, 44, 28)),
    "half a voxel off": organ_on(corner_at((-16.5, -20.5, -12.5)), (36, 44, 28)),
    "a coarser grid": organ_on(corner_at((-16.5, -20.5, -12.5), (2, 2, 2)), (18, 22, 14)),
    "a finer grid": organ_on(corner_at((-17.25, -21.25, -13.25), (0.5, 0.5, 0.5)), (72, 88, 56)),
    "a crop around the organ": organ_on(corner_at((-8, -15, -12)), (28, 30, 26)),
    "a small crop": organ_on(corner_at((-3, -14, -4)), (15, 19, 13)),
    "a small crop of other axes": organ_on(
        around(np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0]]), (29, 17, 23)), (29, 17, 23)
    ),
    "the whole body": organ_on(corner_at((-60, -60, -60)), (120, 120, 120)),
}


@pytest.mark.parametrize("right", RIGHT_PLACES.values(), ids=RIGHT_PLACES)
def test_a_mask_of_another_grid_over_the_organ_is_read_in_its_place(tmp_path, right):
    mask = LabelledVolumes(phantom(tmp_path, **right), ReadLabelledVolume(GRID, 2))[0]["mask"][0].numpy()
    true = organ(around(2.0 * np.eye(3), GRID.spatial_shape), GRID.spatial_shape) < 1
    assert 2 * (true & (mask == 1)).sum() / (true.sum() + (mask == 1).sum()) > 0.8


def test_the_mask_of_a_whole_body_may_hold_much_beyond_its_image(tmp_path):
    classes = np.ones((120, 120, 120), np.uint8)
    folder = phantom(tmp_path, mask_affine=corner_at((-60, -60, -60)), classes=classes)
    assert LabelledVolumes(folder, ReadLabelledVolume(GRID, 2))[0]["mask"].min() == 1


def test_the_mask_of_a_whole_body_may_have_no_label_within_its_image(tmp_path):
    folder = phantom(tmp_path, mask_affine=corner_at((-40, -40, -40)), classes=ONE_CORNER)
    assert LabelledVolumes(folder, ReadLabelledVolume(GRID, 2))[0]["mask"].max() == 0


def test_an_image_a_voxel_and_a_half_beyond_its_mask_is_read_with_it(tmp_path):
    folder = phantom(tmp_path, mask_affine=corner_at((-15.5, -21, -13)), classes=np.ones((120, 80, 80), np.uint8))
    assert LabelledVolumes(folder, ReadLabelledVolume(GRID, 2))[0]["mask"].min() == 1


@pytest.mark.parametrize(
    ("voxels", "options"),
    [
        (np.ones((36, 44, 28)), {}),
        (np.ones((36, 44, 28)), {"intensity_range": (0, 2)}),
        (np.random.default_rng(0).random((36, 44, 28)), {"intensity_range": (100, 200)}),
    ],
    ids=["percentiles", "a range", "a range in other units"],
)
def test_a_volume_without_contrast_is_refused(tmp_path, refused, voxels, options):
    folder = phantom(tmp_path)
    file = folder / "images" / f"{CANARY}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), nibabel.load(file).affine), file)
    with refused(ValueError, "the same (nearly )?everywhere"):
        LabelledVolumes(folder, ReadLabelledVolume(GRID, 2, **options))[0]


def test_a_damaged_file_is_refused_without_its_name(tmp_path, refused):
    folder = phantom(tmp_path)
    (folder / "labels" / f"{CANARY}.nii.gz").write_bytes(b"damaged")
    with refused(ValueError, "could not be decoded"):
        LabelledVolumes(folder, ReadLabelledVolume(GRID, 2))[0]


def test_notes_among_images_and_labels_are_passed_over(tmp_path):
    folder = phantom(tmp_path)
    for note in ("images/README.md", f"images/{CANARY}.json", "labels/classes.csv"):
        (folder / note).write_text("no volume")
    assert len(LabelledVolumes(folder, ReadLabelledVolume(GRID, 2))) == 1


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path, refused):
    with refused(ValueError, "neither a folder with images"):
        LabelledVolumes(tmp_path, ReadLabelledVolume(GRID, 2))
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for missing in ("missing", "missing.json", 20 * CANARY):
        with refused(ValueError, "^The input does not exist"):
            LabelledVolumes(tmp_path / missing, ReadLabelledVolume(GRID, 2))
    with refused(ValueError, "holds no volume"):
        LabelledVolumes(tmp_path, ReadLabelledVolume(GRID, 2))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_mask_classes": 1}, "num_mask_classes is 1"),
        ({"intensity_range": (1, 1)}, "intensity_range is"),
        ({"percentiles": (1, 101)}, "percentiles are"),
    ],
)
def test_parameters_out_of_range_are_refused(refused, options, match):
    with refused(ValueError, match):
        ReadLabelledVolume(GRID, **{"num_mask_classes": 2, **options})
