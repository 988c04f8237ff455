# SPDX-License-Identifier: Apache-2.0
"""Neither the preview nor the cards of a folder tell more, or less, than is promised."""

from __future__ import annotations

import json

import pytest
import torch

from monai_cadp import Privatizer
from monai_cadp.networks import ConditionalINN, ContentBasis
from monai_cadp.privacy import Budget, PrivacyGuarantee, PrivacyLedger, RandomizedResponse, SubsetSelection
from monai_cadp.release import release_batches, release_folder

SHAPE = (1, 4, 4)
IDENTICAL = "which images of a subject are identical"


class Cohort(torch.utils.data.Dataset):
    """One image of every subject, with or without a name of its own."""

    def __init__(self, items, count=30):
        self.pixels = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))
        self.items = items

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        item = {"image": self.pixels[index], "label": torch.tensor(index % 3), "subject": f"person {index}"}
        return item | ({"item": f"scan {index}"} if self.items else {})


def make_privatizer(**options):
    torch.manual_seed(0)
    inn = ConditionalINN(SHAPE[1:], 1, num_classes=3, width=8, num_couplings=2)
    return Privatizer(inn, SubsetSelection(2.0, num_candidates=64), ContentBasis.leading(inn, 4), **options)


@pytest.fixture
def ledger(tmp_path):
    return PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(epsilon=6.0))


@pytest.fixture
def shown(monkeypatch):
    """The pictures of every preview, in their order."""
    pictures = []
    module = release_folder.__module__
    monkeypatch.setattr(f"{module}.save_image_grid", lambda images, *_, **__: pictures.append(images))
    return pictures


def test_a_preview_of_all_releases_shows_them_in_an_order_of_its_own(ledger, tmp_path, shown):
    """Of 30 pictures two random orders are the same with a probability of 1 / 30!."""
    privatizer, cohort = make_privatizer(), Cohort(items=True)
    for name in "ab":
        release_folder(privatizer, cohort, tmp_path / name, batch_size=8, num_preview=30, ledger=ledger)
    source = torch.cat([released for released, _ in release_batches(privatizer, cohort, ledger=ledger)])
    for pictures in (*shown, shown[1].flip(0)):
        assert not torch.equal(pictures, source)
        assert {image.numpy().tobytes() for image in pictures} == {image.numpy().tobytes() for image in source}
    assert not torch.equal(*shown)


@pytest.mark.parametrize(("wanted", "given"), [(0, None), (1, 1), (7, 7), (99, 30)])
def test_a_preview_shows_as_many_as_were_asked_for_from_anywhere(ledger, tmp_path, shown, wanted, given):
    release_folder(make_privatizer(), Cohort(True), tmp_path / "a", batch_size=8, num_preview=wanted, ledger=ledger)
    assert [len(pictures) for pictures in shown] == ([] if given is None else [given])


def cards(folder):
    return [json.loads(path.read_text())["guarantee"] for path in sorted(folder.glob("*_privacy.json"))]


@pytest.mark.parametrize("private_labels", [False, True])
@pytest.mark.parametrize("items", [False, True])
def test_cards_list_every_public_fact_and_no_other(ledger, tmp_path, items, private_labels):
    options = {"label_mechanism": RandomizedResponse(1.0, 3)} if private_labels else {}
    release_folder(make_privatizer(**options), Cohort(items), tmp_path / "a", ledger=ledger)
    expected = ([] if private_labels else ["condition"]) + ([] if items else [IDENTICAL])
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert len(cards(tmp_path / "a")) == 30
    for guarantee in [*cards(tmp_path / "a"), *(one["guarantee"] for one in summary["guarantees"])]:
        assert guarantee["public"] == expected


def test_the_ledger_keeps_the_guarantee_that_the_cards_state(ledger, tmp_path):
    for name, items in (("named", True), ("nameless", False)):
        release_folder(make_privatizer(), Cohort(items), tmp_path / name, ledger=ledger)
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        kept = [json.loads(document) for (document,) in connection.execute("SELECT document FROM guarantees")]
    assert sorted(guarantee["public"] for guarantee in kept) == [["condition"], ["condition", IDENTICAL]]
    for name in ("named", "nameless"):
        stated = [PrivacyGuarantee.from_dict(card).without_derived().to_dict() for card in cards(tmp_path / name)]
        assert all(card in kept for card in stated)


def test_without_a_ledger_nothing_is_said_of_identical_images(tmp_path):
    release_folder(make_privatizer(), Cohort(items=False), tmp_path / "a")
    assert all(card["public"] == ["condition"] for card in cards(tmp_path / "a"))
