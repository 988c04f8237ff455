# SPDX-License-Identifier: Apache-2.0
"""The chest X-ray bundle releases films at once, with weights that are small, public and the shipped ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import run, verify_metadata, verify_net_in_out
from PIL import Image

from monai_cadp.networks import ConditionalINN
from monai_cadp.privacy import TrainingData
from monai_cadp.release.checkpoint import load_model

pytestmark = pytest.mark.slow

BUNDLE = Path(__file__).parents[2] / "bundles" / "cadp_chest_xray"
CONFIGS = BUNDLE / "configs"
CHECKPOINT = BUNDLE / "models" / "model.pt"
SAMPLES = sorted((BUNDLE / "samples").rglob("*.png"))
OPTIONS = yaml.safe_load((CONFIGS / "inference.yaml").read_text())


@pytest.fixture(scope="module")
def shipped():
    return load_model(CHECKPOINT, sha256=OPTIONS["checkpoint_sha256"])


def release(output, **options):
    run(
        config_file=str(CONFIGS / "inference.yaml"),
        bundle_root=str(BUNDLE),
        output=str(output),
        **{"epsilon": 8.0, **options},
    )
    return sorted(Path(output).glob("*.png"))


def test_the_weights_are_small_public_and_those_of_the_configuration(shipped):
    assert CHECKPOINT.stat().st_size <= 25_000_000
    torch.load(CHECKPOINT, weights_only=True)
    assert TrainingData.of(shipped.network).protection == "public"
    configured = ConditionalINN(OPTIONS["spatial_shape"], 1, num_classes=2)
    assert shipped.network.config == configured.config and shipped.network.has_refiner
    assert len(shipped.content.weights) == OPTIONS["num_directions"]


def test_the_metadata_are_valid_and_the_network_takes_and_gives_what_they_say():
    verify_metadata(
        meta_file=str(CONFIGS / "metadata.json"), filepath=str(Path(__file__).with_name("metadata_schema.json"))
    )
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.yaml"),
        device="cpu",
    )


def test_the_samples_are_released_at_once_and_look_like_films_and_not_like_each_other(tmp_path):
    released = release(tmp_path / "out")
    assert len(released) == len(SAMPLES)
    card = json.loads(Path(str(released[0]).replace(".png", "_privacy.json")).read_text())
    assert card["guarantee"]["epsilon"] == 8.0 and card["guarantee"]["training_data"]["protection"] == "public"
    films = np.stack([np.asarray(Image.open(path), dtype=float) for path in released])
    assert films.shape[1:] == (128, 128) and films.std(axis=(1, 2)).min() > 15
    # Neighbouring pixels of films are alike; those of noise are not.
    assert np.abs(np.diff(films, axis=2)).mean() < 0.3 * films.std(axis=(1, 2)).mean()
    flat = films.reshape(len(films), -1)
    assert np.abs(flat[:, None] - flat[None]).mean(2)[~np.eye(len(films), dtype=bool)].min() > 5


def test_films_without_labels_are_released_under_one_stated_condition(tmp_path):
    (tmp_path / "in").mkdir()
    for index, path in enumerate(SAMPLES[:2]):
        Image.open(path).resize((200, 200)).save(tmp_path / "in" / f"{index}.png")
    assert len(release(tmp_path / "out", input=str(tmp_path / "in"), condition=1, epsilon=1.0)) == 2


def test_films_of_one_class_are_released_as_that_class(tmp_path):
    (tmp_path / "in" / "pneumonia").mkdir(parents=True)
    Image.open(SAMPLES[0]).save(tmp_path / "in" / "pneumonia" / "a.png")
    release(tmp_path / "out", input=str(tmp_path / "in"))
    assert json.loads((tmp_path / "out" / "release_000001_privacy.json").read_text())["label"] == 1


def test_the_terms_of_the_films_stand_beside_the_weights():
    text = (BUNDLE / "docs" / "data_license.txt").read_text()
    assert "NIH Clinical Center" in text and "ChestX-ray8" in text
