# SPDX-License-Identifier: Apache-2.0
"""Methods make one variant a budget, on the network of the study."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.metrics import shape_features
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.studies import UserContent
from monai_cadp.studies.variant import Split, StudyContext


@pytest.mark.parametrize(("quick", "num_candidates"), [(False, 8192), (True, 256)])
def test_declared_content_has_one_table_for_all_budgets_and_a_small_one_in_a_short_study(
    tmp_path, quick, num_candidates
):
    inn = ConditionalINN((8, 8), num_couplings=0, rank=4)
    model, train = TrainedModel(inn, ContentBasis.leading(inn, 2)), Split(torch.rand(2, 1, 8, 8), torch.arange(2))
    context = StudyContext(model, 1.0, "image", train, tmp_path, quick)
    first, second = UserContent(shape_features, [1.0, 4.0]).variants(context)
    assert (first.epsilon, second.epsilon) == (1.0, 4.0)
    assert first.releaser.content is second.releaser.content
    assert first.releaser.content.num_candidates == num_candidates
