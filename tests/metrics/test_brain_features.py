# SPDX-License-Identifier: Apache-2.0
"""The numbers of a brain follow its size, its ventricles and its sides, and little else."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.data import BrainCohort
from monai_cadp.metrics import BrainFeatures

FEATURES = BrainFeatures(spacing=2.0)


def block(low=(10, 8, 10), high=(30, 32, 30), value=0.8):
    volume = torch.zeros(1, 1, 40, 40, 40)
    volume[..., low[0] : high[0], low[1] : high[1], low[2] : high[2]] = value
    return volume


def test_the_volume_of_the_brain_is_in_millilitres():
    assert FEATURES(block())[0, 0] == pytest.approx(20 * 24 * 20 * 8 / 1000, rel=0.01)


def test_the_volume_of_the_ventricles_is_that_of_dark_voxels_in_the_middle():
    volume = block()
    volume[..., 18:22, 16:24, 18:22] = 0.3
    ventricles = FEATURES(volume)[0, 1] - FEATURES(block())[0, 1]
    assert ventricles == pytest.approx(4 * 8 * 4 * 8 / 1000, rel=0.05)


def test_air_is_no_fluid():
    assert FEATURES(torch.zeros(1, 1, 40, 40, 40))[0, 1] < 0.2


def test_asymmetry_has_the_sign_of_the_longer_side_and_does_not_follow_a_shift():
    right = block() + 0.8 * (block((30, 14, 14), (36, 26, 26)) > 0)
    left = right.flip(2)
    assert FEATURES(block())[0, 2].abs() < 1e-5
    assert FEATURES(right)[0, 2] > 0.05 and FEATURES(left)[0, 2] == pytest.approx(
        -float(FEATURES(right)[0, 2]), abs=1e-5
    )
    assert FEATURES(right.roll(2, dims=2))[0, 2] == pytest.approx(float(FEATURES(right)[0, 2]), abs=1e-5)


def test_features_look_at_every_volume_by_itself_and_are_finite():
    volumes = torch.cat([block(), torch.zeros(1, 1, 40, 40, 40), block(high=(25, 30, 28))])
    assert torch.allclose(FEATURES(volumes), torch.cat([FEATURES(volume) for volume in volumes.split(1)]), atol=1e-5)
    assert FEATURES(volumes).isfinite().all()


@pytest.mark.slow
def test_two_scans_of_a_patient_have_nearly_the_same_features():
    cohort = BrainCohort(seed=0, num_patients=30, num_scans=2)
    features = BrainFeatures(cohort.spacing)(
        torch.stack([item["image"] for item in map(cohort.__getitem__, range(60))])
    )
    for column, least in enumerate((0.95, 0.5, 0.8)):
        assert torch.corrcoef(torch.stack([features[0::2, column], features[1::2, column]]))[0, 1] > least


def test_what_is_no_volume_is_refused(refused):
    with refused(ValueError, "expected \\(B, 1, X, Y, Z\\)"):
        FEATURES(torch.zeros(1, 1, 4, 4))
