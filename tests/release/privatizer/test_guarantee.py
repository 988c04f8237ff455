# SPDX-License-Identifier: Apache-2.0
"""The guarantee is that of the mechanism, for this network, with all that is public."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from monai_cadp import Privatizer
from monai_cadp.networks import (
    ConditionalINN,
    ContentBasis,
    DeclaredContent,
    TrainedModel,
    fit_moments,
    new_event,
)
from monai_cadp.privacy import (
    PriorOnly,
    RandomizedResponse,
    SubsetSelection,
    TrainingData,
)
from monai_cadp.release.checkpoint import load_model, save_model
from tests.release.privatizer.toys import (
    MECHANISMS,
    basis,
    mean_and_deviation,
)


def test_the_guarantee_is_that_of_the_mechanism_for_this_network(inn):
    guarantee = Privatizer(inn, MECHANISMS["GaussianMechanism"](), basis(inn), unit="patient").guarantee
    assert (guarantee.epsilon, guarantee.delta, guarantee.mechanism) == (4.0, 1e-5, "GaussianMechanism")
    assert guarantee.unit == "patient"
    assert guarantee.fingerprint == inn.fingerprint()


def test_image_and_label_add_their_epsilons(inn):
    privatizer = Privatizer(
        inn, SubsetSelection(2.0, num_candidates=64), basis(inn), label_mechanism=RandomizedResponse(1.5, num_classes=3)
    )
    guarantee = privatizer.guarantee
    assert guarantee.epsilon == 3.5
    assert "condition" not in guarantee.public
    assert [part["mechanism"] for part in guarantee.parameters["parts"]] == ["SubsetSelection", "RandomizedResponse"]


@pytest.mark.parametrize(("kind", "public"), [("none", ()), ("class", ("condition",)), ("vector", ("condition",))])
def test_a_condition_is_called_public_exactly_where_it_is_released_as_it_is(networks, kind, public):
    inn = networks[kind]
    assert Privatizer(inn, PriorOnly(), basis(inn)).guarantee.public == public


@pytest.mark.parametrize(
    "event",
    [
        new_event("flow", "unprotected"),
        new_event("flow", "public"),
        new_event("flow", "dp", {"epsilon": 2, "delta": 1e-6, "unit": "image"}),
    ],
    ids=lambda event: event["protection"],
)
def test_the_guarantee_says_how_the_network_was_trained(event):
    inn = ConditionalINN((4, 4), num_levels=0, num_couplings=1, width=8)
    inn.add_training_events([event])
    guarantee = Privatizer(inn, PriorOnly(), basis(inn)).guarantee
    assert guarantee.training_data == TrainingData.of([event])
    assert guarantee.training_data.protection == event["protection"]
    assert ("does not cover" in guarantee.explain()) == (event["protection"] == "unprotected")


def test_the_guarantee_names_the_number_of_directions(inn):
    privatizer = Privatizer(inn, SubsetSelection(2.0, num_candidates=64), basis(inn, k=4))
    assert privatizer.guarantee.parameters["num_directions"] == 4


def test_the_guarantee_of_declared_content_names_the_candidates_that_are_ranked(inn):
    content = DeclaredContent(mean_and_deviation, num_candidates=128, seed=9)
    parameters = Privatizer(inn, SubsetSelection(2.0), content).guarantee.parameters
    assert (parameters["num_candidates"], parameters["num_blocks"], parameters["seed"]) == (128, 1, 9)


def test_another_mechanism_takes_nothing_else_along_with_it(inn):
    """Labels stay protected, and all that decides how the rest is drawn stays as it was."""
    options = {"condition": 1, "temperature": 0.5, "detail_temperature": 0.25, "unit": "patient"}
    label_mechanism = RandomizedResponse(1.5, num_classes=3)
    first = Privatizer(inn, SubsetSelection(2.0), basis(inn), label_mechanism=label_mechanism, **options)
    second = first.with_mechanism(SubsetSelection(0.5))
    assert second.guarantee.epsilon == 0.5 + 1.5 and first.guarantee.epsilon == 2.0 + 1.5
    again = second.with_mechanism(SubsetSelection(2.0))
    assert again.guarantee == first.guarantee and again.identity == first.identity
    assert torch.equal(again.condition_space.default, first.condition_space.default)
    model = TrainedModel(inn, basis(inn), schema={"spacing": 1.8})
    assert Privatizer(model, PriorOnly()).with_mechanism(SubsetSelection(2.0)).schema == {"spacing": 1.8}


def network(seed, training_data):
    torch.manual_seed(seed)
    inn = ConditionalINN((4, 4), 1, num_couplings=1, width=8)
    fit_moments(inn, lambda: [(torch.rand(40, 1, 4, 4), None)], training_data=training_data)
    return inn


@pytest.mark.parametrize("find", [lambda inn: ContentBasis.fit(inn, 2, num_samples=64), ContentBasis.leading])
def test_directions_that_were_found_in_a_network_of_unprotected_people_tell_of_them(find, tmp_path):
    """Directions are a function of its weights, they decide what is released, and they travel in checkpoints."""
    public, basis = network(0, "public"), find(network(1, "unprotected"))
    mechanism = SubsetSelection(4.0, num_candidates=64)
    save_model(TrainedModel(public, basis), tmp_path / "model.pt")
    stored = load_model(tmp_path / "model.pt")
    loaded = Privatizer(public, mechanism, ContentBasis.leading(public, basis.num_directions))
    loaded.content.load_state_dict(basis.state_dict())
    for releaser in (
        Privatizer(public, mechanism, basis),
        Privatizer(TrainedModel(public, basis), mechanism),
        Privatizer(stored, mechanism),
        copy.deepcopy(Privatizer(public, mechanism, basis)),
        pickle.loads(pickle.dumps(Privatizer(public, mechanism, basis))),
        loaded,
    ):
        assert releaser.training_data.protection == "unprotected"
        assert releaser.guarantee.training_data.protection == "unprotected"
    assert TrainingData.of(stored).protection == "unprotected"
    own = Privatizer(public, mechanism, find(public))
    assert own.training_data.protection == "public" == own.guarantee.training_data.protection


def test_directions_that_are_loaded_without_a_record_count_as_unprotected():
    """As files of older versions hold them; of their network, in the same file, only a whole model knows."""
    public = network(0, "public")
    privatizer = Privatizer(public, SubsetSelection(4.0, num_candidates=64), ContentBasis.leading(public, 2))
    state = privatizer.content.state_dict()
    assert privatizer.training_data.protection == "public"
    del state["_extra_state"]
    privatizer.content.load_state_dict(state)
    assert privatizer.training_data.protection == privatizer.guarantee.training_data.protection == "unprotected"


def test_candidates_of_one_network_are_never_released_with_another_one():
    privatizer = Privatizer(network(1, "unprotected"), SubsetSelection(4.0), DeclaredContent(means, num_candidates=32))
    other = network(0, "public")
    privatizer.prepare(progress=False).inn = other
    afresh = Privatizer(other, SubsetSelection(4.0), DeclaredContent(means, num_candidates=32)).prepare(progress=False)
    privatizer(torch.rand(2, 1, 4, 4))
    (found,), (expected,) = ([table for table, _ in one._tables.values()] for one in (privatizer, afresh))
    assert torch.equal(found.candidates, expected.candidates)


def means(images):
    return images.flatten(1).mean(1, keepdim=True)
