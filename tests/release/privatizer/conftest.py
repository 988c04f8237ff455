# SPDX-License-Identifier: Apache-2.0
"""Fitted networks for every kind of condition."""

from __future__ import annotations

import copy

import pytest
import torch

from monai_cadp.networks import ConditionalINN, fit_moments
from tests.release.privatizer.toys import (
    CONDITIONS,
    SHAPE,
    conditions,
    images,
)


@pytest.fixture(scope="module")
def networks():
    """A fitted network for every kind of condition, no coupling of which is the identity."""
    torch.manual_seed(0)
    made = {}
    for kind, options in CONDITIONS.items():
        inn = ConditionalINN(SHAPE[1:], 1, **options, num_levels=1, rank=4, width=16, num_couplings=3, detail_width=8)
        fit_moments(inn, lambda kind=kind: [(images(400), conditions(kind, 400))])
        with torch.no_grad():
            for parameter in inn.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        made[kind] = inn
    return made


@pytest.fixture
def inn(networks):
    return copy.deepcopy(networks["class"])


@pytest.fixture(params=CONDITIONS)
def setting(request, networks):
    return copy.deepcopy(networks[request.param]), conditions(request.param, 6)
