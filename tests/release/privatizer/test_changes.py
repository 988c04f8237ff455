# SPDX-License-Identifier: Apache-2.0
"""What a caller changes afterwards is part of what is promised."""

from __future__ import annotations

import copy

import torch

from monai_cadp import Privatizer
from monai_cadp.networks import DeclaredContent
from monai_cadp.privacy import (
    RandomizedResponse,
    SubsetSelection,
)
from tests.release.privatizer.toys import (
    SHAPE,
    basis,
    constant,
    images,
)


class MixesTheBatch(torch.nn.Module):
    """Features that look at the whole batch: in training mode by their norm, and always by its mean."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(1)

    def forward(self, x):
        mean = x.mean((1, 2, 3))[:, None]
        return self.norm(mean) - mean.mean()


def test_declared_features_cannot_mix_images_whatever_they_do(inn):
    features = MixesTheBatch()
    privatizer = Privatizer(inn, SubsetSelection(40.0), DeclaredContent(features, num_candidates=64)).train()
    assert not features.training
    before = copy.deepcopy(features.state_dict())
    labels = torch.zeros(2, dtype=torch.long)
    dark, bright = (privatizer(torch.cat([images(1), mate * torch.ones(1, *SHAPE)]), labels) for mate in (0.0, 1e6))
    assert torch.equal(dark[0], bright[0])
    assert all(torch.equal(features.state_dict()[name], value) for name, value in before.items())


def test_another_mechanism_brings_its_own_threshold_and_guarantee(inn):
    content = DeclaredContent(lambda x: x.mean((1, 2, 3))[:, None], num_candidates=64)
    privatizer = Privatizer(inn, SubsetSelection(40.0), content)
    labels = torch.zeros(400, dtype=torch.long)
    certain = privatizer(images(1).expand(400, *SHAPE), labels)
    privatizer.mechanism = SubsetSelection(0.01)
    assert privatizer.guarantee.epsilon == 0.01
    blurred = privatizer(images(1).expand(400, *SHAPE), labels)
    assert len(certain.unique(dim=0)) < 64 / 2 < len(blurred.unique(dim=0))


def test_a_label_mechanism_that_was_taken_away_is_promised_no_longer(inn):
    label = RandomizedResponse(1.0, num_classes=3)
    privatizer = Privatizer(inn, constant(), basis(inn), label_mechanism=label)
    before = privatizer.guarantee
    privatizer.label_mechanism = None
    assert privatizer.guarantee.epsilon == before.epsilon - 1.0
    assert before.public == () and privatizer.guarantee.public == ("condition",)
