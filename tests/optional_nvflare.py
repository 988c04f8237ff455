# SPDX-License-Identifier: Apache-2.0
"""Two sites train one network in NVFlare's simulator; run by itself, where nvflare is installed.

pip install nvflare && python -m pytest -q tests/optional_nvflare.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_cadp.data import Digits
from monai_cadp.engines import bits_per_dimension
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel, fit_moments
from monai_cadp.privacy import TrainingData
from monai_cadp.release.checkpoint import load_network, save_model

ROOT = Path(__file__).parents[1]


def digits(split):
    items = list(Digits(split))
    return torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items])


@pytest.mark.parametrize("budget", [(), ("--epsilon", "4", "--delta", "1e-4")])
def test_weights_travel_and_images_stay(tmp_path, budget):
    images, labels = digits("train")
    for site in range(2):
        mine = labels % 2 == site
        arrays = {"train_images": (255 * images[mine, 0]).byte().numpy(), "train_labels": labels[mine, None].numpy()}
        np.savez(tmp_path / f"{site}.npz", **arrays)
    network = ConditionalINN((8, 8), 1, num_classes=10, num_levels=0, rank=8, num_couplings=2, width=16)
    # Others than those of the sites: mirrored.
    fit_moments(network, lambda: [(digits("val")[0].flip(3), digits("val")[1])], training_data="public")
    save_model(TrainedModel(network, ContentBasis.leading(network, 4)), tmp_path / "public.pt")

    command = [sys.executable, str(ROOT / "examples" / "federated" / "simulate.py"), "--output", str(tmp_path / "out")]
    archives = [str(tmp_path / f"{site}.npz") for site in range(2)]
    command += ["--network", str(tmp_path / "public.pt"), "--dataset_dirs", *archives]
    command += ["--rounds", "2", "--spatial_shape", "8", "8", "--batch_size", "100", *budget]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]

    public = load_network(tmp_path / "public.pt")
    averaged = load_network(tmp_path / "public.pt")
    averaged.load_state_dict(torch.load(tmp_path / "out" / "averaged.pt", weights_only=True))
    assert TrainingData.of(averaged).protection == ("dp" if budget else "unprotected")
    with torch.no_grad():
        before, after = (float(bits_per_dimension(one, *digits("test")).mean()) for one in (public, averaged))
    assert after != before and (budget or after < before)
    for number in (1, 2):
        guarantee = json.loads((tmp_path / "out" / f"site-{number}" / "guarantee.json").read_text())
        assert (guarantee is None) if not budget else (3.9 < guarantee["epsilon"] <= 4.0)
    # Whatever was written holds no image, as numbers of either kind, and not where images are.
    secret = [images[0, 0].numpy().tobytes(), (255 * images[0, 0]).byte().numpy().tobytes()]
    secret += [archive.encode() for archive in archives]
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written and not any(one in content for one in secret for content in written)
