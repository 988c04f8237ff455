# SPDX-License-Identifier: Apache-2.0
"""The benchmark of hippocampi measures what it says, with a network and an observer of any kind."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import hippocampus
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.release.checkpoint import save_model
from tests.benchmarks.test_chest_xray import OBSERVER

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path, files):
    """Six volumes of two boxes a split, in the layout of the data."""
    generator, rows = np.random.default_rng(0), []
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for index in range(18):
        mask = np.zeros((12, 12, 12), np.uint8)
        size = index // 3
        mask[3:9, 2:6, 3 : 6 + size % 4], mask[3:9, 7 : 9 + size % 3, 3:9] = 1, 2
        image = (100 * generator.random(mask.shape) + 300 * (mask > 0)).astype(np.float32)
        for part, voxels in (("images", image), ("labels", mask)):
            files.nifti(tmp_path / part / f"{index}.nii.gz", voxels)
        split = ("train", "val", "test")[index % 3]
        rows.append({"name": f"{index}.nii.gz", "split": split, "patient_pair": index // 6 * 3 + index % 3})
    with open(tmp_path / "cases.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_every_figure_of_the_benchmark_is_made_with_every_option(data, tmp_path, monkeypatch):
    torch.manual_seed(0)
    inn = ConditionalINN((12, 12, 12), 3, num_couplings=1, width=8, num_detail_couplings=1)
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 4)), tmp_path / "model.pt")
    (tmp_path / "observer.py").write_text(OBSERVER)
    out = tmp_path / "result.json"
    options = {"data": data, "checkpoint": tmp_path / "model.pt", "observer": tmp_path / "observer.py", "out": out}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    words += ["--draws", "8", "--candidates", "16", "--segmentation_epochs", "1", "--reidentification"]
    monkeypatch.setattr("sys.argv", ["hippocampus", *words])
    hippocampus.main()
    result = json.loads(out.read_text())
    assert (result["split"], result["volumes"], result["training_volumes"]) == ("test", 6, 12)
    declared = [f"{what} declared, epsilon {epsilon}" for what in ("both volumes", "the volume") for epsilon in (4, 8)]
    methods = ["prior only", "content basis, epsilon 8", *declared]
    assert [row["method"] for row in result["rows"]] == [*methods, "real volumes"]
    assert all(row["distance"] >= 0 and -1 <= row.get("volume_all", 0) <= 1 for row in result["rows"])
    assert [row["method"] for row in result["label_volumes"]] == ["prior samples", *methods, "real volumes"]
    assert result["label_volumes"][-1]["both, mean beside real"] == 1.0
    assert result["pieces_per_label"]["real volumes"]["in_one_piece"] == 1.0
    dices = result["dice_on_originals_of_a_unet_trained_on"]
    assert list(dices) == ["originals", "prior only", "content basis, epsilon 8"]
    assert list(result["dice_of_a_unet_trained_on_originals_on"]) == ["originals", *methods]
    assert Image.open(out.with_suffix(".png")).size[0] > 4 * 12
    linked = result["reidentification"]
    assert [row["gallery"] for row in linked] == ["originals", "prior only", "content basis, epsilon 8"]
    assert [(row["patients with two volumes"], row["guess"]) for row in linked] == [(3, 0.2)] * 3


def test_a_volume_is_found_again_where_it_was_moved():
    volumes = torch.rand(3, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    moved = volumes.roll((2, -1, 1), dims=(2, 3, 4))
    correlation = hippocampus.aligned_correlation(volumes, moved)
    assert (
        torch.allclose(correlation.diagonal(), torch.ones(3), atol=0.02) and correlation.fill_diagonal_(0).max() < 0.5
    )
    too_far = hippocampus.aligned_correlation(volumes, volumes.roll(4, dims=2))
    assert float(too_far.diagonal().max()) < 0.5
