# SPDX-License-Identifier: Apache-2.0
"""The area under the curve is the one of the literature, whatever the scores."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import roc_auc_score

from monai_cadp.metrics import auc, mean_auc


def scores(seed):
    return torch.randn(50, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("digits", [0, 1, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_it_is_that_of_scikit_learn_with_ties_and_without(digits, dtype):
    for seed in range(20):
        x, y = scores(seed).mul(3).round(decimals=digits).to(dtype), scores(seed + 100).round(decimals=digits).to(dtype)
        known = roc_auc_score([1] * 50 + [0] * 50, torch.cat([x, y]))
        assert auc(x, y) == pytest.approx(known, abs=1e-12)


def test_it_does_not_depend_on_the_order_and_scores_the_other_way_round_give_the_rest():
    x, y = scores(0).round(decimals=1) + 0.5, scores(1).round(decimals=1)
    assert 0.6 < auc(x, y) < 1 and auc(x.flip(0), y.flip(0)) == auc(x, y)
    assert auc(-x, -y) == auc(y, x) == pytest.approx(1 - auc(x, y), abs=1e-12)


def test_infinite_scores_are_the_first_and_the_last():
    infinity = torch.tensor([float("inf")])
    assert auc(infinity, scores(0)) == 1 and auc(-infinity, scores(0)) == 0 and auc(infinity, infinity) == 0.5


def test_nobody_to_be_told_from_is_guessing():
    assert auc(scores(0), scores(0)[:0]) == auc(scores(0)[:0], scores(0)) == 0.5


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="A score is NaN"):
        auc(scores(0), scores(1).where(scores(1) > 0, torch.nan))
    with pytest.raises(ValueError, match="A score is NaN"):
        mean_auc(torch.full((2, 1), torch.nan), torch.tensor([[0], [1]]))


@pytest.mark.parametrize("unknown", [-1.0, 2.0, torch.nan])
def test_a_label_that_is_not_known_is_refused_and_never_counted_as_one_that_applies(unknown):
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        mean_auc(torch.tensor([[0.9], [0.1], [0.5]]), torch.tensor([[1.0], [0.0], [unknown]]))


def test_scores_of_several_labels_are_not_taken_for_those_of_one():
    with pytest.raises(ValueError, match="shapes .*expected"):
        auc(torch.zeros(3, 1), torch.zeros(3))
