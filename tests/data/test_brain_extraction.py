# SPDX-License-Identifier: Apache-2.0
"""The brain of a head is found and comes to the grid; what is no T1 head or brain is refused by name."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from monai_cadp.data import BrainCohort, PublicGrid, ReadBrain, ReadVolume, brain_template_file
from monai_cadp.data.brain_extraction import extract_brain
from monai_cadp.data.brain_registration import register_brain
from monai_cadp.data.silence import Refusal
from monai_cadp.extras import MissingExtraError
from tests.made_up_heads import head_and_brain

CANARY = "Mustermann-1954"
GRID = PublicGrid((48, 60, 48), spacing=3.6, centre=(0.0, -17.0, 5.0))
PLACED = {"mass_centre": (0.1, -4.8, 4.5), "bright": 0.87}


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.slow
def test_the_brain_of_a_head_is_found_and_lands_on_the_template():
    head, brain, affine = head_and_brain(tilt=12.0, shift=(9.0, -20.0, 31.0), size=0.93)
    mask = extract_brain(head, affine)
    assert 1100 < mask.sum() * 8 / 1000 < 1900
    assert dice(mask, brain > 50) > 0.95
    registered = register_brain(head, mask, affine)
    assert registered.dice >= 0.94 and registered.white_to_gray > 1.05


@pytest.mark.slow
def test_a_head_and_its_brain_are_nearly_the_same_to_the_network(files, tmp_path):
    head, brain, affine = head_and_brain()
    paths = [files.nifti(tmp_path / f"{CANARY}{i}.nii.gz", voxels, affine) for i, voxels in enumerate((head, brain))]
    of_head, of_brain = (ReadBrain(GRID, **PLACED)(path) for path in paths)
    assert np.corrcoef(of_head.flatten(), of_brain.flatten())[0, 1] > 0.95
    # Negative control: without extraction it is a head to the network, too.
    assert np.corrcoef(ReadVolume(GRID, **PLACED)(paths[0]).flatten(), of_brain.flatten())[0, 1] < 0.7
    assert type(of_head) is torch.Tensor and not vars(of_head)
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in paths]


@pytest.mark.slow
def test_a_head_without_t1_contrast_is_refused(files, tmp_path, refused):
    head, _, affine = head_and_brain(t1=False)
    with refused(ValueError, "T1|No brain|fit the template"):
        ReadBrain(GRID)(files.nifti(tmp_path / f"{CANARY}.nii.gz", head, affine))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.8, 1.2], ids=["child", "giant"])
def test_a_brain_that_is_not_of_an_adults_size_is_refused(scale):
    head, _, affine = head_and_brain()
    affine[:3, :3] *= scale
    with pytest.raises(Refusal, match=r"1,100 to 1,900 ml within the skull, give or take 10%\."):
        extract_brain(head, affine)


@pytest.mark.slow
def test_brains_are_read_bit_by_bit_as_before(files, tmp_path):
    scan = BrainCohort(3, 2, spatial_shape=(24, 30, 24), spacing=7.2)[1]["image"][0].numpy()
    made_up = files.nifti(tmp_path / "scan.nii.gz", 900 * scan, np.diag([7.2, 7.2, 7.2, 1]))
    for path in (made_up, brain_template_file()):
        for kind in (None, "brain"):
            assert torch.equal(ReadBrain(GRID, kind=kind, **PLACED)(path), ReadVolume(GRID, **PLACED)(path))


def egg():
    x, y, z = (axis - 31.5 for axis in np.ogrid[:64, :64, :64])
    return 100.0 * ((x / 22) ** 2 + (y / 28) ** 2 + (z / 20) ** 2 < 1), 3.0


def torso():
    x, y, z = (axis - 31.5 for axis in np.ogrid[:64, :64, :64])
    spine = (x / 5) ** 2 + ((y + 10) / 5) ** 2 < 1
    return 100.0 * ((x / 30) ** 2 + (y / 20) ** 2 + 0 * z < 1) + 50.0 * spine, 5.0


def finger():
    x, y, z = (axis - 15.5 for axis in np.ogrid[:32, :32, :32])
    return 100.0 * ((x / 5) ** 2 + (y / 5) ** 2 + 0 * z < 1), 2.0


def slab():
    volume, spacing = cohort_brain()
    return volume[:, :, 12:18], spacing


def t2_brain():
    volume, spacing = cohort_brain()
    return np.where(volume > 0.15, 1.0 - volume, 0), spacing


def cohort_brain():
    return BrainCohort(3, 1, spatial_shape=(48, 60, 48), spacing=3.6)[0]["image"][0].numpy(), 3.6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (egg, "the shape of a brain without T1 contrast"),
        (t2_brain, "the shape of a brain without T1 contrast"),
        (torso, "something larger than a head"),
        (finger, "something smaller than a brain"),
        (slab, "brain"),
    ],
)
def test_what_is_no_t1_head_or_brain_is_refused_by_name(make, match, files, tmp_path, refused):
    volume, spacing = make()
    path = files.nifti(tmp_path / f"{CANARY}.nii.gz", volume.astype(np.float32), np.diag([spacing] * 3 + [1]))
    with refused(ValueError, match + ".* expected the T1 scan of a whole head or brain: .* input_kind"):
        ReadBrain(GRID)(path)
    # A person who knows better has the last word.
    assert ReadBrain(GRID, kind="brain")(path).shape == (1, *GRID.spatial_shape)


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "deepbet", None)
    sentence = "^Finding the brain in a head needs deepbet; install it by pip install 'monai_cadp.brain.'.$"
    with refused(MissingExtraError, sentence):
        extract_brain(np.ones((8, 8, 8)), np.eye(4))


def test_another_kind_is_refused(refused):
    with refused(ValueError, "input_kind is 'knee'; expected head or brain"):
        ReadBrain(GRID, kind="knee")
