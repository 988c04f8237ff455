# SPDX-License-Identifier: Apache-2.0
"""What does not fit is refused before anything is spent."""

from __future__ import annotations

import math

import pytest
import torch

from monai_cadp import Privatizer
from monai_cadp.networks import ConditionalINN, ContentBasis, PaperINN
from monai_cadp.privacy import (
    PriorOnly,
    RandomizedResponse,
    SubsetSelection,
)
from tests.release.privatizer.toys import (
    basis,
    constant,
    declared,
    images,
)


class CountedLabels(RandomizedResponse):
    """Counts the labels that it randomizes."""

    def __init__(self):
        super().__init__(1.0, num_classes=3)
        self.calls = []

    def __call__(self, latents, generator=None):
        self.calls.append(len(latents))
        return super().__call__(latents, generator)


@pytest.mark.parametrize(
    ("kind", "x", "condition"),
    [
        (ValueError, torch.zeros(2, 1, 4, 5), torch.tensor([0, 1])),
        (ValueError, torch.zeros(1, 4, 4), torch.tensor([0])),
        (ValueError, torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])),
        (ValueError, torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.long)),
        (ValueError, torch.zeros(()), None),
        (TypeError, torch.zeros(2, 1, 4, 4, dtype=torch.int32), torch.tensor([0, 1])),
        (TypeError, torch.zeros(2, 1, 4, 4, dtype=torch.complex64), torch.tensor([0, 1])),
        (TypeError, [[0.0]], torch.tensor([0])),
        (ValueError, torch.zeros(2, 1, 4, 4), torch.tensor([0, 3])),
        (ValueError, torch.zeros(2, 1, 4, 4), torch.tensor([0, -1])),
        (ValueError, torch.zeros(2, 1, 4, 4), torch.tensor([0])),
        (ValueError, torch.zeros(2, 1, 4, 4), None),
        (TypeError, torch.zeros(2, 1, 4, 4), torch.tensor([0.0, 1.0])),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_spent(inn, refused, kind, x, condition):
    mechanism, labels = constant(), CountedLabels()
    privatizer = Privatizer(inn, mechanism, basis(inn), label_mechanism=labels)
    with refused(kind, "expected|pass"):
        privatizer(x, condition)
    assert mechanism.seen == [] and labels.calls == []


@pytest.mark.parametrize("condition", [torch.tensor([[math.nan, 0.0]]), torch.zeros(1, 3), torch.tensor([[0, 1]])])
def test_a_vector_that_does_not_fit_is_refused_before_anything_is_spent(networks, refused, condition):
    mechanism = constant()
    with refused((TypeError if condition.dtype == torch.long else ValueError), "expected"):
        Privatizer(networks["vector"], mechanism, basis(networks["vector"]))(images(1), condition)
    assert mechanism.seen == []


def test_parts_of_the_wrong_kind_are_refused(inn, refused):
    content = basis(inn)
    for arguments, name in (
        ((torch.nn.Linear(2, 2), PriorOnly(), content), "inn is a Linear; expected InvertibleNetwork"),
        ((inn, "laplace", content), "mechanism is a str; expected Mechanism"),
        ((inn, PriorOnly(), None), "content is a NoneType; expected ContentBasis or DeclaredContent"),
        ((inn, PriorOnly(), declared()), "declared content needs SubsetSelection"),
    ):
        with refused(TypeError, name):
            Privatizer(*arguments)
    with refused(TypeError, "label_mechanism is a SubsetSelection; expected RandomizedResponse"):
        Privatizer(inn, PriorOnly(), content, label_mechanism=SubsetSelection(1.0))


def test_a_network_without_details_has_no_temperature_of_details(refused):
    content = ContentBasis(torch.eye(16)[:, :2], torch.ones(2))
    for inn in (PaperINN((4, 4), depths=(1,), num_dense=1, dense_width=8), ConditionalINN((4, 4), num_levels=0)):
        with refused(ValueError, f"this {type(inn).__name__} has no details"):
            Privatizer(inn, PriorOnly(), content, detail_temperature=0.5)
    Privatizer(ConditionalINN((4, 4), num_levels=0, rank=8), PriorOnly(), content, detail_temperature=0.5)


def test_a_network_without_a_refiner_is_not_told_to_leave_it_out(inn, refused):
    with refused(ValueError, "the network has no refiner"):
        Privatizer(inn, PriorOnly(), basis(inn), refined=False)


def test_parts_that_do_not_fit_each_other_are_refused(networks, inn, refused):
    content = basis(inn)
    with refused(ValueError, "directions of length 3, but the network has 16"):
        Privatizer(inn, PriorOnly(), ContentBasis(torch.eye(3), torch.ones(3)))
    with refused(ValueError, "takes no class labels"):
        Privatizer(networks["vector"], PriorOnly(), content, label_mechanism=RandomizedResponse(1.0, 3))
    with refused(ValueError, "has 4 classes, but the network has 3"):
        Privatizer(inn, PriorOnly(), content, label_mechanism=RandomizedResponse(1.0, 4))


@pytest.mark.parametrize("name", ["temperature", "detail_temperature"])
@pytest.mark.parametrize("temperature", [-0.1, 1.1, math.nan])
def test_a_temperature_out_of_range_is_refused(inn, refused, name, temperature):
    with refused(ValueError, f"{name} is .*expected a number from 0 to 1"):
        Privatizer(inn, PriorOnly(), basis(inn), **{name: temperature})


@pytest.mark.parametrize(("kind", "condition"), [(ValueError, 3), (ValueError, -1), (TypeError, 0.5)])
def test_a_default_condition_that_the_network_does_not_take_is_refused_at_once(inn, refused, kind, condition):
    with refused(kind, "expected"):
        Privatizer(inn, PriorOnly(), basis(inn), condition=condition)
