# SPDX-License-Identifier: Apache-2.0
"""One public volume is released at every epsilon, and shown beside its releases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from monai_cadp.data import PublicGrid
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.studies import epsilon_sweep

SHAPE = (8, 10, 8)
GRID = PublicGrid(SHAPE, spacing=2.0)


@pytest.fixture
def model():
    inn = ConditionalINN(SHAPE, rank=4, num_couplings=0, num_levels=1, num_detail_couplings=1)
    return TrainedModel(inn, ContentBasis.leading(inn, 4))


def volumes(count):
    return [{"image": torch.linspace(0, 1, 640).reshape(1, *SHAPE)}] * count


def test_every_epsilon_has_a_folder_and_the_picture_a_row(model, tmp_path):
    folder = epsilon_sweep(model, volumes(1), tmp_path / "out", [0.5, 4], GRID, unit="volume")
    assert sorted(path.name for path in folder.iterdir()) == ["epsilon_0.5", "epsilon_4", "releases.png"]
    assert len(list((folder / "epsilon_4").glob("*_privacy.json"))) == 1
    picture = np.asarray(Image.open(folder / "releases.png"))
    rows = picture[2:].reshape(3, -1, *picture.shape[1:])
    assert not np.array_equal(rows[0], rows[1]) and not np.array_equal(rows[1], rows[2])


@pytest.mark.parametrize(("count", "epsilons", "match"), [(2, [1.0], "2 volumes"), (1, [1.0, 0.0], "epsilon")])
def test_what_cannot_be_swept_is_refused_before_anything_is_written(model, tmp_path, count, epsilons, match):
    with pytest.raises(ValueError, match=match):
        epsilon_sweep(model, volumes(count), tmp_path / "out", epsilons, GRID, unit="volume")
    assert not (tmp_path / "out").exists()
