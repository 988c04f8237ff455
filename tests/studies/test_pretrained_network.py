# SPDX-License-Identifier: Apache-2.0
"""A study of a network that was trained before releases with that very network, and only images of its kind."""

from __future__ import annotations

import json

import pytest
import torch

from monai_cadp.data import Digits
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.release.checkpoint import load_model, save_model
from monai_cadp.studies import NetworkContent, NetworkMembership, PretrainedNetwork, ReleaseStrip, Study

pytestmark = pytest.mark.slow

NAMES = [f"digit {number}" for number in range(10)]


def checkpoint(folder, seed=0, names=None):
    torch.manual_seed(seed)
    inn = ConditionalINN((8, 8), 1, num_classes=10)
    with torch.no_grad():
        for parameter in inn.parameters():
            parameter.normal_(0, 0.01)
    path = folder / f"model-{seed}.pt"
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 4), condition_names=names), path)
    return path


class Counted:
    def __init__(self):
        self._calls = []

    def __call__(self, releases, seed):
        self._calls.append(releases.variant.name)
        return {"mean": float(releases.test_released.mean())}


class NamedDigits(Digits):
    class_names = NAMES


def study(folder, network, counted=None, images=Digits, **options):
    digits, counted = images("val"), counted or Counted()
    methods, drawn = [NetworkContent([2.0])], [ReleaseStrip()]
    return Study("Given", network, digits, digits, digits, folder, methods, [counted], drawn, **options)


@pytest.fixture(autouse=True)
def own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_checkpoint_is_released_with_as_it_is_and_another_one_is_another_study(tmp_path):
    counted, files = Counted(), [checkpoint(tmp_path, seed) for seed in (0, 1)]
    for file in (files[0], files[0], files[1]):
        page = study(tmp_path / "study", PretrainedNetwork(file, "public"), counted).run()
        assert load_model(tmp_path / "study" / "model.pt").fingerprint() == load_model(file).fingerprint()
    assert len(counted._calls) == 2 * len(set(counted._calls))
    network = json.loads((tmp_path / "study" / "results.json").read_text())["network"]
    assert network["validation_bits"] == [] and network["parameters"] > 0
    # Of every variant one, and the curve of the figure that is counted.
    assert "It was trained before." in page.read_text() and page.read_text().count("<img") == 3 + 1


def test_images_that_must_not_be_seen_are_left_out_of_the_page(tmp_path):
    page = study(tmp_path, PretrainedNetwork(checkpoint(tmp_path), "unprotected")).run()
    # Of prior samples, and the curve.
    assert page.read_text().count("<img") == 1 + 1


def test_images_of_another_shape_are_refused(refused, tmp_path):
    class Larger(Digits):
        def __init__(self, split):
            super().__init__(split, spatial_shape=(12, 12))

    with refused(ValueError, r"shape \(1, 12, 12\)"):
        study(tmp_path / "study", PretrainedNetwork(checkpoint(tmp_path), "public"), images=Larger).run()


def test_classes_by_other_names_are_refused(refused, tmp_path):
    known = PretrainedNetwork(checkpoint(tmp_path, names=NAMES), "public")
    study(tmp_path / "study", known, images=NamedDigits).run()
    turned = PretrainedNetwork(checkpoint(tmp_path, names=NAMES[::-1]), "public")
    with refused(ValueError, "those of the network digit 9"):
        study(tmp_path / "turned", turned, images=NamedDigits).run()


def test_membership_is_not_attacked_without_a_training(refused, tmp_path):
    with refused(ValueError, "leave one of the two out"):
        study(tmp_path, PretrainedNetwork(checkpoint(tmp_path), "public"), membership=NetworkMembership())


def test_a_protection_that_is_none_is_refused(refused, tmp_path):
    with refused(ValueError, "training_data is 'secret'"):
        PretrainedNetwork(checkpoint(tmp_path), "secret")


def test_a_checkpoint_that_is_missing_is_refused(refused, tmp_path):
    with refused(ValueError, "could not be read"):
        PretrainedNetwork(tmp_path / "none.pt", "public")
