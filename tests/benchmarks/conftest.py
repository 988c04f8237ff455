# SPDX-License-Identifier: Apache-2.0
"""Made-up films of patients, and a network that has learnt nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.release.checkpoint import save_model


@pytest.fixture
def films(tmp_path):
    """Two films of each of twelve patients a split, 32 x 32, as a file."""
    generator = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = generator.integers(0, 255, (24, 32, 32), np.uint8)
        arrays[f"{split}_labels"] = np.arange(24)[:, None] % 2
        arrays[f"{split}_patients"] = np.arange(24) // 2 + {"train": 0, "val": 100, "test": 200}[split]
    np.savez(tmp_path / "films.npz", **arrays)
    return tmp_path / "films.npz"


@pytest.fixture
def checkpoint(tmp_path):
    """A network of such films with a content basis of 4 directions, as a file."""
    torch.manual_seed(0)
    inn = ConditionalINN((32, 32), 1, num_classes=2, num_couplings=1, width=8, num_detail_couplings=1)
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 4)), tmp_path / "model.pt")
    return tmp_path / "model.pt"
