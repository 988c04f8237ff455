# SPDX-License-Identifier: Apache-2.0
"""Declared content: public candidates, made again from their index, ranked by the user's own features."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from monai_cadp.networks import ConditionalINN, DeclaredContent, new_event
from monai_cadp.privacy import TrainingData


def brightness_and_contrast(images):
    return torch.stack([images.mean((1, 2, 3)), images.std((1, 2, 3))], dim=1)


@pytest.fixture(scope="module", params=["none", "class", "vector"])
def setting(request):
    """A network that is not linear, and one of its conditions."""
    torch.manual_seed(0)
    options, condition = {
        "none": ({}, None),
        "class": ({"num_classes": 3}, torch.tensor([1])),
        "vector": ({"condition_size": 2}, torch.tensor([[0.3, -1.0]])),
    }[request.param]
    inn = ConditionalINN((4, 4), 1, **options, width=16, num_couplings=3)
    with torch.no_grad():
        for parameter in inn.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return inn, condition


def repeated(condition, count):
    return None if condition is None else condition.expand(count, *condition.shape[1:])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_candidates_made_again_have_the_features_of_the_table(setting, temperature):
    inn, condition = setting
    content = DeclaredContent(brightness_and_contrast, num_candidates=300)

    def temper(latents):
        return temperature * latents

    table = content.table(inn, condition, temper)
    indices = torch.tensor([299, 0, 63, 64, 128, 5])
    images = content.images(inn, indices, repeated(condition, 6), temper)
    features = table.standardise(content.describe(images))
    torch.testing.assert_close(features, table.candidates[indices], rtol=0, atol=1e-4)


def test_a_candidate_does_not_depend_on_the_order_of_indices_or_on_the_others(setting):
    inn, condition = setting
    content = DeclaredContent(brightness_and_contrast, num_candidates=300)
    indices = torch.tensor([7, 200, 7, 65, 299])
    images = content.images(inn, indices, repeated(condition, 5))
    turned = content.images(inn, indices.flip(0), repeated(condition, 5)).flip(0)
    torch.testing.assert_close(images, turned, rtol=0, atol=1e-5)
    torch.testing.assert_close(images[0], images[2], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        content.latents(inn.num_latents, indices)[1:2], content.latents(inn.num_latents, indices[1:2]), rtol=0, atol=0
    )


def test_the_table_is_standardised_by_its_candidates(setting):
    inn, condition = setting
    table = DeclaredContent(brightness_and_contrast, num_candidates=500).table(inn, condition)
    assert table.candidates.shape == (500, 2)
    assert table.candidates.mean(0).abs().max() < 1e-3
    assert (table.candidates.std(0, correction=0) - 1).abs().max() < 1e-3
    assert table.targets.shape[1] == 2 and len(table.targets) > 0


def test_all_candidates_differ_and_look_like_the_prior():
    latents = DeclaredContent(brightness_and_contrast).latents(8, torch.arange(4096))
    assert len(latents.unique(dim=0)) == 4096
    assert (latents.T.cov() - torch.eye(8)).abs().max() < 0.1
    assert latents.mean(0).abs().max() < 0.1


def test_the_seed_is_what_makes_the_candidates():
    indices = torch.arange(200)
    first = DeclaredContent(brightness_and_contrast, seed=1).latents(4, indices)
    torch.manual_seed(123)
    assert torch.equal(first, DeclaredContent(brightness_and_contrast, seed=1).latents(4, indices))
    other = DeclaredContent(brightness_and_contrast, seed=2).latents(4, indices)
    assert not torch.isin(other, first).any()


def test_making_candidates_leaves_the_global_generator_alone(setting):
    inn, condition = setting
    state = torch.random.get_rng_state()
    DeclaredContent(brightness_and_contrast, num_candidates=64).table(inn, condition)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_candidate_whose_feature_is_not_finite_does_not_spoil_the_others(value):
    inn = ConditionalINN((), 2, num_couplings=0)

    def sometimes(images):
        return torch.where(images[:, :1] > 1.0, value, images[:, :1])

    table = DeclaredContent(sometimes, num_candidates=400).table(inn, None)
    assert torch.isfinite(table.candidates).all() and torch.isfinite(table.mean).all()
    assert table.candidates.std() > 0.5
    assert table.standardise(torch.tensor([[value]])) == 0


@pytest.mark.parametrize("value", [float("nan"), 3.0])
def test_a_feature_that_never_varies_says_nothing(value):
    inn = ConditionalINN((), 2, num_couplings=0)
    content = DeclaredContent(lambda x: torch.full((len(x), 1), value), num_candidates=64)
    assert not content.table(inn, None).candidates.any()


@pytest.mark.parametrize(
    "features", [lambda x: x.mean(), lambda x: x.flatten(1).mean(1), lambda x: x[:1].flatten(1), lambda x: x]
)
def test_features_of_another_shape_are_refused(refused, features):
    inn = ConditionalINN((4, 4), num_couplings=0)
    with refused(ValueError, "declared features of .* expected \\(.*, k\\)"):
        DeclaredContent(features, num_candidates=64).table(inn, None)


def test_what_cannot_be_called_is_refused(refused):
    with refused(TypeError, "features is a str; expected a function"):
        DeclaredContent("area")


@pytest.mark.parametrize("count", [1, 0, -5])
def test_fewer_than_two_candidates_are_refused(refused, count):
    with refused(ValueError, "num_candidates is .*expected at least 2"):
        DeclaredContent(brightness_and_contrast, num_candidates=count)


def test_features_that_were_learnt_have_a_record_or_count_as_unprotected():
    """Who is in a network that measures content is seen in what is released by it."""

    def protection(features, **stated):
        return TrainingData.of(DeclaredContent(features, **stated)).protection

    class OfEncoder(torch.nn.Module):
        def __init__(self, inn):
            super().__init__()
            self.inn, self.training_events = inn, inn.training_events

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    assert protection(network) == "unprotected"
    assert protection(network, training_events=[new_event("classifier", "public")]) == "public"
    assert protection(brightness_and_contrast) == protection(torch.nn.Flatten()) == "public"
    inn = ConditionalINN((4, 4))
    with inn.learning("unprotected"):
        pass
    assert protection(OfEncoder(inn)) == "unprotected"


LEARNT = torch.nn.Linear(16, 2)


def of_a_global(images):
    return LEARNT(images.flatten(1))


class Measured:
    def __init__(self, network):
        self.networks = [network]

    def __call__(self, images):
        return self.networks[0](images.flatten(1))


@pytest.mark.parametrize("way", ["method", "closure", "partial", "default", "global", "object", "nested"])
def test_learnt_features_are_found_wherever_a_function_holds_them(way):
    network = torch.nn.Linear(16, 2)
    features = {
        "method": network.forward,
        "closure": lambda x: network(x.flatten(1)),
        "partial": partial(lambda x, by: by(x.flatten(1)), by=network),
        "default": lambda x, by=network: by(x.flatten(1)),
        "global": of_a_global,
        "object": Measured(network),
        "nested": lambda x: torch.stack([of_a_global(row[None])[0] for row in x]),
    }[way]
    assert TrainingData.of(DeclaredContent(features)).protection == "unprotected"


def test_what_is_stated_of_learnt_features_holds_until_they_learn_more():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    content = DeclaredContent(network, training_events=[new_event("classifier", "public")])
    assert TrainingData.of(content.double()).protection == "public"
    # A closure is not copied, and holds the same network.
    copied = copy.deepcopy(DeclaredContent(lambda x: network(x), training_events=[new_event("classifier", "public")]))
    with torch.no_grad():
        network[1].bias.add_(1.0)
    for changed in (content, copied):
        assert TrainingData.of(changed).protection == "unprotected"


def test_declared_content_is_not_traced(refused):
    """A trace would keep the candidates of its example."""
    content = DeclaredContent(brightness_and_contrast, num_candidates=128)
    with refused(ValueError, "cannot be traced"):
        torch.jit.trace(lambda indices: content.latents(16, indices), torch.tensor([3]))
