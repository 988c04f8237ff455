# SPDX-License-Identifier: Apache-2.0
"""A cap is reached and never passed, to the last digit, whichever way is counted."""

from __future__ import annotations

import math

import pytest

from monai_cadp.privacy import Budget, GaussianMechanism, PrivacyGuarantee

ACCOUNTINGS = ["sum", "identical"]


def release(epsilon, delta=0.0):
    return PrivacyGuarantee(epsilon, "SubsetSelection", delta=delta)


@pytest.mark.parametrize("accounting", ACCOUNTINGS)
def test_a_budget_may_be_spent_to_the_last_digit_and_no_further(accounting):
    budget = Budget(0.3, delta=3e-6, accounting=accounting)
    one = release(0.1, 1e-6)
    # In floating-point numbers 0.1 + 0.1 + 0.1 is above 0.3.
    assert budget.allows({one: 3}) and not budget.allows({one: 4})
    assert budget.spent({one: 3}) == (0.3, 3e-6)
    assert not Budget(math.nextafter(0.3, 0), 3e-6).allows({one: 3})


@pytest.mark.parametrize("accounting", ACCOUNTINGS)
def test_neither_cap_makes_up_for_the_other(accounting):
    budget = Budget(1.0, delta=1e-6, accounting=accounting)
    assert budget.allows({release(1.0, 1e-6): 1})
    assert not budget.allows({release(math.nextafter(1.0, 2), 0.0): 1})
    assert not budget.allows({release(0.5, math.nextafter(1e-6, 1)): 1})
    assert not budget.allows({release(2.0, 0.0): 1})


def test_sums_count_every_kind_of_release_and_every_repetition():
    budget = Budget(10.0, delta=1e-3)
    assert budget.spent({}) == (0.0, 0.0)
    assert budget.spent({release(1.5): 2, release(0.25, 1e-5): 3}) == (3.75, 3e-5)


def test_without_a_cap_of_delta_nothing_is_spent_of_it():
    assert Budget(1.0).allows({release(1.0): 1})
    assert not Budget(1.0).allows({release(0.5, 1e-300): 1})
    assert not Budget(1.0, accounting="identical").allows({release(0.1): 11})
    assert Budget(1.0, accounting="identical").spent({release(0.1): 11}) == (1.1, 0.0)


def test_identical_releases_compose_below_their_sum_and_are_stated_at_the_cap_of_delta():
    one = GaussianMechanism(0.5, 1e-7, clipping_bound=1.0).guarantee()
    budget = Budget(3.0, delta=1e-5, accounting="identical")
    # Ten of them fit in neither cap as sums of (0.5, 1e-7) would need 5.
    epsilon, delta = budget.spent({one: 10})
    assert epsilon < 3.0 and delta == 1e-5
    assert budget.allows({one: 10}) and not Budget(3.0, delta=1e-5).allows({one: 10})
    # What fits as a sum is stated as one, to the last digit.
    assert budget.spent({one: 2}) == (1.0, 2e-7)
    assert Budget(0.3, delta=1e-5, accounting="identical").spent({release(0.1): 3}) == (0.3, 0.0)


def test_where_deltas_would_pass_the_cap_the_composition_at_the_cap_counts():
    one = GaussianMechanism(0.1, 1e-6, clipping_bound=1.0).guarantee()
    budget = Budget(3.0, delta=5e-6, accounting="identical")
    assert not Budget(3.0, delta=5e-6).allows({one: 10})
    epsilon, delta = budget.spent({one: 10})
    assert 0.1 < epsilon < 1.0 and delta == 5e-6 and budget.allows({one: 10})


def test_where_nothing_bounds_the_composition_the_sum_counts_and_is_refused():
    one = release(0.1, 1e-6)
    budget = Budget(3.0, delta=1e-6, accounting="identical")
    assert budget.allows({one: 1})
    assert not budget.allows({one: 2}) and budget.spent({one: 2}) == (0.2, 2e-6)


def test_different_mechanisms_are_not_identical(refused):
    with refused(ValueError, "2 different mechanisms"):
        Budget(9.0, 1e-5, "identical").allows({release(1.0): 1, release(2.0): 1})


@pytest.mark.parametrize("delta", [-1e-9, 1.0, True, "1e-5", float("nan")])
def test_a_cap_of_delta_that_is_none_is_refused(refused, delta):
    with refused(ValueError, "cap of delta is"):
        Budget(1.0, delta)


def test_caps_are_kept_as_the_same_number_however_they_are_typed():
    assert Budget(1, 0) == Budget(1.0, 0.0) and isinstance(Budget(1, 0).delta, float)
    with pytest.raises(ValueError, match="accounting is 'plain'"):
        Budget(1.0, accounting="plain")
