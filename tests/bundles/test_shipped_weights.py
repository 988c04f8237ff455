# SPDX-License-Identifier: Apache-2.0
"""The weights in the repository are small, public, safe to load, and refused if they are not the shipped ones."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import run
from PIL import Image

from monai_cadp.data import PublicGrid, ReadVolume, brain_template_file
from monai_cadp.privacy import PriorOnly
from monai_cadp.release.checkpoint import load_privatizer

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "cadp_brain_mr"
CHECKPOINT = BUNDLE / "models" / "model.pt"
OPTIONS = yaml.safe_load((BUNDLE / "configs" / "inference.yaml").read_text())
SHA256 = OPTIONS["checkpoint_sha256"]
TRAINED = yaml.safe_load((BUNDLE / "configs" / "train.yaml").read_text())


@pytest.fixture(scope="module")
def shipped():
    return load_privatizer(CHECKPOINT, PriorOnly(), sha256=SHA256)


def test_the_checkpoint_is_small_and_holds_tensors_and_plain_data_only():
    assert CHECKPOINT.stat().st_size <= 25_000_000
    torch.load(CHECKPOINT, weights_only=True)


def test_the_weights_are_those_of_the_configurations_and_leak_nobody(shipped):
    assert shipped.training_data.protection == "public"
    for options in (TRAINED["network"], OPTIONS["inn"]):
        chosen = {name: value for name, value in options.items() if name not in ("_target_", "spatial_shape")}
        assert chosen.items() <= shipped.inn.config.items()
    assert list(shipped.inn.spatial_shape) == OPTIONS["spatial_shape"] == TRAINED["spatial_shape"]


def test_the_notice_of_the_template_stands_beside_the_weights():
    text = " ".join((BUNDLE / "docs" / "README.md").read_text().split())
    assert "Copyright (C) 1993-2004 Louis Collins" in text and "appears in all copies" in text


def corrupted(content):
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


def truncated(content):
    return content[:-1]


def swapped(content):
    return b"another checkpoint"


@pytest.mark.parametrize("change", [corrupted, truncated, swapped], ids=lambda change: change.__name__)
def test_any_other_file_in_the_place_of_the_weights_is_refused(change, tmp_path):
    (tmp_path / "model.pt").write_bytes(change(CHECKPOINT.read_bytes()))
    with pytest.raises(Exception) as caught:
        run(
            config_file=str(BUNDLE / "configs" / "inference.yaml"),
            bundle_root=str(BUNDLE),
            checkpoint=str(tmp_path / "model.pt"),
            input=str(brain_template_file()),
            output=str(tmp_path / "out"),
            epsilon=4.0,
        )
    assert "not the one that was shipped" in "".join(traceback.format_exception(caught.value))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_real_volume_is_released_at_several_epsilons_the_right_way_up(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    run(config_file="configs/quickstart_brain.yaml", output_dir=str(tmp_path / "out"))
    grid = PublicGrid(OPTIONS["spatial_shape"], OPTIONS["spacing"], OPTIONS["grid"]["centre"])
    original = ReadVolume(grid)(brain_template_file())[0].numpy()
    for epsilon in (1, 4, 8):
        (path,) = (tmp_path / "out" / f"epsilon_{epsilon}").glob("*.nii.gz")
        released = nibabel.load(path)
        assert np.allclose(released.affine, grid.affine)
        (card,) = (tmp_path / "out" / f"epsilon_{epsilon}").glob("*_privacy.json")
        assert json.loads(card.read_text())["guarantee"]["epsilon"] == epsilon
        same, *flipped = (
            np.corrcoef(original.ravel(), np.flip(released.get_fdata(), axis).ravel())[0, 1] for axis in [(), 1, 2]
        )
        assert same > 0.8 and max(flipped) < same
    picture = np.asarray(Image.open(tmp_path / "out" / "releases.png"))
    assert picture.std() > 20
