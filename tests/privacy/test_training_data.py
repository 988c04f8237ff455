# SPDX-License-Identifier: Apache-2.0
"""What was learned from is a set of trainings, which only grows, and its meaning only gets worse."""

from __future__ import annotations

import itertools
import random
from decimal import Decimal, localcontext

import pytest

from monai_cadp.networks import new_event
from monai_cadp.privacy import TrainingData

ORDER = ("public", "dp", "unprotected")


def dp(epsilon=1.0, delta=1e-6, unit="image", relation="replace-one", resumes=None):
    guarantee = {"epsilon": epsilon, "delta": delta, "unit": unit, "relation": relation}
    return new_event("flow", "dp", guarantee, resumes=resumes)


def rank(data):
    """How bad a record is: protection, epsilon, delta."""
    guarantee = data.guarantee or {"epsilon": 0.0, "delta": 0.0}
    protection = ORDER.index(data.protection)
    return (protection, guarantee["epsilon"], guarantee["delta"]) if protection == 1 else (protection, 0.0, 0.0)


def never_below(bad, other):
    """Whether a record is at least as bad as another one, in protection and in every number."""
    return bad[0] > other[0] or (bad[0] == other[0] and bad[1] >= other[1] and bad[2] >= other[2])


def test_nothing_is_public_and_one_unprotected_training_is_unprotected_for_ever():
    assert TrainingData().protection == TrainingData.public().protection == "public"
    data = TrainingData.unprotected()
    for other in (TrainingData.public(), TrainingData.dp(1.0, 1e-6, "image"), TrainingData()):
        data |= other
        assert data.protection == "unprotected" and data.guarantee is None


def test_equal_trainings_add_up_and_the_same_one_is_one():
    first, second = TrainingData.of([dp()]), TrainingData.of([dp()])
    assert (first | first).guarantee == first.guarantee
    assert (first | second).guarantee == {"epsilon": 2.0, "delta": 2e-6, "unit": "image", "relation": "replace-one"}


def test_a_run_that_goes_on_is_one_run_and_one_that_was_forked_is_two():
    start = dp()
    on, fork = dp(resumes=start), dp(resumes=start)
    assert TrainingData.of([start, on]).guarantee["epsilon"] == 1.0
    assert TrainingData.of([start, on, dp(resumes=on)]).guarantee["epsilon"] == 1.0
    assert TrainingData.of([start, on, fork]).guarantee["epsilon"] == 2.0
    assert TrainingData.of([on, fork]).guarantee["epsilon"] == 2.0


def test_a_run_resumed_under_another_word_has_the_less_safe_one():
    for first, second in itertools.product(("public", "unprotected"), repeat=2):
        start = new_event("flow", first)
        data = TrainingData.of([start, new_event("flow", second, resumes=start)])
        assert data.protection == max(first, second, key=ORDER.index)


def test_one_run_with_two_guarantees_has_the_larger_numbers():
    start = dp(epsilon=1.0, delta=1e-5)
    assert TrainingData.of([start, dp(epsilon=3.0, delta=1e-7, resumes=start)]).guarantee["epsilon"] == 3.0
    assert TrainingData.of([start, dp(epsilon=3.0, delta=1e-7, resumes=start)]).guarantee["delta"] == 1e-5


def test_what_cannot_be_added_up_is_unprotected():
    assert TrainingData.of([dp(unit="image"), dp(unit="patient")]).protection == "unprotected"
    assert TrainingData.of([dp(delta=0.5), dp(delta=0.5)]).protection == "unprotected"
    assert TrainingData.of([dp(epsilon=1e308), dp(epsilon=1e308)]).protection == "unprotected"
    assert TrainingData.of([dp(epsilon=1e5, relation="add-or-remove-one")]).protection == "unprotected"


def test_no_random_sequence_of_events_ever_lowers_what_they_mean():
    random.seed(0)
    for _ in range(300):
        known, data = [], TrainingData()
        for _ in range(8):
            resumes = random.choice([None, *known]) if known else None
            word = random.choice(["public", "dp", "dp", "dp", "dp"] + ["unprotected"] * (random.random() < 0.2))
            if word == "dp":
                event = dp(
                    random.random(),
                    random.random() * 0.2,
                    random.choice(["image"] * 9 + ["patient"]),
                    "replace-one",
                    resumes,
                )
            else:
                event = new_event("flow", word, resumes=resumes)
            known.append(event)
            more = data | TrainingData.of(random.sample(known, random.randint(1, len(known))))
            assert never_below(rank(more), rank(data)) and data.entries <= more.entries
            data = more


def test_the_random_sequences_would_notice_a_record_that_keeps_the_last_word_only():
    """Negative control."""
    first, last = TrainingData.unprotected(), TrainingData.public()
    assert not never_below(rank(last), rank(first))


@pytest.mark.parametrize(("factor", "is_read"), [(1 - 2**-50, True), (1 - 1e-9, False), (1 + 1e-9, False)])
def test_a_document_whose_last_digits_were_rounded_otherwise_is_read_and_its_number_is_not_believed(factor, is_read):
    """Ledgers hold documents of older versions."""
    data = TrainingData.of([dp(4.402791927918423, relation="add-or-remove-one")])
    document = data.to_dict()
    document["guarantee"] = {**data.guarantee, "epsilon": data.guarantee["epsilon"] * factor}
    if is_read:
        assert TrainingData.from_dict(document).guarantee == data.guarantee != document["guarantee"]
    else:
        with pytest.raises(ValueError, match="another protection"):
            TrainingData.from_dict(document)


def test_plain_data_bring_back_the_same_record_and_a_better_claim_is_refused(refused):
    for data in (TrainingData(), TrainingData.public(), TrainingData.of([dp(), dp()]), TrainingData.UNDECLARED):
        assert TrainingData.from_dict(data.to_dict()) == data
    document = TrainingData.of([dp(), dp()]).to_dict()
    document["events"].pop()
    with refused(ValueError, "another protection"):
        TrainingData.from_dict(document)
    for change in ({"protection": "public", "guarantee": None}, {"guarantee": None}, {"events": "all"}, {"more": 1}):
        with refused(ValueError, "training"):
            TrainingData.from_dict(TrainingData.of([dp()]).to_dict() | change)


@pytest.mark.parametrize(
    "change",
    [
        {"protection": "private"},
        {"protection": "public"},
        {"guarantee": None},
        {"guarantee": {"epsilon": 1.0, "delta": 0.0}},
        {"guarantee": {"epsilon": -1.0, "delta": 0.0, "unit": "image"}},
        {"guarantee": {"epsilon": float("nan"), "delta": 0.0, "unit": "image"}},
        {"guarantee": {"epsilon": 1.0, "delta": 1.0, "unit": "image"}},
        {"guarantee": {"epsilon": True, "delta": 0.0, "unit": "image"}},
        {"guarantee": {"epsilon": 1.0, "delta": 0.0, "unit": " "}},
        {"identity": ""},
        {"segment": 3},
        {"resumes": 3},
        {"more": 1},
    ],
    ids=str,
)
def test_an_unusable_event_is_refused_in_one_sentence(change):
    with pytest.raises(ValueError, match=r"^[A-Z][^\n]*\.$"):
        TrainingData.of([dp() | change])


def test_one_image_more_or_less_becomes_a_replacement_that_is_rounded_up():
    """Twice epsilon and (1 + e^epsilon) delta, in arithmetic of 60 digits."""
    generator = random.Random(0)
    with localcontext() as context:
        context.prec = 60
        for _ in range(300):
            epsilon, delta = generator.uniform(0, 5), 10 ** generator.uniform(-9, -4)
            told = TrainingData.of([dp(epsilon, delta, relation="add-or-remove-one")]).guarantee
            read = {name: Decimal(repr(number)) for name, number in (("epsilon", epsilon), ("delta", delta))}
            exact = {"epsilon": 2 * read["epsilon"], "delta": (1 + read["epsilon"].exp()) * read["delta"]}
            for name, number in exact.items():
                assert number <= Decimal(repr(told[name])) <= number * (1 + Decimal(2) ** -50), name


def test_twice_an_epsilon_is_not_below_twice_what_is_read():
    data = TrainingData.dp(epsilon=4.402791927918423, delta=1e-6, unit="image", relation="add-or-remove-one")
    assert Decimal(repr(data.guarantee["epsilon"])) >= 2 * Decimal("4.402791927918423")


@pytest.mark.parametrize("epsilon", [800.0, 1e5, 1e300])
def test_one_image_more_or_less_without_a_delta_has_none_whatever_its_epsilon(epsilon):
    assert TrainingData.of([dp(epsilon, 0.0, relation="add-or-remove-one")]).guarantee["delta"] == 0
    assert TrainingData.of([dp(epsilon, 5e-324, relation="add-or-remove-one")]).protection == "unprotected"
