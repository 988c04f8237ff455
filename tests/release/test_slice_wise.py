# SPDX-License-Identifier: Apache-2.0
"""Slices of a volume are released one by one, and the whole volume pays."""

from __future__ import annotations

import pytest
import torch

from monai_cadp import Privatizer
from monai_cadp.networks import ConditionalINN, ContentBasis
from monai_cadp.privacy import (
    Budget,
    BudgetExceededError,
    GaussianMechanism,
    PrivacyLedger,
    RandomizedResponse,
    SubsetSelection,
)
from monai_cadp.release import RecordedReleaser
from monai_cadp.release.slice_wise import SliceWiseReleaser
from monai_cadp.transforms import Privatized


def privatizer(mechanism=None, **options):
    torch.manual_seed(0)
    inn = ConditionalINN((4, 6), num_classes=2, width=8, num_couplings=2)
    return Privatizer(
        inn, mechanism or SubsetSelection(0.5, num_candidates=64), ContentBasis.leading(inn, 3), **options
    )


def volume_of(axis, seed=0):
    shape = [4, 6]
    shape.insert(axis, 5)
    return torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_is_cut_along_its_axis_and_put_together_in_order(axis, monkeypatch):
    """With a release that changes nothing, the volume comes back as it was."""
    slices = privatizer()
    seen = []
    monkeypatch.setattr(slices, "draw", lambda x, condition, *_: (seen.append((x, condition)), (x, condition))[1])
    x, labels = volume_of(axis), torch.tensor([0, 1])
    assert torch.equal(SliceWiseReleaser(slices, 5, axis)(x, labels), x)
    ((given, conditions),) = seen
    assert torch.equal(given[7], x[1].select(1 + axis, 2)) and conditions.tolist() == [0] * 5 + [1] * 5


def test_every_slice_has_random_draws_of_its_own():
    released = SliceWiseReleaser(privatizer(), 5)(torch.zeros(1, 1, 4, 6, 5), torch.tensor([0]))
    assert len({released[..., index].numpy().tobytes() for index in range(5)}) == 5


def test_the_budget_is_that_of_the_whole_volume():
    guarantee = SliceWiseReleaser(privatizer(), 5).guarantee
    assert (guarantee.epsilon, guarantee.delta, guarantee.unit) == (2.5, 0.0, "volume")
    gaussian = privatizer(GaussianMechanism(0.5, 1e-6, clipping_bound=3.0))
    added, composed = (SliceWiseReleaser(gaussian, 5, delta=delta).guarantee for delta in (None, 1e-5))
    assert (added.epsilon, added.delta) == (2.5, 5e-6) and composed.epsilon < 2.5


def test_a_ledger_is_paid_for_the_whole_volume(tmp_path):
    ledger = PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(epsilon=3.0))
    transform = Privatized(
        keys="image",
        privatizer=SliceWiseReleaser(privatizer(), 5),
        condition_key="label",
        ledger=ledger,
        subject_key="subject",
    )
    items = [{"image": x, "label": 0, "subject": "anna"} for x in volume_of(2)]
    released = transform(items[0])["image"]
    assert released.shape == (1, 4, 6, 5) and ledger.spent("anna") == (2.5, 0.0)
    assert torch.equal(transform(items[0])["image"], released)
    with pytest.raises(BudgetExceededError):
        transform(items[1])


def test_another_number_of_slices_or_axis_is_another_release():
    identities = {SliceWiseReleaser(privatizer(), *options).description[1] for options in ((5, 2), (5, 1), (6, 2))}
    assert len(identities) == 3


def test_what_does_not_fit_is_refused(refused):
    volumes = SliceWiseReleaser(privatizer(), 5)
    with refused(ValueError, r"expected \(B, 1, 4, 6, 5\)"):
        volumes(torch.rand(1, 1, 4, 6, 4), torch.tensor([0]))
    with refused(ValueError, "expected"):
        volumes(torch.rand(1, 1, 6, 4, 5), torch.tensor([0]))
    with refused(ValueError, "public labels"):
        SliceWiseReleaser(privatizer(label_mechanism=RandomizedResponse(1.0, 2)), 5)
    with refused(ValueError, "expected a positive number"):
        SliceWiseReleaser(privatizer(), 0)
    with refused(TypeError, "expected a Releaser"):
        SliceWiseReleaser(torch.nn.Identity(), 5)


def test_without_its_ledger_a_volume_is_cut_and_paid_for_alike(tmp_path):
    """Its delta decides the epsilon that is stated for the whole volume."""
    ledger = PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(epsilon=50.0, delta=0.1))
    slices = privatizer(GaussianMechanism(0.5, 1e-6, 1.0))
    recorded = SliceWiseReleaser(RecordedReleaser(slices, ledger), 5, 1, delta=1e-4)
    assert recorded.needs_subjects and not recorded.unrecorded.needs_subjects
    assert recorded.unrecorded.guarantee == SliceWiseReleaser(slices, 5, 1, delta=1e-4).guarantee
    assert recorded.unrecorded.guarantee != SliceWiseReleaser(slices, 5, 1).guarantee
    stated = recorded.unrecorded.config()
    assert (stated["num_slices"], stated["axis"], stated["delta"]) == (5, 1, 1e-4)
