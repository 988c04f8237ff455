# SPDX-License-Identifier: Apache-2.0
"""A public condition is released as it is, and a private one is randomized first."""

from __future__ import annotations

import copy

import pytest
import torch

from monai_cadp import Privatizer
from monai_cadp.privacy import (
    AttributeResponse,
    Budget,
    PriorOnly,
    PrivacyLedger,
    RandomizedResponse,
    SubsetSelection,
)
from monai_cadp.release import RecordedReleaser
from tests.release.privatizer.toys import (
    SHAPE,
    basis,
    constant,
    declared,
    images,
)


def test_a_public_condition_is_returned_as_it_is(setting):
    inn, condition = setting
    _, used = Privatizer(inn, PriorOnly(), basis(inn)).release_with_conditions(images(6), condition)
    assert used is condition or torch.equal(used, condition)


def test_a_condition_decides_what_is_released(inn):
    privatizer = Privatizer(inn, constant(), basis(inn), temperature=0.0)
    released = privatizer(images(1).expand(3, *SHAPE), torch.tensor([0, 1, 2]))
    assert len(released.unique(dim=0)) == 3


def watched(inn):
    """The network, and the conditions with which it encodes and decodes from now on."""
    calls = []

    def record(name, method):
        def recorded(batch, condition=None, **options):
            calls.append((name, condition))
            return method(batch, condition, **options)

        setattr(inn, name, recorded)

    record("encode", inn.encode)
    record("draw", inn.draw)
    return calls


def test_a_private_label_is_randomized_before_the_network_sees_it(inn):
    privatizer = Privatizer(inn, constant(), basis(inn), label_mechanism=RandomizedResponse(0.1, num_classes=3))
    calls = watched(inn)
    labels = torch.zeros(200, dtype=torch.long)
    _, used = privatizer.release_with_conditions(images(200), labels)
    # All 200 labels are kept with probability 0.36^200.
    assert not torch.equal(used, labels) and set(used.tolist()) <= {0, 1, 2}
    assert [name for name, _ in calls] == ["encode", "draw"]
    for _, condition in calls:
        assert torch.equal(condition, used)


def test_a_private_label_is_randomized_before_candidates_are_ranked(inn):
    privatizer = Privatizer(
        inn,
        SubsetSelection(epsilon=1.0, num_candidates=64),
        declared(64),
        label_mechanism=RandomizedResponse(0.1, num_classes=3),
    ).prepare(progress=False)
    calls = watched(inn)
    _, used = privatizer.release_with_conditions(images(200), torch.zeros(200, dtype=torch.long))
    assert not torch.equal(used, torch.zeros(200, dtype=torch.long))
    assert [name for name, _ in calls] == ["draw"] and torch.equal(calls[0][1], used)


def test_a_label_kept_almost_surely_comes_back(inn):
    privatizer = Privatizer(inn, PriorOnly(), basis(inn), label_mechanism=RandomizedResponse(40.0, num_classes=3))
    labels = torch.tensor([0, 1, 2])
    assert torch.equal(privatizer.release_with_conditions(images(3), labels)[1], labels)


@pytest.mark.parametrize(("kind", "default"), [("class", 2), ("vector", [0.5, -1.0]), ("vector", [1, 0])])
def test_the_default_condition_is_used_when_none_is_given(networks, kind, default):
    inn = copy.deepcopy(networks[kind])
    privatizer = Privatizer(inn, constant(), basis(inn), condition=default, temperature=0.0)
    given = torch.tensor([default] * 3, dtype=torch.long if kind == "class" else torch.float)
    released, used = privatizer.release_with_conditions(images(3))
    assert torch.equal(used, given)
    assert torch.equal(released, privatizer(images(3), given))


def test_a_given_condition_wins_over_the_default_one(inn):
    privatizer = Privatizer(inn, constant(), basis(inn), condition=2)
    assert privatizer.release_with_conditions(images(2), torch.tensor([0, 1]))[1].tolist() == [0, 1]


def test_private_attributes_are_randomized_before_the_network_sees_them_and_kept_ones_are_public(networks):
    inn = copy.deepcopy(networks["vector"])
    response = AttributeResponse(0.1, num_attributes=2, kept=[0])
    privatizer = Privatizer(inn, SubsetSelection(4.0, num_candidates=64), basis(inn), label_mechanism=response)
    calls = watched(inn)
    attributes = torch.tensor([[1.0, 1.0]]).repeat(200, 1)
    _, used = privatizer.release_with_conditions(images(200), attributes)
    assert torch.equal(used[:, 0], attributes[:, 0]) and set(used[:, 1].tolist()) == {0.0, 1.0}
    assert [name for name, _ in calls] == ["encode", "draw"]
    for _, condition in calls:
        assert torch.equal(condition, used)
    assert privatizer.guarantee.epsilon == 4.1
    assert set(privatizer.guarantee.public) == {"attribute 0"}


@pytest.mark.parametrize(
    ("kind", "count", "match"),
    [("class", 2, "takes no attributes; leave it out"), ("vector", 3, "has 3 attributes, but the network has 2")],
)
def test_attributes_that_do_not_fit_the_network_are_refused(networks, refused, kind, count, match):
    inn = networks[kind]
    with refused(ValueError, match):
        Privatizer(inn, PriorOnly(), basis(inn), label_mechanism=AttributeResponse(1.0, count))


def test_attributes_that_are_none_are_refused_before_anything_is_spent(networks, refused, tmp_path):
    inn = networks["vector"]
    mechanism, response = SubsetSelection(4.0, num_candidates=64), AttributeResponse(1.0, 2)
    privatizer = Privatizer(inn, mechanism, basis(inn), label_mechanism=response)
    ledger = PrivacyLedger.create(tmp_path / "ledger.db", b"s" * 32, Budget(epsilon=20.0))
    recorded = RecordedReleaser(privatizer, ledger, by_item=False)
    with refused(ValueError, "something besides 0 and 1"):
        recorded.release_with_conditions(images(1), torch.tensor([[-1.0, 1.0]]), ["a"])
    assert ledger.spent("a") == (0.0, 0.0)
    with refused(ValueError, "something besides 0 and 1"):
        Privatizer(inn, PriorOnly(), basis(inn), condition=[0.5, 0.0], label_mechanism=AttributeResponse(1.0, 2))


def test_a_kept_attribute_that_was_corrected_is_another_release(networks, tmp_path):
    inn = networks["vector"]
    response = AttributeResponse(1.0, 2, kept=[0])
    privatizer = Privatizer(inn, SubsetSelection(4.0, num_candidates=64), basis(inn), label_mechanism=response)
    ledger = PrivacyLedger.create(tmp_path / "ledger.db", b"s" * 32, Budget(epsilon=20.0))
    recorded = RecordedReleaser(privatizer, ledger, by_item=False)
    for kept, other in ((1.0, 0.0), (1.0, 1.0), (0.0, 0.0)):
        _, used = recorded.release_with_conditions(images(1), torch.tensor([[kept, other]]), ["a"])
        assert used[0, 0] == kept
    assert ledger.spent("a") == (10.0, 0.0)
