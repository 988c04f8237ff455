# SPDX-License-Identifier: Apache-2.0
"""With a ledger, an image is released once, whoever asks for it and however often."""

from __future__ import annotations

import copy
import sqlite3
from contextlib import closing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_cadp import Privatizer
from monai_cadp.networks import ConditionalINN, ContentBasis, DeclaredContent
from monai_cadp.privacy import (
    Budget,
    BudgetExceededError,
    GaussianMechanism,
    LaplaceMechanism,
    LedgerError,
    PriorOnly,
    PrivacyLedger,
    RandomizedResponse,
    SubsetSelection,
)
from monai_cadp.release import RecordedReleaser, SliceWiseReleaser

SHAPE = (1, 4, 4)


def recorded_release(release, ledger, x, condition, subjects, items=None, batch_size=None):
    recorded = RecordedReleaser(release, ledger, by_item=items is not None, batch_size=batch_size)
    return recorded.release_with_conditions(x, condition, subjects, items)


def network():
    torch.manual_seed(0)
    return ConditionalINN(SHAPE[1:], 1, num_classes=3, width=8, num_couplings=2)


def privatizer(mechanism=None, inn=None, content=None, **options):
    inn = inn or network()
    mechanism = mechanism or SubsetSelection(2.0, num_candidates=64)
    return Privatizer(inn, mechanism, content or ContentBasis.leading(inn, 4), **options)


def images(count, seed=0):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def ledger(tmp_path):
    return PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(epsilon=8.0))


def people(count):
    return [f"person {index}" for index in range(count)]


@pytest.mark.parametrize("kind", ["basis", "declared", "private label", "gaussian", "prior only"])
def test_the_same_image_is_returned_from_the_ledger_bit_for_bit_and_paid_for_once(ledger, kind, tmp_path):
    options = {
        "basis": {},
        "declared": {"content": DeclaredContent(lambda x: x.mean((2, 3)), num_candidates=64)},
        "private label": {"label_mechanism": RandomizedResponse(1.0, num_classes=3)},
        "gaussian": {"mechanism": GaussianMechanism(2.0, 1e-9, clipping_bound=2.0)},
        "prior only": {"mechanism": PriorOnly()},
    }[kind]
    if kind == "gaussian":
        ledger = PrivacyLedger.create(tmp_path / "delta.db", bytes(32), Budget(epsilon=8.0, delta=1e-6))
    release = privatizer(**options)
    x, labels = images(6), torch.tensor([0, 1, 2, 0, 1, 2])
    first, used = recorded_release(release, ledger, x, labels, people(6))
    again, used_again = recorded_release(release, ledger, x.clone(), labels, people(6))
    other, _ = recorded_release(privatizer(**options), ledger, x.flip(0), labels.flip(0), people(6)[::-1])
    assert torch.equal(first, again) and torch.equal(used, used_again) and torch.equal(first, other.flip(0))
    assert ledger.spent("person 0")[0] == release.guarantee.epsilon
    assert ledger.verify() == []


def older(mechanism):
    """The same mechanism, as a version that did not state the integers of its draws."""
    integers = {"threshold", "thresholds", "lattice_scale"}

    def parameters(self):
        return {name: value for name, value in super(kind, self).parameters().items() if name not in integers}

    kind = type(type(mechanism).__name__, (type(mechanism),), {"parameters": parameters})
    copied = copy.copy(mechanism)
    copied.__class__ = kind
    return copied


@pytest.mark.parametrize("by_item", [True, False])
@pytest.mark.parametrize(
    ("mechanism", "label_mechanism"),
    [
        (SubsetSelection(2.0, num_candidates=64), None),
        (SubsetSelection(6.0, num_candidates=64, num_blocks=2), RandomizedResponse(1.0, num_classes=3)),
        (LaplaceMechanism(2.0, clipping_bound=2.0), RandomizedResponse(1.0, num_classes=3)),
    ],
)
def test_releases_of_a_version_that_stated_less_of_the_mechanism_are_returned(
    ledger, mechanism, label_mechanism, by_item
):
    x, labels, items = images(4), torch.tensor([0, 1, 2, 0]), list("abcd") if by_item else None
    now = privatizer(mechanism, label_mechanism=label_mechanism)
    before = privatizer(older(mechanism), label_mechanism=label_mechanism and older(label_mechanism))
    assert len(before.guarantee.to_json()) < len(now.guarantee.to_json())
    first, used = recorded_release(before, ledger, x[:3], labels[:3], people(3), items and items[:3])
    spent = ledger.spent("person 0")
    # Somebody new comes with them, so that the ledger looks at what the others have cost.
    again, used_again = recorded_release(now, ledger, x, labels, people(4), items)
    assert torch.equal(first, again[:3]) and torch.equal(used, used_again[:3])
    assert ledger.spent("person 0") == spent == ledger.spent("person 3") and ledger.summary()["reserved"] == 4
    changed = copy.copy(mechanism)
    vars(changed)["epsilon"] /= 2  # no public way leads here: mechanisms do not change
    assert privatizer(changed, label_mechanism=label_mechanism).identity != now.identity


def test_another_image_subject_label_mechanism_network_or_temperature_is_another_release(ledger):
    x, label = images(1), torch.tensor([1])
    base = privatizer()
    kept, _ = recorded_release(base, ledger, x, label, ["anna"])
    changed = network()
    with torch.no_grad():
        next(changed.parameters()).add_(0.01)
    variants = [
        (base, x + 1e-6, label, "anna"),
        (base, x, label, "bert"),
        (base, x, torch.tensor([2]), "anna"),
        (privatizer(SubsetSelection(1.0, num_candidates=64)), x, label, "cleo"),
        (privatizer(inn=changed), x, label, "dora"),
        (privatizer(temperature=0.5), x, label, "emil"),
    ]
    for variant, image, condition, subject in variants:
        released, _ = recorded_release(variant, ledger, image, condition, [subject])
        assert not torch.equal(released, kept)
    assert ledger.summary()["reserved"] == 7


def test_with_items_whether_images_are_identical_does_not_show(ledger):
    """Two images of a subject that are the same are two releases, as two that differ are."""
    x, labels = images(1).expand(2, *SHAPE), torch.tensor([1, 1])
    released, _ = recorded_release(privatizer(), ledger, x, labels, ["anna", "anna"], ["a", "b"])
    assert not torch.equal(released[0], released[1])
    assert ledger.spent("anna") == (4.0, 0.0)


@pytest.mark.parametrize("together", [False, True])
def test_another_image_of_the_same_item_is_refused_and_nothing_is_spent(ledger, refused, together):
    """Two data sets whose folders and files are named alike have the same items."""
    x, labels, names = torch.cat([images(1), images(1, seed=5)]), torch.tensor([1, 1]), ["train/a.png", "train/a.png"]
    if not together:
        first, _ = recorded_release(privatizer(), ledger, x[:1], labels[:1], ["anna"], names[:1])
    before = ledger.summary()
    start = 0 if together else 1
    with refused(LedgerError, "1 of the items .* another image"):
        recorded_release(privatizer(), ledger, x[start:], labels[start:], ["anna", "anna"][start:], names[start:])
    assert ledger.summary() == before and ledger.verify() == []
    if not together:
        again, _ = recorded_release(privatizer(), ledger, x[:1], labels[:1], ["anna"], ["./train//a.png"])
        assert torch.equal(again, first) and ledger.spent("anna") == (2.0, 0.0)


def test_another_image_of_the_same_item_is_refused_while_the_first_waits_for_its_draw(ledger, refused, monkeypatch):
    release, label = privatizer(), torch.tensor([1])
    with monkeypatch.context() as patch:
        patch.setattr(release.inn, "draw", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            recorded_release(release, ledger, images(1), label, ["anna"], ["a"])
    with refused(LedgerError, "another image"):
        recorded_release(release, ledger, images(1, seed=5), label, ["anna"], ["a"])
    recorded_release(release, ledger, images(1), label, ["anna"], ["a"])
    assert ledger.spent("anna") == (2.0, 0.0) and ledger.verify() == []


def test_codes_in_a_ledger_do_not_tell_which_items_are_the_same_image(ledger):
    x = images(1).expand(3, *SHAPE)
    recorded_release(privatizer(), ledger, x, torch.tensor([1, 1, 1]), ["anna", "anna", "bert"], ["a", "b", "a"])
    bodies = [entry["body"] for entry in ledger.export() if entry["kind"] not in ("opened", "reserved")]
    assert len(set(bodies)) == len(bodies) == 6


def test_a_private_label_has_no_part_in_which_release_is_returned(ledger):
    release = privatizer(label_mechanism=RandomizedResponse(1.0, num_classes=3))
    returned = [recorded_release(release, ledger, images(1), torch.tensor([k]), ["anna"], ["a"]) for k in range(3)]
    assert all(torch.equal(image, returned[0][0]) and torch.equal(used, returned[0][1]) for image, used in returned)
    assert ledger.summary()["reserved"] == 1


def test_a_guarantee_says_what_shows_where_images_are_known_by_their_pixels(ledger):
    release = privatizer()
    recorded_release(release, ledger, images(1), torch.tensor([1]), ["anna"])
    recorded_release(release, ledger, images(1), torch.tensor([1]), ["anna"], ["a"])
    by_pixels, by_item = [entry["guarantee"]["public"] for entry in ledger.export() if entry["kind"] == "reserved"]
    assert by_item == ["condition"]
    assert by_pixels == ["condition", "which images of a subject are identical"]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_equal_labels_and_equal_pixels_of_other_types_are_the_same_image(ledger, dtype):
    zeros, label = torch.zeros(1, *SHAPE), torch.tensor([1])
    first, _ = recorded_release(privatizer(), ledger, zeros, label, ["anna"])
    again, _ = recorded_release(privatizer(), ledger, -zeros, label.to(dtype), ["anna"])
    assert torch.equal(first, again) and ledger.spent("anna") == (2.0, 0.0)


def test_a_network_that_was_changed_in_place_is_another_network():
    release = privatizer()
    before = release.identity
    assert release.identity == before
    with torch.no_grad():
        next(release.inn.parameters()).add_(0.01)
    assert release.identity != before
    release.unit = "patient"
    assert release.guarantee.unit == "patient"


def test_an_image_that_comes_twice_in_a_batch_is_drawn_once(ledger):
    x = images(2)[[0, 1, 0]]
    released, _ = recorded_release(privatizer(), ledger, x, torch.zeros(3, dtype=torch.long), ["anna", "anna", "anna"])
    assert torch.equal(released[0], released[2]) and not torch.equal(released[0], released[1])
    assert ledger.spent("anna") == (4.0, 0.0)


def test_images_that_are_encoded_in_parts_keep_their_places(ledger):
    together, labels = images(7), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    in_parts, used = recorded_release(privatizer(), ledger, together, labels, people(7), batch_size=3)
    one_by_one = [
        recorded_release(privatizer(), ledger, together[[i]], labels[[i]], people(7)[i : i + 1])[0] for i in range(7)
    ]
    assert torch.equal(in_parts, torch.cat(one_by_one)) and torch.equal(used, labels)


def test_a_ledger_changes_nothing_in_the_pieces_of_which_an_image_consists(ledger):
    plain = SliceWiseReleaser(privatizer(), num_slices=3)
    volumes = torch.rand(2, *plain.image_shape)
    outside = RecordedReleaser(plain, ledger)
    inside = SliceWiseReleaser(RecordedReleaser(privatizer(), ledger), num_slices=3)
    for recorded in (outside, inside):
        pieces = recorded.pieces(volumes)
        assert pieces.shape == (2 * recorded.num_pieces, *SHAPE) and torch.equal(pieces, plain.pieces(volumes))
        assert torch.equal(recorded.whole(pieces), volumes)


def test_images_of_different_people_that_look_alike_share_no_random_draws(ledger):
    x = images(1).expand(50, *SHAPE)
    released, _ = recorded_release(privatizer(), ledger, x, torch.zeros(50, dtype=torch.long), people(50))
    assert len(released.unique(dim=0)) == 50


def test_over_the_cap_nothing_is_drawn_stored_or_spent(ledger, refused, monkeypatch):
    x, labels = images(5), torch.zeros(5, dtype=torch.long)
    release = privatizer()
    monkeypatch.setattr(release, "draw", lambda *_: pytest.fail("something was drawn"))
    with refused(BudgetExceededError, "over the cap"):
        recorded_release(release, ledger, x, labels, ["anna"] * 5)
    assert ledger.summary() | {"reserved": 0, "released": 0, "subjects": 0} == ledger.summary()


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        ({"x": torch.rand(2, 1, 4, 5)}, ValueError, "images have shape"),
        ({"x": torch.ones(2, *SHAPE, dtype=torch.int32)}, TypeError, "images are"),
        ({"condition": torch.tensor([0, 3])}, ValueError, "unknown class"),
        ({"condition": None}, ValueError, "No condition"),
        ({"subjects": ["anna"]}, ValueError, "1 subjects for 2 images"),
        ({"subjects": ["anna", ""]}, ValueError, "subject of an image is missing"),
        ({"items": ["a"]}, ValueError, "1 items for 2 images"),
        ({"items": ["a", None]}, ValueError, "item of an image is missing"),
    ],
)
def test_bad_input_is_refused_before_anything_is_spent(ledger, refused, change, kind, match):
    good = {"x": images(2), "condition": torch.tensor([0, 1]), "subjects": ["anna", "bert"]}
    with refused(kind, match):
        recorded_release(privatizer(), ledger, **(good | change))
    assert ledger.summary()["reserved"] == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_a_condition_that_no_network_takes_costs_nothing(ledger, refused, value):
    inn = ConditionalINN(SHAPE[1:], 1, condition_size=2, width=8, num_couplings=2)
    condition = torch.tensor([[value, 0.0]], dtype=torch.float64)
    with refused(ValueError, "NaN or infinity, or is too large"):
        recorded_release(privatizer(inn=inn), ledger, images(1), condition, ["anna"], ["a"])
    assert ledger.summary()["reserved"] == 0


def test_a_failure_after_the_reservation_costs_nothing_more_when_it_is_tried_again(ledger, monkeypatch):
    release, x, label = privatizer(SubsetSelection(8.0, num_candidates=64)), images(1), torch.tensor([0])
    with monkeypatch.context() as patch:
        patch.setattr(release.inn, "draw", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            recorded_release(release, ledger, x, label, ["anna"])
    assert ledger.spent("anna") == (8.0, 0.0) and ledger.summary()["released"] == 0
    recorded_release(release, ledger, x, label, ["anna"])
    assert ledger.spent("anna") == (8.0, 0.0) and ledger.summary()["released"] == 1


# --- 10,000 hostile images --------------------------------------------------------------------------------------------

VALUES = [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3.4e38, 1e-45, -0.0, 0.0, 0.5, 1.0, 255.0]
DOCUMENTED = (ValueError, TypeError, BudgetExceededError)


@st.composite
def hostile_batches(draw):
    """Batches of images of any values, with shapes, types, labels and subjects that may not fit."""
    count = draw(st.integers(0, 64))
    shape = draw(st.sampled_from([SHAPE] * 12 + [(1, 4, 5), (2, 4, 4), (4, 4), (1, 0, 4)]))
    dtype = draw(
        st.sampled_from([torch.float32] * 6 + [torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.bool])
    )
    pool = torch.tensor(draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=4)))
    seed = draw(st.integers(0, 2**32))
    index = torch.randint(len(pool), (count, *shape), generator=torch.Generator().manual_seed(seed))
    classes = draw(st.sampled_from([3] * 8 + [4]))
    labels = torch.arange(count) % classes
    subjects = [f"{seed} {draw(st.integers(0, 2))} {number // 2}" for number in range(count)]
    if draw(st.integers(0, 9)) == 0 and subjects:
        subjects[-1] = draw(st.sampled_from(["", None, 1.5]))
    return pool[index].to(dtype), labels, subjects


@pytest.mark.slow
def test_no_hostile_input_gets_an_output_without_a_spend_or_a_spend_without_a_record(tmp_path):
    ledger = PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(epsilon=4.0))
    release = privatizer(SubsetSelection(2.0, num_candidates=16))
    seen = {"images": 0, "released": 0, "refused": 0}

    @settings(derandomize=True, deadline=None, max_examples=600)
    @given(hostile_batches())
    def attack(batch):
        x, labels, subjects = batch
        before = ledger.summary()
        seen["images"] += len(x)
        try:
            released, _ = recorded_release(release, ledger, x, labels, subjects)
        except DOCUMENTED:
            seen["refused"] += 1
            assert ledger.summary() == before
            return
        seen["released"] += len(x)
        after = ledger.summary()
        assert released.shape == x.shape and bool(torch.isfinite(released).all())
        # Every output is paid for and recorded, and everything that was paid for came out.
        assert after["reserved"] == after["released"]
        assert after["reserved"] - before["reserved"] <= len(x)
        assert all(ledger.spent(subject)[0] <= 4.0 for subject in subjects)

    attack()
    assert ledger.verify() == []
    assert seen["images"] >= 10_000 and seen["released"] > 3_000 and seen["refused"] > 50, seen


def test_what_is_stored_is_the_release_and_nothing_else(ledger, tmp_path):
    released, used = recorded_release(privatizer(), ledger, images(1), torch.tensor([2]), ["anna"])
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        ((stored,),) = connection.execute("SELECT content FROM contents")
    assert stored == released.numpy().tobytes() + used.numpy().tobytes()
