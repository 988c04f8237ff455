# SPDX-License-Identifier: Apache-2.0
"""Chosen attributes stay as they are, and the answers about the others together spend epsilon and never more."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats

from monai_cadp.privacy import AttributeResponse, RandomizedResponse
from monai_cadp.privacy.exact_numbers import proved_value

# A right mechanism is rejected with probability 1e-7 at most; the control is accepted with less than 1e-7.
ALPHA = 1e-7
COUNT = 100_000
TRUTH = (1, 0, 1)


def law(epsilon):
    """Probabilities of the eight answers about three attributes, each with a third of epsilon."""
    keep = 1 / (1 + math.exp(-epsilon / 3))
    answers = itertools.product((0, 1), repeat=3)
    return np.array(
        [math.prod(keep if a == t else 1 - keep for a, t in zip(ans, TRUTH, strict=True)) for ans in answers]
    )


def counts(mechanism):
    answers = mechanism(torch.tensor([TRUTH]).float().expand(COUNT, 3)).long()
    return torch.bincount(answers @ torch.tensor([4, 2, 1]), minlength=8).numpy()


def p_value(mechanism, epsilon):
    return stats.chisquare(counts(mechanism), law(epsilon) * COUNT).pvalue


def test_answers_have_the_law_of_the_proof_and_are_independent_of_each_other():
    assert p_value(AttributeResponse(3.0, 3), 3.0) > ALPHA


class OneDrawForAll(AttributeResponse):
    """A negative control: all attributes of a sample are kept or denied together."""

    def _randomize(self, latents, generator):
        answer = self.response(latents[:, 0], generator)
        denied = (answer != latents[:, 0])[:, None]
        return torch.where(denied, 1 - latents, latents).float()


class EpsilonForEach(AttributeResponse):
    """A negative control: every attribute spends the whole of epsilon."""

    def __init__(self, epsilon, num_attributes):
        super().__init__(epsilon, num_attributes)
        vars(self)["response"] = RandomizedResponse(epsilon, 2)


@pytest.mark.parametrize(
    "control", [OneDrawForAll, EpsilonForEach, lambda epsilon, k: AttributeResponse(1.1 * epsilon, k)]
)
def test_negative_controls_are_found_out(control):
    assert p_value(control(3.0, 3), 3.0) < ALPHA


@pytest.mark.parametrize("epsilon", [0.1, 0.3, 1.0, 2.0, 7.7, 40.0])
@pytest.mark.parametrize("count", [1, 3, 7, 10, 39, 40])
def test_the_shares_add_up_to_epsilon_at_most_as_exact_numbers(epsilon, count):
    share = AttributeResponse(epsilon, count).response.epsilon
    total = count * Fraction(proved_value(share))
    assert Fraction(proved_value(epsilon)) * Fraction(999_999, 1_000_000) < total <= Fraction(proved_value(epsilon))


def test_kept_attributes_stay_and_the_others_share_epsilon():
    mechanism = AttributeResponse(2.0, 4, kept=[3, 1])
    attributes = torch.randint(2, (5000, 4)).float()
    released = mechanism(attributes)
    assert torch.equal(released[:, [1, 3]], attributes[:, [1, 3]])
    same = (released == attributes).float().mean(0)[[0, 2]]
    assert same == pytest.approx([1 / (1 + math.exp(-1.0))] * 2, abs=0.05)
    assert mechanism.parameters() == {
        "num_attributes": 4,
        "kept": [1, 3],
        "threshold": str(mechanism.response.threshold),
    }


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"epsilon": 0.0}, "epsilon is"),
        ({"epsilon": float("nan")}, "epsilon is"),
        ({"num_attributes": 0}, "num_attributes is 0"),
        ({"num_attributes": True}, "num_attributes is True"),
        ({"kept": [0, 1, 2]}, "one attribute at least that is not kept"),
        ({"kept": [3]}, "different indices from 0"),
        ({"kept": [-1]}, "different indices from 0"),
        ({"kept": [1, 1]}, "different indices from 0"),
    ],
)
def test_what_is_no_response_is_refused(refused, arguments, match):
    with refused(ValueError, match):
        AttributeResponse(**({"epsilon": 1.0, "num_attributes": 3} | arguments))


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, float("nan")])
def test_what_is_neither_yes_nor_no_is_refused_without_naming_it(refused, value):
    with refused(ValueError, "something besides 0 and 1"):
        AttributeResponse(1.0, 2)(torch.tensor([[0.0, value]]))


def test_another_type_or_shape_is_refused(refused):
    with refused(TypeError, "expected a float tensor"):
        AttributeResponse(1.0, 2)(torch.zeros(3, 2, dtype=torch.long))
    for shape in ((3, 3), (2,), (3, 2, 1)):
        with refused(ValueError, r"expected \(B, 2\)"):
            AttributeResponse(1.0, 2)(torch.zeros(shape))
