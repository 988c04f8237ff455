# SPDX-License-Identifier: Apache-2.0
"""A study: every method beside every other, in nested runs that are not run twice, on a page that shows what it may."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from monai.bundle import run
from PIL import Image

from monai_cadp.baselines import Mosaic
from monai_cadp.data import Digits, Part, image_grid
from monai_cadp.networks import ConditionalINN
from monai_cadp.privacy import PriorOnly
from monai_cadp.release.checkpoint import load_privatizer
from monai_cadp.studies import (
    CellNoise,
    ContentKept,
    NetworkContent,
    NetworkTraining,
    ReleaseAudit,
    ReleaseStrip,
    Study,
    WithoutGuarantee,
)

pytestmark = pytest.mark.slow

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The quickstart, with two epochs in place of thirty."""
    folder = tmp_path_factory.mktemp("quickstart") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run(config_file=str(QUICKSTART), output_dir=str(folder), epsilons=[1.0, 8.0], quick=True, classifier_epochs=2)
    return folder


def children(folder):
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cadp studies")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(nested) == len(runs) - 1
    return client, parents[0], nested


def named(folder):
    return {variant["name"]: variant for variant in json.loads((folder / "results.json").read_text())["variants"]}


def test_every_release_stands_beside_originals_and_prior_only(results):
    variants = named(results)
    assert list(variants) == ["originals", "prior only", "content basis, epsilon 1", "content basis, epsilon 8"]
    assert [variant["epsilon"] for variant in variants.values()] == ["infinite", 0.0, 1.0, 8.0]
    for variant in variants.values():
        low, high = variant["figures"]["accuracy_p_o"]["interval"]
        assert 0 <= low <= variant["figures"]["accuracy_p_o"]["value"] <= high <= 1
    assert {"accuracy_p_p", "accuracy_o_p"} <= variants["prior only"]["figures"].keys()
    assert variants["originals"]["figures"]["kept_mean"]["value"] == 1.0
    assert variants["originals"]["figures"]["pixel_cosine"] == 1.0


def test_the_parent_holds_the_page_and_every_variant_is_a_finished_child_with_its_figures(results):
    client, parent, nested = children(results)
    assert {run.info.status for run in (parent, *nested)} == {"FINISHED"}
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} == {"results.json", "report.html"}
    by_method = {run.data.params.get("method", "network"): run for run in nested}
    assert by_method.keys() == {"network", "originals", "prior only", "content basis"}
    assert "accuracy_p_o" in by_method["prior only"].data.metrics
    assert "validation_bits_per_dimension" in by_method["network"].data.metrics
    assert {run.data.tags["mlflow.user"] for run in nested} == {"-"}


def test_no_child_holds_an_original(results):
    client, _, nested = children(results)
    held = {run.info.run_name: [item.path for item in client.list_artifacts(run.info.run_id)] for run in nested}
    assert [paths for name, paths in held.items() if name.startswith("originals")] == [["result.json"]]
    assert sum(path.endswith(".png") for paths in held.values() for path in paths) == 5
    assert not any(path.name.startswith("originals") for path in results.glob("state/*/pictures/*"))


def test_the_page_needs_nothing_but_itself_and_says_every_guarantee_in_words(results):
    page = (results / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    for epsilon in ("1", "8"):
        assert f"factor of at most e^{epsilon}" in page
    assert "does not depend on the content" in page
    assert "its figures mean nothing" in page and "over images, as if each were of another person" in page


def test_the_network_that_it_leaves_behind_can_release(results):
    privatizer = load_privatizer(results / "model.pt", PriorOnly())
    assert privatizer.training_data.protection == "public"
    assert privatizer(torch.rand(2, 1, 8, 8), torch.tensor([3, 7])).shape == (2, 1, 8, 8)


class Counted:
    """A measurement that counts its calls, and fails once if it is told to."""

    def __init__(self, fail_at=None):
        self._calls, self._fail_at = [], fail_at

    def __call__(self, releases, seed):
        if len(self._calls) == self._fail_at:
            self._fail_at = None
            raise RuntimeError("The power went out.")
        self._calls.append(releases.variant.name)
        return {"accuracy_p_o": float(len(self._calls))}


def small_study(folder, counted, training_data="public", methods=None, measurements=(), **options):
    digits = Digits("val")
    torch.manual_seed(0)
    training = NetworkTraining(ConditionalINN((8, 8), 1, num_classes=10), training_data, max_epochs=1)
    methods = [NetworkContent([2.0]), CellNoise([2.0], cell=4)] if methods is None else methods
    measurements = [counted, *measurements]
    return Study("Small", training, digits, digits, digits, folder, methods, measurements, [ReleaseStrip()], **options)


@pytest.fixture(autouse=True)
def own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_what_is_finished_is_not_run_again(tmp_path):
    counted = Counted()
    small_study(tmp_path, counted).run()
    before = (tmp_path / "results.json").read_text()
    network = (tmp_path / "model.pt").read_bytes()
    assert len(counted._calls) == 4
    small_study(tmp_path, counted).run()
    assert len(counted._calls) == 4
    assert (tmp_path / "results.json").read_text() == before and (tmp_path / "model.pt").read_bytes() == network


def test_an_interrupted_study_goes_on_where_it_failed(tmp_path):
    counted = Counted(fail_at=2)
    with pytest.raises(RuntimeError, match="power"):
        small_study(tmp_path, counted).run()
    _, parent, nested = children(tmp_path)
    assert parent.info.status == "FAILED"
    assert sorted(run.info.status for run in nested) == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    small_study(tmp_path, counted).run()
    assert counted._calls == ["originals", "prior only", "content basis, epsilon 2", "DP-Pix, cells of 4, epsilon 2"]
    _, parent, _ = children(tmp_path)
    assert parent.info.status == "FINISHED"


def test_another_budget_adds_children_and_keeps_those_that_are_finished(tmp_path):
    counted = Counted()
    small_study(tmp_path, counted, methods=[NetworkContent([2.0])]).run()
    small_study(tmp_path, counted, methods=[NetworkContent([2.0, 4.0])]).run()
    assert counted._calls[3:] == ["content basis, epsilon 4"]


def test_another_measurement_measures_all_variants_with_the_same_network(tmp_path):
    counted = Counted()
    small_study(tmp_path, counted).run()
    network = (tmp_path / "model.pt").read_bytes()
    small_study(tmp_path, counted, measurements=[ContentKept()]).run()
    assert len(counted._calls) == 8 and (tmp_path / "model.pt").read_bytes() == network
    assert "pixel_cosine" in named(tmp_path)["prior only"]["figures"]


def brightness(releases, seed):
    shown = releases.test_released
    return {} if shown is None else {"mean_brightness": float(shown.mean())}


def test_a_figure_that_belongs_to_no_section_is_on_the_page_all_the_same(tmp_path, results):
    small_study(tmp_path, Counted(), measurements=[ContentKept(), brightness]).run()
    page = (tmp_path / "report.html").read_text()
    assert "Further figures" in page and "mean_brightness" in page and "mean brightness" in page
    assert "Further figures" not in (results / "report.html").read_text()


def test_seeds_are_children_of_their_own(tmp_path):
    counted = Counted()
    small_study(tmp_path, counted, methods=[], seeds=(0, 1)).run()
    variants = json.loads((tmp_path / "results.json").read_text())["variants"]
    assert [(variant["method"], variant["seed"]) for variant in variants] == [
        ("originals", 0),
        ("originals", 1),
        ("prior only", 0),
        ("prior only", 1),
    ]


def pictures(page):
    encoded = re.findall(r"data:image/png;base64,([^\"]+)", page.read_text())
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))) for code in encoded]


def test_originals_are_on_the_page_of_public_images_and_on_no_other(tmp_path):
    digits = Digits("val")
    # In the order in which a study reads images.
    items = [digits[int(index)] for index in torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    by_class = [next(item["image"] for item in items if int(item["label"]) == label) for label in range(10)]
    originals = image_grid(torch.stack(by_class), 10)

    def shows_originals(folder):
        shown = pictures(folder / "report.html")
        return any(picture.shape == originals.shape and np.array_equal(picture, originals) for picture in shown)

    small_study(tmp_path / "public", Counted(), methods=[]).run()
    small_study(tmp_path / "unprotected", Counted(), "unprotected", methods=[]).run()
    assert shows_originals(tmp_path / "public") and not shows_originals(tmp_path / "unprotected")
    assert "not declared public" in (tmp_path / "unprotected" / "report.html").read_text()


def test_of_private_images_samples_of_the_prior_are_drawn_and_nobodys_release(tmp_path):
    methods = [NetworkContent([2.0]), CellNoise([2.0]), WithoutGuarantee("mosaic", Mosaic(1))]
    small_study(tmp_path, Counted(), "unprotected", methods=methods).run()
    assert captions(tmp_path / "report.html") == ["prior only"]
    assert [path.name for path in tmp_path.glob("state/*/pictures/*")] == ["prior_only_releasestrip.png"]
    client, _, nested = children(tmp_path)
    held = [item.path for run in nested for item in client.list_artifacts(run.info.run_id)]
    assert [path for path in held if path.endswith(".png")] == ["prior_only_releasestrip.png"]


def test_who_has_the_same_images_cannot_tell_so_from_the_name_of_the_study(tmp_path):
    """The name is a code of the images; without the salt it says nothing of them."""
    names = set()
    for folder in (tmp_path / "one", tmp_path / "other"):
        small_study(folder, Counted(), "unprotected", methods=[]).run()
        (state,) = [path.name for path in (folder / "state").iterdir() if path.is_dir()]
        _, parent, _ = children(folder)
        assert parent.data.tags["monai_cadp.key"] == state
        assert (folder / "state" / "salt").stat().st_mode & 0o077 == 0
        names.add(state)
    assert len(names) == 2


def test_what_was_drawn_while_images_were_public_is_not_on_the_page_once_they_are_private(tmp_path):
    mosaic = WithoutGuarantee("mosaic", Mosaic(1))
    small_study(tmp_path, Counted(), methods=[mosaic]).run()
    assert "mosaic" in captions(tmp_path / "report.html")
    small_study(tmp_path, Counted(), "unprotected", methods=[mosaic]).run()
    assert captions(tmp_path / "report.html") == ["prior only"]
    assert load_privatizer(tmp_path / "model.pt", PriorOnly()).training_data.protection == "unprotected"


def captions(page):
    pngs = re.findall(r'data:image/png;base64,[^"]+"><figcaption>(.*?)</figcaption>', page.read_text())
    return [caption for caption in pngs]


def test_the_same_name_with_other_settings_is_measured_again(tmp_path):
    counted = Counted()
    for cell in (2, 4):
        small_study(tmp_path, counted, methods=[WithoutGuarantee("mosaic", Mosaic(cell))]).run()
    assert counted._calls == ["originals", "prior only", "mosaic", "mosaic"]


def test_other_images_of_the_same_number_are_another_study(tmp_path):
    counted = Counted()
    for seed in (0, 1):
        digits = Part(Digits("train"), "val", seed=seed)
        training = NetworkTraining(ConditionalINN((8, 8), 1, num_classes=10), "public", max_epochs=1)
        Study("Small", training, *[digits] * 3, tmp_path, [], [counted]).run()
    assert len(counted._calls) == 4


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_cannot_be_promised_is_refused_before_anything_is_written(refused, epsilon):
    with refused(ValueError, "epsilon is"):
        NetworkContent([epsilon])


def test_a_study_without_a_seed_is_refused(tmp_path, refused):
    with refused(ValueError, "no seed"):
        small_study(tmp_path / "out", Counted(), seeds=())
    assert not list(tmp_path.iterdir())


def test_the_page_says_whether_attackers_contradict_what_is_promised(tmp_path):
    methods = [NetworkContent([1.0, 8.0]), CellNoise([1.0], cell=4)]
    small_study(tmp_path, Counted(), methods=methods, audit=ReleaseAudit(), quick=True).run()
    rows = json.loads((tmp_path / "results.json").read_text())["audit"]
    # So few trials could not contradict an epsilon of 8, and noise on pixels is not a privatizer's.
    assert [row["audited"] for row in rows] == ["prior only", "content basis, epsilon 1"]
    assert all(row["measured"] <= row["promised"] and row["verdict"] == "kept" for row in rows)
    page = (tmp_path / "report.html").read_text()
    assert "Can attackers contradict the promises?" in page and "most that these trials could measure" in page
