# SPDX-License-Identifier: Apache-2.0
"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from monai_cadp.data import BrainCohort
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
