# SPDX-License-Identifier: Apache-2.0
"""Copies, files and traces of a privatizer keep its promise."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from monai_cadp import Privatizer
from monai_cadp.networks import ContentBasis
from monai_cadp.privacy import (
    PriorOnly,
    SubsetSelection,
)
from tests.release.privatizer.toys import (
    SHAPE,
    basis,
    images,
)


def test_pickle_and_deepcopy_keep_the_promise_and_the_network(inn):
    privatizer = Privatizer(inn, SubsetSelection(2.0, num_candidates=64), basis(inn), condition=1, temperature=0.5)
    for other in (pickle.loads(pickle.dumps(privatizer)), copy.deepcopy(privatizer)):
        assert other.guarantee == privatizer.guarantee
        assert other(images(2)).shape == (2, *SHAPE)
        assert not torch.equal(other(images(2)), other(images(2)))


def test_a_loaded_basis_brings_its_weights_to_the_mechanism(inn):
    fitted = Privatizer(inn, SubsetSelection(2.0, num_candidates=64), basis(inn))
    place = Privatizer(copy.deepcopy(inn), SubsetSelection(2.0, num_candidates=64), ContentBasis.leading(inn, 4))
    wide = Privatizer(inn, SubsetSelection(2.0, num_candidates=64), ContentBasis.fit(inn, 4, num_samples=128))
    place.load_state_dict(wide.state_dict())
    assert place.guarantee == wide.guarantee != fitted.guarantee


@pytest.fixture(scope="module")
def traced(networks):
    inn = copy.deepcopy(networks["class"])
    privatizer = Privatizer(inn, SubsetSelection(4.0, num_candidates=256), basis(inn), condition=1)
    return torch.jit.trace(privatizer, images(3), check_trace=False)


def test_a_traced_privatizer_draws_afresh_at_every_call(traced):
    x = images(3)
    releases = [traced(x) for _ in range(4)]
    for index, release in enumerate(releases):
        assert torch.isfinite(release).all()
        assert not any(torch.equal(release, other) for other in releases[:index])


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_a_traced_privatizer_takes_other_batch_sizes(traced, count):
    released = traced(images(1).expand(count, *SHAPE))
    assert released.shape == (count, *SHAPE)
    # The same image many times: every row has noise of its own.
    assert len(released.unique(dim=0)) == count


def test_a_traced_privatizer_survives_a_file(traced):
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    assert loaded(images(5)).shape == (5, *SHAPE)
    assert not torch.equal(loaded(images(5)), loaded(images(5)))


def test_a_traced_privatizer_keeps_content_as_the_original_does(networks):
    inn = copy.deepcopy(networks["class"])
    content = basis(inn)
    privatizer = Privatizer(inn, SubsetSelection(30.0, num_candidates=256), content, condition=1, temperature=0.5)
    traced = torch.jit.trace(privatizer, images(3), check_trace=False)
    x = images(800, seed=3)
    condition = torch.ones(800, dtype=torch.long)
    original = content.project(inn.encode(x, condition)[0])[:, 0]
    released = content.project(inn.encode(traced(x), condition)[0])[:, 0]
    assert torch.corrcoef(torch.stack([original, released]))[0, 1] > 0.5


def test_the_default_condition_is_no_part_of_a_checkpoint(inn):
    state = Privatizer(inn, PriorOnly(), basis(inn), condition=1).state_dict()
    assert state.keys() == Privatizer(inn, PriorOnly(), basis(inn)).state_dict().keys()
