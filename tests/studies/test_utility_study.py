# SPDX-License-Identifier: Apache-2.0
"""The quickstart: from real images to figures, a page and a tracked run that hold no more than they should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from monai.bundle import run

from monai_cadp.checkpoint import load_privatizer
from monai_cadp.data import Digits
from monai_cadp.networks import ConditionalINN
from monai_cadp.privacy import PriorOnly
from monai_cadp.studies import UtilityStudy

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
NAMES = ["prior only", "epsilon 1", "epsilon 8"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The quickstart with two epochs in place of thirty."""
    folder = tmp_path_factory.mktemp("quickstart") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run(config_file=str(QUICKSTART), output_dir=str(folder), epsilons=[1.0, 8.0], max_epochs=2, classifier_epochs=2)
    return folder


def test_the_figures_of_every_release_stand_beside_originals_and_prior_only(results):
    metrics = json.loads((results / "metrics.json").read_text())
    assert [row["name"] for row in metrics["releases"]] == NAMES
    assert [row["epsilon"] for row in metrics["releases"]] == [0.0, 1.0, 8.0]
    for row in (metrics["originals"], *metrics["releases"]):
        assert 0 <= row["accuracy"] <= 1
    assert all({"kept_mean", "pixel_cosine"} <= row.keys() for row in metrics["releases"])
    assert len(metrics["validation_bits"]) == 2


def test_the_page_needs_nothing_but_itself_and_says_the_guarantee_in_words(results):
    page = (results / "report.html").read_text()
    assert "<img" in page and 'src="data:image/' in page
    assert "http" not in page.replace("http://www.w3.org", "")
    for epsilon in ("1", "8"):
        assert f"factor of at most e^{epsilon}" in page
    assert "does not depend on the content" in page


def test_the_run_is_finished_and_holds_results_only(results):
    client = MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("utility study")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FINISHED"
    assert {"mechanism", "epsilon", "delta", "unit"} <= tracked.data.params.keys()
    assert {"accuracy_epsilon_0", "accuracy_epsilon_8", "validation_bits_per_dimension"} <= tracked.data.metrics.keys()
    assert {item.path for item in client.list_artifacts(tracked.info.run_id)} == {"metrics.json", "report.html"}


def test_the_network_that_it_leaves_behind_can_release(results):
    privatizer = load_privatizer(results / "model.pt", PriorOnly())
    assert privatizer.inn.training_data.training == "public"
    assert privatizer(torch.rand(2, 1, 8, 8), torch.tensor([3, 7])).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"epsilons": [0.0]}, "epsilon is"),
        ({"epsilons": [-1.0]}, "epsilon is"),
        ({"epsilons": [float("nan")]}, "epsilon is"),
        ({"training": "private"}, "shows original images"),
    ],
)
def test_what_cannot_be_promised_or_shown_is_refused_before_anything_is_written(tmp_path, refused, change, match):
    digits = Digits("val")
    network = ConditionalINN((8, 8), 1, num_classes=10)
    options = {"epsilons": [1.0], "training": "public", "max_epochs": 1} | change
    with refused(ValueError, match):
        UtilityStudy(network, digits, digits, digits, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())
