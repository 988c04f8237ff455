# SPDX-License-Identifier: Apache-2.0
"""Releases about the same person add up, and never to less."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from monai_cadp.certificate.derivation import DERIVATIONS
from monai_cadp.privacy import (
    AttributeResponse,
    GaussianMechanism,
    LaplaceMechanism,
    PrivacyGuarantee,
    RandomizedResponse,
    SubsetSelection,
    TrainingData,
    compose,
    include_training,
)
from monai_cadp.privacy.calibration import gaussian_delta


def guarantee(epsilon: float = 1.0, **parts) -> PrivacyGuarantee:
    return PrivacyGuarantee(**{"epsilon": epsilon, "mechanism": "x", **parts})


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 0.01)), min_size=1, max_size=12))
def test_the_sums_are_never_rounded_down_and_off_by_one_float_at_most(pairs):
    composed = compose([guarantee(epsilon, delta=delta) for epsilon, delta in pairs])
    for column, total in zip(zip(*pairs, strict=True), (composed.epsilon, composed.delta), strict=True):
        exact = sum(Fraction(repr(value)) for value in column)
        assert exact <= Fraction(repr(total)) <= exact * (1 + Fraction(1, 2**50)) + Fraction(1, 2**1070)


def test_epsilons_add_up_as_they_are_written():
    assert compose([guarantee(0.1)] * 10).epsilon == 1.0


def test_plain_addition_would_round_down():
    epsilons = [1.0, 2.0**-54, 2.0**-54]
    assert Fraction(sum(epsilons)) < sum(map(Fraction, epsilons))
    assert compose(map(guarantee, epsilons)).epsilon > 1.0


def test_the_parts_and_their_public_facts_are_kept():
    image = guarantee(4.0, public=("age",), parameters={"k": 3}, fingerprint="f")
    label = guarantee(1.0, public=("age", "sex"))
    composed = compose([image, label])
    assert (composed.epsilon, composed.mechanism) == (5.0, "composition")
    assert composed.public == ("age", "sex")
    assert [PrivacyGuarantee.from_dict(part) for part in composed.parameters["parts"]] == [image, label]
    assert PrivacyGuarantee.from_json(composed.to_json()) == composed


def test_one_guarantee_stays_as_it_is():
    assert compose([guarantee(3.0)]) == guarantee(3.0)


def test_what_all_networks_have_learned_from_is_united():
    public, unprotected = guarantee(training_data=TrainingData.public()), guarantee()
    first, second = (guarantee(training_data=TrainingData.dp(1.0, 1e-5, "image")) for _ in range(2))
    assert compose([public, public]).training_data == public.training_data
    assert compose([public, unprotected]).training_data.protection == "unprotected"
    assert compose([first, unprotected]).training_data.protection == "unprotected"
    assert compose([first, public, first]).training_data.guarantee == first.training_data.guarantee
    assert compose([first, second]).training_data.guarantee["epsilon"] == 2.0


def test_two_trainings_with_equal_settings_count_twice_and_the_same_one_once():
    """For somebody in both training sets and among the released: 4 + 4 + 8 + 8, and 4 + 4 + 8."""
    first, second = (guarantee(4.0, training_data=TrainingData.dp(8.0, 1e-6, "image")) for _ in range(2))
    assert include_training(compose([first, second])).epsilon == 24.0
    assert include_training(compose([first, first])).epsilon == 16.0


def test_different_units_are_refused():
    with pytest.raises(ValueError, match=r"different units \(image, patient\); name"):
        compose([guarantee(), guarantee(unit="patient")])


def test_no_guarantee_at_all_is_refused():
    with pytest.raises(ValueError, match="No guarantee"):
        compose([])


def test_sums_that_promise_nothing_are_refused():
    with pytest.raises(ValueError, match="promises nothing"):
        compose([guarantee(delta=0.5), guarantee(delta=0.5)])
    with pytest.raises(ValueError, match="promises nothing"):
        compose([guarantee(1e308), guarantee(1e308)])


# --- composed losses --------------------------------------------------------------------------------------------------


def test_many_releases_cost_less_than_their_sum_for_a_small_delta():
    composed = compose([SubsetSelection(0.1).guarantee()] * 400, delta=1e-6)
    assert composed.delta == 1e-6 and composed.epsilon < 0.4 * 400 * 0.1


def test_composed_randomized_responses_are_never_promised_less_than_they_leak():
    """The exact delta of n binary randomized responses is a sum over binomial outcomes."""
    epsilon, num = 0.2, 60
    promised = compose([guarantee(epsilon)] * num, delta=1e-5)
    keep = 1 / (1 + math.exp(-epsilon))
    count = np.arange(num + 1)
    here, there = binom.pmf(count, num, keep), binom.pmf(count, num, 1 - keep)
    leaked = np.maximum(here - math.exp(promised.epsilon) * there, 0).sum()
    assert 0.5e-5 < leaked <= 1e-5
    assert np.maximum(here - math.exp(0.97 * promised.epsilon) * there, 0).sum() > 1e-5


def test_composed_gaussian_releases_are_one_gaussian_release_of_less_noise():
    mechanism = GaussianMechanism(1.0, 1e-6, clipping_bound=3.0)
    composed = compose([mechanism.guarantee()] * 9, delta=1e-6)
    ratio = mechanism.noise_deviation / (2 * 3.0) / 3
    assert gaussian_delta(composed.epsilon, ratio) <= 1.0001e-6
    assert gaussian_delta(0.999 * composed.epsilon, ratio) > 1e-6


def test_composed_compositions_are_taken_apart():
    one = SubsetSelection(0.1).guarantee()
    nested = compose([compose([one] * 200), compose([one] * 200)], delta=1e-6)
    assert nested.epsilon == compose([one] * 400, delta=1e-6).epsilon


def test_pure_releases_stay_pure_where_nothing_is_won():
    composed = compose([guarantee(1.0), guarantee(2.0)], delta=1e-6)
    assert (composed.epsilon, composed.delta) == (3.0, 0.0)


def test_a_delta_that_is_too_small_for_the_parts_promises_nothing():
    with pytest.raises(ValueError, match="promises nothing"):
        compose([guarantee(1.0, delta=1e-3)] * 2, delta=1e-6)


def test_releases_without_content_add_nothing():
    assert compose([guarantee(0.0), guarantee(0.0)], delta=1e-6).epsilon == 0.0


# --- units and training -----------------------------------------------------------------------------------------------


def test_all_images_of_a_patient_are_a_release_of_the_patient():
    image, volume = guarantee(1.0, unit="image"), guarantee(2.0, unit="volume")
    assert compose([image, volume], unit="patient").unit == "patient"
    assert compose([image], unit="patient").unit == "patient"


def test_a_person_in_the_training_set_has_the_guarantee_of_training_and_release_together():
    added = TrainingData.dp(0.5, 1e-6, "patient", relation="add-or-remove-one")
    release = guarantee(2.0, unit="patient", training_data=added)
    both = include_training(release)
    assert both.epsilon == 3.0
    assert both.delta == pytest.approx((1 + math.exp(0.5)) * 1e-6)
    replaced = guarantee(2.0, training_data=TrainingData.dp(0.5, 1e-6, "patient"))
    assert include_training(replaced, unit="patient").epsilon == 2.5
    assert include_training(replaced, unit="patient").delta == 1e-6


def test_both_parts_of_what_a_trained_network_releases_name_its_weights():
    trained = TrainingData.dp(0.5, 1e-6, "patient")
    both = include_training(guarantee(2.0, unit="patient", training_data=trained, fingerprint="f" * 64))
    assert [part["fingerprint"] for part in both.parameters["parts"]] == ["f" * 64] * 2
    assert both.fingerprint == "f" * 64


def test_training_that_nothing_covers_is_refused_and_public_training_costs_nothing(refused):
    with refused(ValueError, "no guarantee covers"):
        include_training(guarantee())
    public = guarantee(training_data=TrainingData.public())
    assert include_training(public) == public


def test_the_published_schema_takes_what_is_written_and_nothing_else():
    schema = json.loads((Path(__file__).parents[2] / "docs" / "privacy_guarantee.schema.json").read_text())
    sgd = guarantee(training_data=TrainingData.dp(0.5, 1e-6, "patient"))
    gaussian = GaussianMechanism(1.0, 1e-6, 1.0).guarantee()
    for document in (guarantee(), sgd, gaussian, compose([sgd, gaussian]), guarantee(1.0).shuffled(1000, 1e-6)):
        jsonschema.validate(document.to_dict(), schema)
    for change in (
        {"epsilon": -1},
        {"delta": 1},
        {"training": "public"},
        {"training_data": "public"},
        {"relation": "add"},
        {"seed": 3},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(guarantee().to_dict() | change, schema)
        with pytest.raises(ValueError):
            PrivacyGuarantee.from_dict(guarantee().to_dict() | change)


@pytest.mark.parametrize(
    "mechanism",
    [
        SubsetSelection(4.0, num_candidates=64).configured(4),
        RandomizedResponse(1.0, num_classes=3),
        AttributeResponse(1.0, num_attributes=3),
        LaplaceMechanism(1.0, clipping_bound=2.0),
    ],
    ids=lambda mechanism: type(mechanism).__name__,
)
def test_the_schema_takes_cards_from_before_mechanisms_stated_their_integers(mechanism):
    schema = json.loads((Path(__file__).parents[2] / "docs" / "privacy_guarantee.schema.json").read_text())
    now, before = mechanism.guarantee(), mechanism.guarantee().without_derived()
    assert len(before.parameters) == len(now.parameters) - 1
    for document in (now, before, compose([before, now]), compose([now, now]).without_derived()):
        jsonschema.validate(document.to_dict(), schema)
        assert PrivacyGuarantee.from_json(document.to_json()) == document
    assert compose([now, now]).without_derived() == compose([before, before])


def test_the_schema_names_every_mechanism_whose_epsilon_a_verifier_can_derive():
    schema = json.loads((Path(__file__).parents[2] / "docs" / "privacy_guarantee.schema.json").read_text())
    named = re.findall(r"\w+", schema["properties"]["mechanism"]["description"].removesuffix("."))
    assert set(named) - {"or"} == {*DERIVATIONS, "shuffle"}


def test_the_schema_of_older_versions_takes_their_documents_still():
    folder = Path(__file__).parents[2] / "docs"
    current, older = (
        json.loads((folder / f"privacy_guarantee.schema{version}.json").read_text()) for version in ("", ".v1")
    )
    cover = {"epsilon": 0.5, "delta": 1e-6, "unit": "patient"}
    for training in ({"training": "private"}, {"training": "dp-sgd", "training_guarantee": cover}):
        document = {"epsilon": 1.0, "mechanism": "x", **training}
        jsonschema.validate(document, older)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document, current)
        assert PrivacyGuarantee.from_dict(document).epsilon == 1.0


def test_rounding_errors_of_the_accountant_are_not_promised():
    """At a delta that its Fourier transforms do not resolve, there is no epsilon to promise but the plain sum's."""
    with pytest.raises(ValueError, match="promises nothing"):
        compose([guarantee(1e-3, delta=1e-13)] * 20, delta=1e-12)
    assert compose([guarantee(0.01)] * 1000, delta=1e-12).delta == 0.0
