# SPDX-License-Identifier: Apache-2.0
"""What many releases tell together is stated on the safe side, and close to the truth."""

from __future__ import annotations

import math

import pytest

from monai_cadp.privacy import PrivacyGuarantee
from monai_cadp.privacy.loss_distribution import composed_epsilon


def one(epsilon):
    return PrivacyGuarantee(epsilon=epsilon, mechanism="SubsetSelection")


def exact(epsilon, count, delta):
    """The least epsilon of so many pure releases at delta, by the sum over all outcomes of the extremal mechanism."""

    def excess(total):
        return sum(
            math.comb(count, k)
            / (1 + math.exp(epsilon)) ** count
            * max(math.exp(epsilon * k) - math.exp(total + epsilon * (count - k)), 0)
            for k in range(count + 1)
        )

    low, high = 0.0, epsilon * count
    if excess(0.0) <= delta:
        return 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) <= delta else (middle, high)
    return high


@pytest.mark.parametrize("delta", [1e-6, 1e-3, 0.3])
@pytest.mark.parametrize(("epsilon", "count"), [(0.5, 1), (0.5, 8), (2.0, 3), (0.1, 40)])
def test_what_is_stated_is_not_below_the_truth_and_hardly_above(epsilon, count, delta):
    truth, stated = exact(epsilon, count, delta), composed_epsilon([one(epsilon)] * count, delta)
    assert truth <= stated <= truth * 1.01 + 1e-3


def test_what_tells_nothing_at_a_large_delta_is_stated_as_no_less_than_nothing():
    assert 0.0 < composed_epsilon([one(0.1)], delta=0.9) < 1e-6
    assert composed_epsilon([], delta=0.1) == 0.0
