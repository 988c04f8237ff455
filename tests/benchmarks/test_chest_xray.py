# SPDX-License-Identifier: Apache-2.0
"""The benchmark of chest films measures what it says, with a network and an observer of any kind."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import chest_xray
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.release.checkpoint import save_model

pytestmark = pytest.mark.slow

OBSERVER = """
def judge(real, released, reference):
    same = {name: {"observer": 0.5} for name in ("spectrum", "intensity", "anatomy")}
    return same | {"distance": float(abs(real.mean() - released.mean()))}
"""


def test_every_figure_of_the_benchmark_is_made_with_every_option(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = generator.integers(0, 255, (24, 32, 32), np.uint8)
        arrays[f"{split}_labels"] = np.arange(24)[:, None] % 2
        arrays[f"{split}_patients"] = np.arange(24) // 2 + {"train": 0, "val": 100, "test": 200}[split]
    np.savez(tmp_path / "films.npz", **arrays)
    torch.manual_seed(0)
    inn = ConditionalINN((32, 32), 1, num_classes=2, num_couplings=1, width=8, num_detail_couplings=1)
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 4)), tmp_path / "model.pt")
    (tmp_path / "observer.py").write_text(OBSERVER)
    out = tmp_path / "result.json"
    options = {
        "data": tmp_path / "films.npz",
        "checkpoint": tmp_path / "model.pt",
        "observer": tmp_path / "observer.py",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr("sys.argv", ["chest_xray", *words, "--declared", "--utility", "--out", str(out)])
    chest_xray.main()
    result = json.loads(out.read_text())
    assert (result["films"], result["patients"]) == (48, 24)
    assert [row["method"] for row in result["rows"]] == [
        "prior only",
        *(f"content basis, epsilon {epsilon}" for epsilon in (1, 4, 8)),
        *(f"declared content, epsilon {epsilon}" for epsilon in (4, 8)),
        "real films",
    ]
    for figure in result["auc_on_originals_of_a_classifier_trained_on"].values():
        low, high = figure["interval"]
        assert low <= figure["value"] <= high
    assert Image.open(tmp_path / "result.png").size[0] > 8 * 32
