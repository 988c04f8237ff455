# SPDX-License-Identifier: Apache-2.0
"""Declared features survive, and decide among public candidates only."""

from __future__ import annotations

import pytest
import torch

from monai_cadp import Privatizer
from monai_cadp.networks import ConditionalINN, DeclaredContent
from monai_cadp.privacy import (
    SubsetSelection,
)
from tests.release.privatizer.toys import (
    CONDITIONS,
    SHAPE,
    conditions,
    declared,
    images,
    mean_and_deviation,
)


def kept(inn, epsilon):
    """Correlation of the first declared feature between 1500 originals and their releases."""
    torch.manual_seed(0)
    condition = None if not inn.condition_space.num_classes else torch.zeros(1500, dtype=torch.long)
    x = inn.decode(torch.randn(1500, inn.num_latents), condition).detach()
    released = Privatizer(inn, SubsetSelection(epsilon), declared(1024))(x, condition)
    pair = torch.stack([mean_and_deviation(batch)[:, 0] for batch in (x, released)])
    return float(torch.corrcoef(pair)[0, 1])


@pytest.mark.parametrize("kind", ["none", "class"])
def test_declared_features_survive_a_large_epsilon_and_not_a_small_one(networks, kind):
    assert kept(networks[kind], 30.0) > 0.9
    # Independent pairs: a deviation of 0.026, so that 0.3 is passed with a probability far below 1e-6.
    assert abs(kept(networks[kind], 0.05)) < 0.3


@pytest.mark.parametrize("kind", CONDITIONS)
def test_declared_content_takes_every_kind_of_condition(networks, kind):
    inn, condition = networks[kind], conditions(kind, 6)
    released, used = Privatizer(inn, SubsetSelection(4.0), declared(64)).release_with_conditions(images(6), condition)
    assert released.shape == (6, *SHAPE) and torch.isfinite(released).all()
    assert used is None or torch.equal(used, condition)


def counting():
    calls = []

    def features(x):
        calls.append(len(x))
        return mean_and_deviation(x)

    return features, calls


@pytest.mark.parametrize("kind", ["none", "class"])
def test_another_epsilon_asks_for_no_other_candidates_and_is_its_own_release(networks, kind):
    features, calls = counting()
    inn, condition = networks[kind], conditions(kind, 200)
    first = Privatizer(inn, SubsetSelection(30.0), DeclaredContent(features, num_candidates=64), temperature=0.5)
    first = first.prepare()
    made = sum(calls)
    second = first.with_mechanism(SubsetSelection(0.01))
    far, near = second(images(200), condition), first(images(200), condition)
    assert sum(calls) == made + 400
    alone = Privatizer(inn, SubsetSelection(0.01), second.content, temperature=0.5)
    assert second.guarantee == alone.guarantee and second.identity == alone.identity
    distance = [float((mean_and_deviation(x) - mean_and_deviation(images(200))).abs().mean()) for x in (near, far)]
    assert distance[0] < distance[1]


@pytest.mark.parametrize("kind", ["none", "class"])
def test_after_prepare_a_release_looks_at_its_images_and_at_nothing_else(networks, kind):
    features, calls = counting()
    content = DeclaredContent(features, num_candidates=64)
    privatizer = Privatizer(networks[kind], SubsetSelection(4.0), content)
    assert privatizer.prepare(progress=False) is privatizer
    calls.clear()
    privatizer(images(6), conditions(kind, 6))
    assert calls == [1] * 6  # one by one, so that no image has an influence on another


def test_without_prepare_the_tables_are_made_once(inn):
    features, calls = counting()
    privatizer = Privatizer(inn, SubsetSelection(4.0), DeclaredContent(features, num_candidates=64))
    privatizer(images(6), torch.arange(6) % 3)
    calls.clear()
    privatizer(images(6), torch.arange(6) % 3)
    assert calls == [1] * 6


def test_a_loaded_network_gets_candidates_of_its_own(inn):
    features, calls = counting()
    privatizer = Privatizer(inn, SubsetSelection(4.0), DeclaredContent(features, num_candidates=64))
    privatizer(images(1), torch.tensor([0]))
    privatizer.load_state_dict(privatizer.state_dict())
    calls.clear()
    privatizer(images(1), torch.tensor([0]))
    assert calls[0] == 1 and len(calls) > 1


def test_declared_content_is_decoded_as_its_table_was():
    inn = ConditionalINN((4, 8), num_levels=1, rank=3, num_couplings=2, width=8)
    features = DeclaredContent(lambda x: x.flatten(1)[:, :2], num_candidates=64)
    seen = []
    for temperature in (1.0, 0.2):
        privatizer = Privatizer(inn, SubsetSelection(30.0), features, detail_temperature=temperature)
        released = privatizer(images(20, shape=(1, 4, 8)))
        table = features.table(inn, None, privatizer._temper)
        assert torch.cdist(table.standardise(features.describe(released)), table.candidates).min(1).values.max() < 0.02
        seen.append(privatizer.identity)
    assert seen[0] != seen[1]
