# SPDX-License-Identifier: Apache-2.0
"""Laplace noise has the law that its guarantee needs, and controls with less noise are found out."""

from __future__ import annotations

import copy
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from monai_cadp.privacy import LaplaceMechanism

# A right mechanism is rejected with probability 1e-7 at most; a control is accepted with less than 1e-7.
ALPHA = 1e-7
COUNT = 2**17
EPSILON, BOUND = 8.0, 0.05
SCALE = 2 * BOUND / EPSILON


def with_noise(factor: float) -> LaplaceMechanism:
    control = copy.deepcopy(LaplaceMechanism(EPSILON, BOUND))
    vars(control)["scale"] *= factor
    return control


def law_p_value(mechanism: LaplaceMechanism, entry: float) -> float:
    """Test released rows for Laplace noise of scale 2 C / epsilon around the clipped entry."""
    released = mechanism(torch.full((COUNT, 1), entry)).double().flatten() * math.sqrt(1 + 2 * SCALE**2)
    noise = (released - max(-BOUND, min(BOUND, entry))) / SCALE
    return stats.kstest(noise.numpy(), "laplace").pvalue


@pytest.mark.slow
@pytest.mark.parametrize("entry", [0.0, 1e30, -5.0])
def test_noise_has_the_scale_of_twice_the_bound_over_epsilon(entry):
    assert law_p_value(LaplaceMechanism(EPSILON, BOUND), entry) > ALPHA


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.9, 0.5], ids=["scale x 0.9", "C in place of 2 C"])
def test_a_control_with_less_noise_is_found_out(factor):
    assert law_p_value(with_noise(factor), 0.0) < ALPHA


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.floats(1e-9, 1e4), st.floats(1e-6, 1e6))
def test_the_largest_ratio_is_within_epsilon_in_exact_fractions_and_hardly_below(epsilon, bound):
    mechanism = LaplaceMechanism(epsilon, bound)
    loss = Fraction(2 * mechanism.lattice.bound) / Fraction(mechanism.scale)
    assert loss <= Fraction(epsilon)
    assert loss >= Fraction(epsilon) * (1 - Fraction(1, 10**15))


def test_releases_have_unit_variance_for_standard_normal_entries_within_the_bound():
    mechanism = LaplaceMechanism(4.0, clipping_bound=10.0)
    latents = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    assert float(mechanism(latents, torch.Generator().manual_seed(1)).var()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), 1e30])
def test_a_hostile_sample_never_changes_the_release_of_another(bad):
    mechanism = LaplaceMechanism(1.0, 1.0)
    latents = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    hostile = latents.clone()
    hostile[1, 2] = bad
    before, after = (mechanism(x, torch.Generator().manual_seed(1)) for x in (latents, hostile))
    keep = [0, 2, 3]
    assert torch.equal(before[keep], after[keep])


@pytest.mark.parametrize("epsilon", [1e-10, 1e5])
def test_an_epsilon_that_the_lattice_cannot_hold_is_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon is"):
        LaplaceMechanism(epsilon, 1.0)


def test_a_guarantee_names_every_number_of_the_noise():
    mechanism = LaplaceMechanism(EPSILON, BOUND)
    assert mechanism.parameters() == {
        "clipping_bound": BOUND,
        "norm": 1,
        "noise_deviation": mechanism.noise_deviation,
        "lattice_scale": mechanism.scale,
    }
