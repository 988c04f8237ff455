# SPDX-License-Identifier: Apache-2.0
"""A folder says what its releases promise together, for the smallest public class, or is not made."""

from __future__ import annotations

import json
import re
import sqlite3

import pytest
import torch

from monai_cadp import Privatizer
from monai_cadp.networks import ConditionalINN, ContentBasis, DeclaredContent
from monai_cadp.privacy import (
    AttributeResponse,
    Budget,
    BudgetExceededError,
    GaussianMechanism,
    LedgerError,
    PrivacyLedger,
    RandomizedResponse,
    SubsetSelection,
)
from monai_cadp.privacy.shuffling import Subset, shuffled_epsilon
from monai_cadp.release import RecordedReleaser, release_folder

DELTA = 1e-2
COUNT, SMALLEST = 60, 20


class People(torch.utils.data.Dataset):
    """Twenty of the class 0, forty of the class 1."""

    def __init__(self, classes=(0, 1, 1)):
        self.classes = classes

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        image = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(index))
        return {"image": image, "label": torch.tensor(self.classes[index % 3]), "subject": f"person {index}"}


@pytest.fixture
def inn():
    torch.manual_seed(0)
    return ConditionalINN((4, 4), 1, num_classes=3, width=8, num_couplings=2)


def privatizer(inn, mechanism, **options):
    return Privatizer(inn, mechanism, ContentBasis.leading(inn, 4), **options)


def test_cards_and_summary_begin_with_the_number_of_the_smallest_class(inn, tmp_path, capsys):
    mechanism = SubsetSelection(2.0, num_candidates=64, subset_size=6)
    folder = release_folder(privatizer(inn, mechanism), People(), tmp_path / "out", set_delta=DELTA)
    expected = shuffled_epsilon(2.0, SMALLEST, DELTA, Subset(64, 6))
    (printed,) = re.findall(r"epsilon (\S+) to those who see the set alone", capsys.readouterr().out)
    assert expected <= float(printed) < expected + 0.01 < 2.0
    for path in [folder / "summary.json", *folder.glob("*_privacy.json")]:
        document = json.loads(path.read_text())
        name, whole = next(iter(document.items()))
        assert name == "set_guarantee" and whole["epsilon"] == expected and whole["delta"] == DELTA
        assert whole["parameters"]["num_releases"] == SMALLEST
        assert whole["parameters"]["local"]["epsilon"] == 2.0
    assert document["guarantee"]["epsilon"] == 2.0


def test_all_hide_among_all_where_labels_have_a_budget(inn, tmp_path):
    both = privatizer(inn, SubsetSelection(1.0, num_candidates=64), label_mechanism=RandomizedResponse(1.0, 3))
    folder = release_folder(both, People(), tmp_path / "out", set_delta=DELTA)
    whole = json.loads((folder / "summary.json").read_text())["set_guarantee"]
    assert whole["parameters"]["num_releases"] == COUNT
    assert whole["epsilon"] == shuffled_epsilon(2.0, COUNT, DELTA)


def test_attributes_with_a_budget_are_not_counted_for_every_card(tmp_path):
    """How many people have a fact that is not public would be a release of it."""
    inn = ConditionalINN((4, 4), 1, condition_size=2, width=8, num_couplings=2)
    both = privatizer(inn, SubsetSelection(1.0, num_candidates=64), label_mechanism=AttributeResponse(1.0, 2, kept=[0]))
    folder = release_folder(both, Attributes(), tmp_path / "out", set_delta=DELTA)
    whole = json.loads((folder / "summary.json").read_text())["set_guarantee"]
    assert whole["public"] == ["attribute 0"] and whole["parameters"]["num_releases"] == SMALLEST


def test_nothing_is_said_of_the_set_unless_it_is_asked_for(inn, tmp_path):
    folder = release_folder(privatizer(inn, SubsetSelection(2.0, num_candidates=64)), People(), tmp_path / "out")
    assert all("set_guarantee" not in path.read_text() for path in folder.glob("*.json"))


def test_the_mechanism_for_a_set_keeps_its_number(inn, tmp_path):
    mechanism = SubsetSelection.for_set(1.0, SMALLEST, DELTA, num_candidates=64)
    folder = release_folder(privatizer(inn, mechanism), People(), tmp_path / "out", set_delta=DELTA, set_epsilon=1.0)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["set_guarantee"]["epsilon"] <= 1.0 < summary["guarantees"][0]["guarantee"]["epsilon"]


def test_a_fixed_subset_size_is_that_of_declared_content_too(inn):
    content = DeclaredContent(lambda images: images.flatten(1).mean(1, keepdim=True), num_candidates=64)
    mechanism = SubsetSelection.for_set(1.0, SMALLEST, DELTA, num_candidates=64)
    local = Privatizer(inn, mechanism, content).guarantee
    assert local.epsilon == mechanism.epsilon and local.parameters["subset_size"] == mechanism.subset_size
    assert local.shuffled(SMALLEST, DELTA).epsilon <= 1.0
    with pytest.raises(ValueError, match="give both the same number"):
        Privatizer(inn, SubsetSelection.for_set(1.0, SMALLEST, DELTA, num_candidates=128), content)


def test_sets_that_are_smaller_than_was_said_are_refused_before_anything_is_written(inn, tmp_path, refused):
    mechanism = SubsetSelection.for_set(1.0, COUNT, DELTA, num_candidates=64)
    with refused(ValueError, "there are 20 images in its smallest public class"):
        release_folder(privatizer(inn, mechanism), People(), tmp_path / "out", set_delta=DELTA, set_epsilon=1.0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no delta", "set_delta"),
        ("not pure", "only pure releases"),
        ("ledger without items", "does not know its images by their items"),
        ("alone", "only one"),
        ("twice", "several images"),
    ],
)
def test_what_has_no_number_for_the_set_is_refused(inn, tmp_path, refused, case, message):
    mechanism, images, options = SubsetSelection(2.0, num_candidates=64), People(), {"set_delta": DELTA}
    if case == "no delta":
        options = {"set_epsilon": 1.0}
    elif case == "not pure":
        mechanism = GaussianMechanism(1.0, 1e-6, 1.0)
    elif case == "ledger without items":
        options["ledger"] = PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(epsilon=6.0))
    else:
        images = OneOfAClass() if case == "alone" else OneWithTwoImages()
    with refused(ValueError, message):
        release_folder(privatizer(inn, mechanism), images, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_two_hide_behind_each_other(inn, tmp_path):
    images = TwoOfAClass()
    folder = release_folder(
        privatizer(inn, SubsetSelection(2.0, num_candidates=64)), images, tmp_path / "out", set_delta=DELTA
    )
    assert json.loads((folder / "summary.json").read_text())["set_guarantee"]["parameters"]["num_releases"] == 2


class TwoOfAClass(People):
    """The class 2 has two."""

    def __getitem__(self, index):
        return super().__getitem__(index) | {"label": torch.tensor(2 if index in (7, 9) else 0)}


class Films(People):
    """People whose films have names."""

    def __getitem__(self, index):
        return super().__getitem__(index) | {"item": f"film {index}"}


def recorded(inn, ledger, folder, images=None, **options):
    mechanism = SubsetSelection(2.0, num_candidates=64)
    options = {"ledger": ledger, "set_delta": DELTA, "batch_size": 4} | options
    return release_folder(privatizer(inn, mechanism), images or Films(), folder, **options)


@pytest.fixture
def ledger(tmp_path):
    return PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(epsilon=4.0))


def test_a_set_is_noted_in_the_ledger_and_its_number_is_that_without_one(inn, tmp_path, ledger):
    folder = recorded(inn, ledger, tmp_path / "out")
    whole = json.loads((folder / "summary.json").read_text())["set_guarantee"]
    local = privatizer(inn, SubsetSelection(2.0, num_candidates=64)).guarantee
    assert whole["epsilon"] == local.shuffled(SMALLEST, DELTA).epsilon
    (note,) = [entry for entry in ledger.export() if entry["kind"] == "set"]
    assert json.loads(note["body"])["epsilon"] == whole["epsilon"] and note["subject"] is None
    assert ledger.export()[1]["kind"] == "set" and ledger.verify() == []  # before anything was reserved
    assert ledger.summary()["released"] == COUNT and ledger.spent("person 0") == (2.0, 0.0)


def test_a_set_that_was_interrupted_goes_on_and_one_that_was_finished_is_the_same(inn, tmp_path, ledger, monkeypatch):
    def broken(self, *arguments):
        if ledger.summary()["released"] >= 8:
            raise RuntimeError("The power went out.")
        return draw(self, *arguments)

    draw = Privatizer.draw
    monkeypatch.setattr(Privatizer, "draw", broken)
    with pytest.raises(RuntimeError, match="power"):
        recorded(inn, ledger, tmp_path / "out")
    assert 8 <= ledger.summary()["released"] < COUNT
    monkeypatch.setattr(Privatizer, "draw", draw)
    folders = [recorded(inn, ledger, tmp_path / name) for name in ("out", "again")]
    releases = [sorted(path.read_bytes() for path in folder.glob("*.png")) for folder in folders]
    assert len(releases[0]) == COUNT and releases[0] == releases[1]
    assert [entry["kind"] for entry in ledger.export()].count("set") == 1 and ledger.verify() == []


@pytest.mark.parametrize("first", ["one film", "the half of them", "another set"])
def test_a_set_that_holds_a_release_of_before_states_no_number(inn, tmp_path, ledger, refused, first):
    images = torch.utils.data.Subset(Films(), range(1 if first == "one film" else COUNT // 2))
    recorded(inn, ledger, tmp_path / "first", images, set_delta=DELTA if first == "another set" else None)
    with refused(LedgerError, f"{len(images)} of {COUNT} images have a release in the ledger"):
        recorded(inn, ledger, tmp_path / "out")
    assert not (tmp_path / "out").exists() and ledger.summary()["reserved"] == len(images)
    # Without a number of the set they are released as always.
    assert len(list(recorded(inn, ledger, tmp_path / "out", set_delta=None).glob("*.png"))) == COUNT


def test_a_set_that_was_refused_is_not_finished_with_the_releases_of_another_one(inn, tmp_path, ledger, refused):
    """All but one were released as a set of their own since: the one would hide among nobody."""
    ledger.set_budget(Films()[COUNT - 1]["subject"], 1.0)
    with pytest.raises(BudgetExceededError):
        # In one lot, of which nothing is spent: wherever the one stands in the random order.
        recorded(inn, ledger, tmp_path / "all", batch_size=COUNT)
    recorded(inn, ledger, tmp_path / "others", torch.utils.data.Subset(Films(), range(COUNT - 1)))
    ledger.set_budget(Films()[COUNT - 1]["subject"], 4.0)
    with refused(LedgerError, f"{COUNT - 1} images of the set were released by themselves or in another set"):
        recorded(inn, ledger, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_releaser_that_has_released_a_set_releases_single_images_again(inn, tmp_path, ledger):
    drawn = RecordedReleaser(privatizer(inn, SubsetSelection(2.0, num_candidates=64)), ledger)
    half = torch.utils.data.Subset(Films(), range(COUNT // 2))
    release_folder(drawn, half, tmp_path / "out", set_delta=DELTA)
    last = Films()[COUNT - 1]
    drawn.release(last["image"][None], last["label"][None], [last["subject"]], [last["item"]])
    assert [entry["kind"] for entry in ledger.export()].count("within") == COUNT // 2


def test_a_note_that_was_changed_is_found_and_not_relied_on(inn, tmp_path, ledger, refused):
    recorded(inn, ledger, tmp_path / "out")
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.execute("UPDATE entries SET body = replace(body, '0.01', '0.02') WHERE kind = 'set'")
    database.close()
    assert "Entry 2 was changed" in ledger.verify()[0]
    with refused(LedgerError, "not as it was written"):
        recorded(inn, ledger, tmp_path / "again")


class OneOfAClass(People):
    """Nobody else of the class 2."""

    def __getitem__(self, index):
        return super().__getitem__(index) | {"label": torch.tensor(2 if index == 7 else 0)}


class OneWithTwoImages(People):
    """The last image is of the first person, whose id was typed otherwise."""

    def __getitem__(self, index):
        return super().__getitem__(index) | {"subject": " PERSON 0" if index == COUNT - 1 else f"person {index}"}


class Attributes(People):
    """The first attribute is one of two groups; the second belongs to three people."""

    def __getitem__(self, index):
        return super().__getitem__(index) | {"label": torch.tensor([float(index % 3 == 0), float(index < 3)])}


def test_what_is_released_as_a_set_is_drawn_in_random_order(inn, tmp_path):
    """A last batch that is smaller may differ in its last bits; it must not be the last images of the source."""
    read: list[int] = []

    class Watched(People):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    mechanism = SubsetSelection(2.0, num_candidates=64, subset_size=6)
    release_folder(privatizer(inn, mechanism), Watched(), tmp_path / "out", batch_size=16, set_delta=DELTA)
    drawn = read[-COUNT:]
    assert sorted(drawn) == list(range(COUNT)) != drawn
