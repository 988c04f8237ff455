# SPDX-License-Identifier: Apache-2.0
"""An attacker who can learn to tell people does, and one who cannot says so."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

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
    assert result.auc.value > 0.9 and result.auc.low <= result.auc.value <= result.auc.high
    assert result.precision_at_1.low > 5 * result.guess_at_1 and result.recall_at_k.low > 3 * result.guess_at_k
    assert result.recall_at_k.value > result.precision_at_1.value


def test_nobody_is_told_where_there_is_nothing_to_tell():
    model = train_verification(*scans(PEOPLE, 0, identity=False), epochs=10)
    result = reidentification(model, *scans(OTHERS, 1, identity=False))
    assert result.auc.low < 0.5 < result.auc.high
    assert result.precision_at_1.low < result.guess_at_1 < result.precision_at_1.high
    assert result.recall_at_k.low < result.guess_at_k < result.recall_at_k.high


def test_an_attacker_learns_a_different_look_of_the_gallery():
    """Releases need not look like originals."""
    gallery, probes = scans(PEOPLE, 0)
    other_gallery, other_probes = scans(OTHERS, 1)
    model = train_verification(-gallery, probes, epochs=30)
    assert reidentification(model, -other_gallery, other_probes, num_bootstraps=20).auc.value > 0.9


class Looks(nn.Module):
    """Embeddings that are given as images: people stand on a circle, and probes are turned by some places."""

    def forward(self, x, side):
        return x.flatten(1)


def test_a_probe_finds_its_person_among_as_many_as_it_takes():
    """Every right image is the third most similar, or the second as often: the two neighbours are tied."""
    angles = torch.arange(20.0) * 2 * torch.pi / 20
    gallery = torch.stack([angles.cos(), angles.sin()], 1)[:, :, None, None].double()
    probes = gallery.roll(-1, 0)
    near, far = (reidentification(Looks(), gallery, probes, k=k, num_bootstraps=20) for k in (2, 3))
    assert near.precision_at_1 == (0.0, 0.0, 0.0) and far.recall_at_k == (1.0, 1.0, 1.0)
    assert 0 < near.recall_at_k.value < 1 and (near.guess_at_1, near.guess_at_k) == (0.05, 0.1)


def test_who_takes_all_people_for_one_guesses():
    """Ties are broken at random, and not for the attacker."""
    everyone = torch.ones(40, 1, 2, 2)
    result = reidentification(Looks(), everyone, everyone, num_bootstraps=20)
    assert result.precision_at_1.value == pytest.approx(result.guess_at_1) == pytest.approx(1 / 40)
    assert result.recall_at_k.value == pytest.approx(result.guess_at_k) == pytest.approx(1 / 4)


def test_looking_at_no_image_is_refused(refused):
    with refused(ValueError, "k is 0; expected 1"):
        reidentification(Looks(), torch.rand(5, 1, 2, 2), torch.rand(5, 1, 2, 2), k=0)


def test_the_attack_is_the_same_for_the_same_seed():
    results = [
        reidentification(train_verification(*scans(32, 0), epochs=1), *scans(20, 1), num_bootstraps=20)
        for _ in range(2)
    ]
    assert results[0] == results[1]


def test_what_a_public_class_tells_is_no_reidentification():
    """Two classes that look different, people of one class that look the same: an attacker learns the class only."""
    labels = torch.arange(80) % 2
    images = labels[:, None, None, None] + 0.1 * torch.randn(2, 80, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = train_verification(*images, epochs=10)
    others = labels[:, None, None, None] + 0.1 * torch.randn(2, 80, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    across = reidentification(model, *others)
    within = reidentification(model, *others, labels=labels)
    assert across.auc.low > 0.65
    assert within.auc.low < 0.5 < within.auc.high
    assert (across.guess_at_1, within.guess_at_1) == pytest.approx((1 / 80, 1 / 40))


@pytest.mark.slow
def test_where_there_is_nothing_to_find_the_interval_includes_guessing_as_often_as_it_says():
    """200 galleries that have nothing to do with their probes; 95 % intervals that miss more than 1 in 8 are wrong."""
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(200):
        embeddings = torch.nn.functional.normalize(torch.randn(2, 30, 4, generator=generator), dim=2)
        auc = reidentification(Plain(), *embeddings, k=1, num_bootstraps=100).auc
        hits += auc.low <= 0.5 <= auc.high
    assert hits >= 175


def test_the_area_is_that_of_scikit_learn_over_all_pairs():
    embeddings = torch.randn(2, 25, 3, generator=torch.Generator().manual_seed(0)).round()
    labels = torch.arange(25) % 3
    similarity = embeddings[0] @ embeddings[1].T
    pairs = labels[:, None] == labels
    expected = roc_auc_score(torch.eye(25)[pairs].numpy(), similarity[pairs].numpy())
    assert reidentification(Plain(), *embeddings, k=1, labels=labels).auc.value == pytest.approx(expected, abs=1e-12)


class Plain(nn.Module):
    """An embedding that leaves vectors as they are."""

    def forward(self, x, side):
        return x
