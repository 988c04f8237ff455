# SPDX-License-Identifier: Apache-2.0
"""Figures of whole sets: how real they look, how certain a figure is, how unsure a classifier is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_cadp.metrics import bootstrap, dropout_uncertainty, frechet_distance, precision_recall


def cloud(count, seed, centre=0.0, width=1.0):
    return centre + width * torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def test_the_distance_of_normal_clouds_is_frechets():
    """Two normal distributions whose means differ by 2 in each of 6 directions: 24; whose widths are 1 and 2: 6."""
    assert frechet_distance(cloud(20_000, 0), cloud(20_000, 1, centre=2.0)) == pytest.approx(24, rel=0.03)
    assert frechet_distance(cloud(20_000, 0), cloud(20_000, 1, width=2.0)) == pytest.approx(6, rel=0.05)


def test_alike_sets_have_precision_and_recall():
    precision, recall = precision_recall(cloud(500, 0), cloud(500, 1))
    assert precision > 0.7 and recall > 0.7


def test_too_narrow_a_set_has_precision_without_recall_and_too_wide_a_one_the_reverse():
    precision, recall = precision_recall(cloud(500, 0), cloud(500, 1, width=0.2))
    assert precision > 0.9 and recall < 0.2
    precision, recall = precision_recall(cloud(500, 0), cloud(500, 1, width=3.0))
    assert precision < 0.5 and recall > 0.7


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """95 % of 200 intervals, give or take four standard deviations and the bias of small samples."""
    generator = torch.Generator().manual_seed(0)
    held = 0
    for seed in range(200):
        x = torch.randn(100, generator=generator)
        estimate = bootstrap(lambda drawn, x=x: float(x[drawn].mean()), 100, num_bootstraps=200, seed=seed)
        held += estimate.low <= 0 <= estimate.high
    assert 0.87 < held / 200 < 0.995


def test_an_estimate_is_repeatable_and_plain_data():
    first, second = (bootstrap(lambda drawn: float(drawn.float().mean()), 50, num_bootstraps=50) for _ in range(2))
    assert first == second and first.to_dict(1) == {
        "value": 24.5,
        "interval": [round(first.low, 1), round(first.high, 1)],
    }


def test_a_classifier_is_unsure_between_classes_and_sure_within_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 2))
    x = torch.randn(2000, 1, 2, 2)
    labels = (x.mean((1, 2, 3)) > 0).long()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
    sure, unsure = (dropout_uncertainty(model, torch.full((1, 1, 2, 2), value)) for value in (2.0, 0.0))
    assert sure < 0.1 and 0.8 < unsure <= 1
    assert torch.equal(dropout_uncertainty(model, x[:9]), dropout_uncertainty(model, x[:9]))
    assert not model[3].training


def test_of_several_labels_one_may_be_sure_of_all():
    """As classes the same logits would leave every class as likely as any other."""
    linear = nn.Linear(4, 3)
    nn.init.zeros_(linear.weight)
    model, x = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), linear), torch.rand(5, 1, 2, 2)
    figures = []
    for logit in (8.0, -8.0, 0.0):
        nn.init.constant_(linear.bias, logit)
        figures.append(dropout_uncertainty(model, x, several=True).tolist())
        assert dropout_uncertainty(model, x).tolist() == pytest.approx([1.0] * 5)
    sure, too, unsure = figures
    assert max(sure + too) < 0.01 and unsure == pytest.approx([1.0] * 5)


def test_what_cannot_be_measured_is_refused(refused):
    with refused(ValueError, "expected 1 or more"):
        precision_recall(cloud(3, 0), cloud(100, 1))
    with refused(ValueError, "expected 1 or more"):
        bootstrap(lambda drawn: 0.0, 0)
    with refused(ValueError, "no dropout"):
        dropout_uncertainty(nn.Flatten(), torch.rand(2, 4))
