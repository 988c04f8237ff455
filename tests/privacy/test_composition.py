# SPDX-License-Identifier: Apache-2.0
"""Releases about the same person add up, and never to less."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_cadp.privacy import PrivacyGuarantee, compose


def guarantee(epsilon: float = 1.0, **parts) -> PrivacyGuarantee:
    return PrivacyGuarantee(**{"epsilon": epsilon, "mechanism": "x", **parts})


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 0.01)), min_size=1, max_size=12))
def test_the_sums_are_never_rounded_down_and_off_by_one_float_at_most(pairs):
    composed = compose([guarantee(epsilon, delta=delta) for epsilon, delta in pairs])
    for column, total in zip(zip(*pairs, strict=True), (composed.epsilon, composed.delta), strict=True):
        exact = sum(map(Fraction, column))
        assert exact <= Fraction(total) <= exact * (1 + Fraction(1, 2**50)) + Fraction(1, 2**1070)


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


def test_the_weakest_training_is_stated():
    cover = {"epsilon": 1.0, "delta": 1e-5, "unit": "image"}
    sgd = guarantee(training="dp-sgd", training_guarantee=cover)
    other = guarantee(training="dp-sgd", training_guarantee={**cover, "epsilon": 2.0})
    public, private = guarantee(training="public"), guarantee(training="private")
    assert compose([public, public]).training == "public"
    assert compose([public, private]).training == "private"
    assert compose([sgd, private]).training == "private"
    assert compose([sgd, public, sgd]).training_guarantee == cover
    assert compose([sgd, other]).training == "private"


def test_different_units_are_refused():
    with pytest.raises(ValueError, match=r"different units \(image, patient\)"):
        compose([guarantee(), guarantee(unit="patient")])


def test_no_guarantee_at_all_is_refused():
    with pytest.raises(ValueError, match="No guarantee"):
        compose([])


def test_sums_that_promise_nothing_are_refused():
    with pytest.raises(ValueError, match="promises nothing"):
        compose([guarantee(delta=0.5), guarantee(delta=0.5)])
    with pytest.raises(ValueError, match="promises nothing"):
        compose([guarantee(1e308), guarantee(1e308)])
