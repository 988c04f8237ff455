# SPDX-License-Identifier: Apache-2.0
"""A small released folder, and keys."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from monai_cadp.privacy import SubsetSelection, TrainingData
from monai_cadp.release import ReleasedFolder

TRAINED = TrainingData.public()


def write_release(folder, guarantee, labels=(0, 1, 0), whole=None, **more):
    """A folder as a release writes it, with 4 x 4 images."""
    with ReleasedFolder(folder, num_expected=len(labels), set_guarantee=whole, **more) as released:
        for index, label in enumerate(labels):
            released.write(torch.full((1, 4, 4), index / 9), guarantee, label)
    return folder


@pytest.fixture(scope="session")
def guarantee():
    mechanism = SubsetSelection(4.0, num_candidates=64).configured(2)
    return mechanism.guarantee(public=("condition",), training_data=TRAINED, fingerprint="ab" * 32)


@pytest.fixture
def folder(tmp_path, guarantee):
    return write_release(tmp_path / "released", guarantee.to_dict())


@pytest.fixture(scope="session")
def key():
    return Ed25519PrivateKey.from_private_bytes(np.arange(32, dtype=np.uint8).tobytes())
