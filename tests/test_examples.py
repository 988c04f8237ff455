# SPDX-License-Identifier: Apache-2.0
"""The examples run as they stand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from monai_cadp.data import BrainCohort, LabelledVolumes, PublicGrid, ReadLabelledVolume, WithMasks
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel, fit_moments
from monai_cadp.privacy import PrivacyLedger
from monai_cadp.privacy.ledger import read_secret
from monai_cadp.release.checkpoint import save_model

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"
SHAPE, SPACING = (16, 20, 16), 10.8


def test_a_standard_script_learns_from_releases_and_pays_for_every_patient_once(tmp_path):
    cohort = BrainCohort(5, 32, 1, SHAPE, SPACING)
    items = [cohort[index] for index in range(32)]
    batch = torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items])
    inn = ConditionalINN(SHAPE, num_classes=2, rank=8, width=8, num_couplings=2, num_levels=1, num_maps=1)
    fit_moments(inn, lambda: [batch])
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 4)), tmp_path / "model.pt")
    command = [
        sys.executable,
        str(EXAMPLES / "classify_released_volumes.py"),
        "--checkpoint",
        str(tmp_path / "model.pt"),
    ]
    command += ["--epsilon", "4", "--patients", "16", "--epochs", "2", "--ledger", str(tmp_path / "ledger.db")]
    command += ["--spatial_shape", *map(str, SHAPE), "--spacing", str(SPACING)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stderr
    assert "tested on originals: AUC" in done.stdout
    ledger = PrivacyLedger.open(tmp_path / "ledger.db", tmp_path / "ledger.secret")
    assert {ledger.spent(f"patient {index}") for index in range(16)} == {(4.0, 0.0)}
    assert ledger.summary()["released"] == 16 and len(read_secret(tmp_path / "ledger.secret")) == 32


def phantom(folder, numbers):
    """Volumes with a bright organ (1) that holds a dark one (2), of a size and in a place of their own."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    where = np.stack(np.meshgrid(*[np.arange(20.0)] * 3, indexing="ij"), axis=-1)
    for number in numbers:
        rng = np.random.default_rng(number)
        distance = np.linalg.norm(where - rng.normal(9.5, 1, 3), axis=-1) / rng.normal(6, 0.5)
        mask = (distance < 1).astype(np.uint8) + (distance < 0.5)
        image = np.array([20.0, 90.0, 50.0])[mask] + rng.normal(0, 5, mask.shape)
        for part, voxels in (("images", image.astype(np.float32)), ("labels", mask)):
            nibabel.save(
                nibabel.Nifti1Image(voxels, np.diag([-2.0, 2.0, 2.0, 1.0])), folder / part / f"{number}.nii.gz"
            )
    return folder


def test_a_segmentation_script_learns_from_released_pairs_of_one_budget(tmp_path):
    folders = {"training": phantom(tmp_path / "train", range(8)), "test": phantom(tmp_path / "test", range(20, 24))}
    grid, classes = PublicGrid((16, 16, 16), 2.5), 3
    read = ReadLabelledVolume(grid, classes)
    items = WithMasks(LabelledVolumes(folders["training"], read), classes, reach=3.0)
    batch = torch.stack([items[index]["image"] for index in range(8)]), None
    inn = ConditionalINN(grid.spatial_shape, classes, rank=4, width=8, num_couplings=1, num_levels=1, num_maps=1)
    fit_moments(inn, lambda: [batch])
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 4)), tmp_path / "model.pt")
    lists = {
        key: [
            {
                "image": f"{folder.name}/images/{path.name}",
                "mask": f"{folder.name}/labels/{path.name}",
                "subject": path.name.partition(".")[0],
            }
            for path in sorted((folder / "images").iterdir())
        ]
        for key, folder in folders.items()
    }
    (tmp_path / "list.json").write_text(json.dumps(lists))
    command = [sys.executable, str(EXAMPLES / "segment_released_volumes.py")]
    command += ["--checkpoint", str(tmp_path / "model.pt"), "--epsilon", "8", "--ledger", str(tmp_path / "ledger.db")]
    command += ["--train", str(tmp_path / "list.json"), "--test", str(tmp_path / "list.json"), "--epochs", "2"]
    command += ["--spatial_shape", "16", "16", "16", "--spacing", "2.5", "--num_mask_classes", str(classes)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stderr
    assert "tested on originals: Dice" in done.stdout
    ledger = PrivacyLedger.open(tmp_path / "ledger.db", tmp_path / "ledger.secret")
    # A volume and its mask once, in all epochs together.
    assert {ledger.spent(str(number)) for number in range(8)} == {(8.0, 0.0)}
    assert ledger.summary()["released"] == 8
