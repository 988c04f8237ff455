# SPDX-License-Identifier: Apache-2.0
"""A guarantee is complete, exact and readable."""

from __future__ import annotations

import dataclasses
import json
import pickle
import random
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_cadp.privacy import (
    GaussianMechanism,
    PrivacyGuarantee,
    RandomizedResponse,
    SubsetSelection,
    TrainingData,
    largest_auc,
)

FULL = PrivacyGuarantee(
    epsilon=4.0,
    delta=1e-6,
    mechanism="GaussianMechanism",
    unit="patient",
    parameters={"clipping_bound": 2.0, "sizes": [1, 2]},
    public=("diagnosis", "sex"),
    training_data=TrainingData.dp(epsilon=8.0, delta=1e-5, unit="patient"),
    fingerprint="abc",
)


@pytest.mark.parametrize("guarantee", [FULL, PrivacyGuarantee(epsilon=0.0, mechanism="PriorOnly")])
def test_json_and_plain_data_bring_back_the_same_guarantee(guarantee):
    assert PrivacyGuarantee.from_json(guarantee.to_json()) == guarantee
    assert PrivacyGuarantee.from_dict(json.loads(json.dumps(guarantee.to_dict()))) == guarantee
    assert pickle.loads(pickle.dumps(guarantee)) == guarantee


@pytest.mark.parametrize(
    "mechanism", [SubsetSelection(4.0).configured(3), GaussianMechanism(1.0, 1e-5, 1.0), RandomizedResponse(1.0, 4)]
)
def test_every_mechanism_writes_a_guarantee_that_survives_json(mechanism):
    guarantee = mechanism.guarantee(unit="volume", public=("age",))
    assert PrivacyGuarantee.from_json(guarantee.to_json()) == guarantee
    assert guarantee.mechanism == type(mechanism).__name__
    assert (guarantee.epsilon, guarantee.delta) == (mechanism.epsilon, mechanism.delta)
    assert (guarantee.unit, guarantee.public) == ("volume", ("age",))
    assert guarantee.training_data.protection == "unprotected"


def test_a_guarantee_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.epsilon = 1.0
    settings_given = {"a": [1]}
    guarantee = PrivacyGuarantee(epsilon=1.0, mechanism="x", parameters=settings_given)
    settings_given["a"].append(2)
    guarantee.to_dict()["parameters"]["a"].append(3)
    assert guarantee.parameters == {"a": [1]}


def test_what_is_read_of_a_guarantee_is_a_copy():
    """The cost in a ledger and the number of a set are computed from it."""
    local = PrivacyGuarantee(
        4.0, "SubsetSelection", parameters={"num_candidates": 2**14, "num_blocks": 1, "subset_size": [1111]}
    )
    event = TrainingData.dp(1.0, 1e-6, "image", parts=[1.0])
    learnt = PrivacyGuarantee(4.0, "PriorOnly", training_data=event)
    before, of_set = local.to_json(), local.shuffled(10_000, 1e-6).epsilon
    local.parameters["subset_size"][0] = 5
    local.parameters.clear()
    learnt.training_data.guarantee["epsilon"] = 0.0
    learnt.training_data.events[0]["protection"] = "public"
    assert (local.to_json(), local.shuffled(10_000, 1e-6).epsilon) == (before, of_set)
    assert learnt.training_data.guarantee["epsilon"] == 1.0 and learnt.training_data.protection == "dp"
    assert len({local, PrivacyGuarantee.from_json(before), learnt}) == 2


def test_equal_guarantees_are_one_in_a_set():
    one, other = (PrivacyGuarantee(1.0, "x", parameters={"a": number}) for number in (1, 1.0))
    assert one == other and len({one, other}) == 1


def test_the_largest_area_is_half_at_nothing_and_what_the_documentation_says_at_1_and_4():
    areas = [round(largest_auc(epsilon), 2) for epsilon in (0.0, 1.0, 4.0, float("inf"))]
    assert areas == [0.5, 0.73, 0.98, 1.0]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.floats(0, 30), st.floats(0, 0.9))
def test_the_auc_bound_is_the_area_under_the_best_possible_roc_curve(epsilon, delta):
    x = np.concatenate([np.linspace(0, 1, 20_001), np.geomspace(1e-14, 1, 20_001)])
    x.sort()
    y = np.minimum(np.minimum(delta + np.exp(epsilon) * x, 1 - np.exp(-epsilon) * (1 - delta - x)), 1.0)
    bound = PrivacyGuarantee(epsilon=epsilon, delta=delta, mechanism="x").attacker_auc_bound
    assert bound == pytest.approx(float(np.trapezoid(y, x)), abs=1e-6)


@pytest.mark.parametrize(("epsilon", "bound"), [(0.0, 0.5), (1.0, 0.731058), (4.0, 0.982014), (5000.0, 1.0)])
def test_the_auc_bound_of_pure_privacy_is_that_of_binary_randomized_response(epsilon, bound):
    assert PrivacyGuarantee(epsilon=epsilon, mechanism="x").attacker_auc_bound == pytest.approx(bound, abs=1e-6)


def test_the_largest_area_is_never_below_the_exact_one():
    generator = random.Random(0)
    with localcontext() as context:
        context.prec = 60
        for _ in range(300):
            epsilon, delta = generator.uniform(0, 40), generator.choice([0.0, generator.random()])
            exact = 1 - (1 - Decimal(repr(delta))) ** 2 / (1 + Decimal(repr(epsilon)).exp())
            assert exact <= Decimal(repr(largest_auc(epsilon, delta))) <= exact + Decimal(2) ** -52
    assert largest_auc(0.0) == 0.5 and largest_auc(1e4) == largest_auc(float("inf"), 0.5) == 1.0


def test_what_people_read_is_never_below_what_is_promised():
    local = PrivacyGuarantee(epsilon=0.90725907, delta=1.00000049e-6, mechanism="x").explain()
    assert "e^0.90726" in local and "epsilon = 0.90726, delta = 1.00001e-06" in local
    exact = PrivacyGuarantee(epsilon=4.0, delta=1e-6, mechanism="x").explain()
    assert "e^4, up to an extra probability of delta = 1e-06 (epsilon = 4, delta = 1e-06, mech" in exact


def test_the_explanation_names_what_is_promised_and_what_is_not():
    text = FULL.explain()
    for words in ("patient", "epsilon = 4", "delta = 1e-06", "diagnosis, sex", "epsilon = 8.0", "add up", "ROC curve"):
        assert words in text
    assert text.count(". ") >= 4


@pytest.mark.parametrize(
    ("training_data", "words"),
    [
        (TrainingData.UNDECLARED, "does not cover the people"),
        (TrainingData.unprotected("flow"), "unprotected data (flow)"),
        (TrainingData.public(), "public data"),
        (TrainingData(), "never trained"),
    ],
)
def test_the_explanation_says_whether_the_training_set_is_covered(training_data, words):
    text = PrivacyGuarantee(epsilon=1.0, mechanism="x", training_data=training_data).explain()
    assert words in text
    assert ("does not cover" in text) == (training_data.protection == "unprotected")


@pytest.mark.parametrize("word", ["public", "private"])
def test_a_document_of_an_older_version_is_read_and_its_word_for_the_training_is_not_believed(word):
    older = {"epsilon": 1.0, "mechanism": "x", "training": word, "training_guarantee": None}
    assert PrivacyGuarantee.from_dict(older) == PrivacyGuarantee(1.0, "x")
    assert PrivacyGuarantee.from_dict(older).training_data.protection == "unprotected"


def test_a_document_that_states_better_training_data_than_its_events_have_is_refused(refused):
    document = PrivacyGuarantee(1.0, "x", training_data=TrainingData.unprotected()).to_dict()
    document["training_data"]["protection"] = "public"
    with refused(ValueError, "state another protection"):
        PrivacyGuarantee.from_dict(document)


def test_the_explanation_of_no_content_says_so():
    assert "does not depend on the content" in PrivacyGuarantee(epsilon=0.0, mechanism="PriorOnly").explain()


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": -1.0},
        {"epsilon": float("nan")},
        {"epsilon": float("inf")},
        {"epsilon": True},
        {"epsilon": "1"},
        {"delta": 1.0},
        {"delta": -0.1},
        {"mechanism": ""},
        {"unit": " "},
        {"relation": "add-remove"},
        {"public": "label"},
        {"public": (1,)},
        {"training_data": "public"},
        {"training_data": None},
        {"parameters": {"a": float("nan")}},
        {"parameters": {"a": object()}},
        {"fingerprint": 3},
    ],
)
def test_an_unusable_part_is_refused_in_one_sentence(change):
    with pytest.raises(ValueError, match=r"^[A-Z][^\n]*\.$"):
        PrivacyGuarantee(**{"epsilon": 1.0, "mechanism": "x", **change})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"epsilon": 1, "mechanism": "x", "more": 1}', "3"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="This is not a guarantee"):
        PrivacyGuarantee.from_json(text)


def test_whole_numbers_are_written_as_the_floats_that_they_are_equal_to():
    """A ledger knows a document by its digest, so that equal guarantees must be equal texts."""
    whole, other = (PrivacyGuarantee(*numbers) for numbers in ((4, "x"), (4.0, "x")))
    assert whole == other and whole.to_json() == other.to_json()
    assert PrivacyGuarantee(1.0, "x", delta=0).to_json() == PrivacyGuarantee(1.0, "x", delta=0.0).to_json()


def test_public_facts_are_a_tuple_whatever_list_they_came_in():
    listed = PrivacyGuarantee(1.0, "x", public=["class", "age"])
    assert listed.public == ("class", "age") and hash(listed) == hash(PrivacyGuarantee(1.0, "x", public=listed.public))


def test_a_set_that_does_not_say_what_one_release_keeps_promises_nothing_of_it():
    guarantee = PrivacyGuarantee(epsilon=0.5, delta=1e-6, mechanism="shuffle", parameters={"num_releases": 100})
    assert "the guarantee of a single release instead, epsilon = inf." in guarantee.explain()
