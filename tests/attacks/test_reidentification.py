# SPDX-License-Identifier: Apache-2.0
"""An attacker who can learn to tell people does, and one who cannot says so."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.attacks import reidentification, train_verification

PEOPLE, OTHERS = 128, 60


def scans(people, seed, identity=True, spatial=(8, 8)):
    """Two noisy images of every person, on which a person's pattern is seen, or is not."""
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.randn(people, 1, *spatial, generator=generator)
    pairs = [0.5 * torch.randn(pattern.shape, generator=generator) for _ in range(2)]
    return [noise + pattern if identity else noise for noise in pairs]


@pytest.mark.parametrize("spatial", [(8, 8), (8, 8, 8)])
def test_people_are_told_by_what_they_have_in_common(spatial):
    model = train_verification(*scans(PEOPLE, 0, spatial=spatial), epochs=30)
    result = reidentification(model, *scans(OTHERS, 1, spatial=spatial))
    assert result.auc > 0.9 and result.low <= result.auc <= result.high


def test_nobody_is_told_where_there_is_nothing_to_tell():
    model = train_verification(*scans(PEOPLE, 0, identity=False), epochs=10)
    result = reidentification(model, *scans(OTHERS, 1, identity=False))
    assert result.low < 0.5 < result.high


def test_an_attacker_learns_a_different_look_of_the_gallery():
    """Releases need not look like originals."""
    gallery, probes = scans(PEOPLE, 0)
    other_gallery, other_probes = scans(OTHERS, 1)
    model = train_verification(-gallery, probes, epochs=30)
    assert reidentification(model, -other_gallery, other_probes).auc > 0.9


def test_the_attack_is_the_same_for_the_same_seed():
    results = [reidentification(train_verification(*scans(32, 0), epochs=1), *scans(20, 1)) for _ in range(2)]
    assert results[0] == results[1]
