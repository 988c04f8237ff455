# SPDX-License-Identifier: Apache-2.0
"""A label is kept as often as epsilon allows, and never more often."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from monai_cadp.privacy import RandomizedResponse

# A right mechanism is rejected with probability 1e-7 at most; the control is accepted with less than 1e-7.
ALPHA = 1e-7
COUNT = 100_000


def law_p_value(mechanism: RandomizedResponse, label: int, epsilon: float) -> float:
    law = np.full(5, 1 / (math.exp(epsilon) + 4))
    law[label] *= math.exp(epsilon)
    counts = torch.bincount(mechanism(torch.full((COUNT,), label)), minlength=5).numpy()
    return stats.chisquare(counts, law * COUNT).pvalue


@pytest.mark.parametrize("label", range(5))
def test_the_label_is_kept_with_the_probability_that_epsilon_allows(label):
    assert law_p_value(RandomizedResponse(1.0, 5), label, 1.0) > ALPHA


def test_a_control_of_a_larger_epsilon_is_found_out():
    assert law_p_value(RandomizedResponse(1.1, 5), 2, 1.0) < ALPHA


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_any_integer_type_come_back_as_indices(dtype):
    released = RandomizedResponse(1.0, 3)(torch.tensor([0, 1, 2], dtype=dtype))
    assert released.dtype == torch.int64
    assert released.shape == (3,)
    assert set(released.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("label", [-1, 3, 255])
def test_an_unknown_label_is_refused_without_naming_it(label):
    with pytest.raises(ValueError, match=r"^The labels hold an unknown class; expected numbers from 0 to 2\.$"):
        RandomizedResponse(1.0, 3)(torch.tensor([0, label]))


@pytest.mark.parametrize("labels", [torch.zeros(3), torch.zeros(3, dtype=torch.bool), [0, 1], None])
def test_labels_of_another_type_are_refused(labels):
    with pytest.raises(TypeError, match="expected an integer tensor"):
        RandomizedResponse(1.0, 3)(labels)


def test_labels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected \(B,\)"):
        RandomizedResponse(1.0, 3)(torch.zeros(2, 1, dtype=torch.long))


@pytest.mark.parametrize("classes", [1, 0, -2, 2.0, True, "3"])
def test_a_number_of_classes_out_of_range_is_refused(classes):
    with pytest.raises(ValueError, match="num_classes is"):
        RandomizedResponse(1.0, classes)


def test_a_traced_module_draws_afresh_and_never_releases_an_unknown_label():
    mechanism = RandomizedResponse(1.0, 5)
    traced = torch.jit.trace(lambda labels: mechanism(labels), torch.tensor([1, 2]), check_trace=False)
    labels = torch.full((2000,), 999)
    assert set(traced(labels).tolist()) <= set(range(5))
    assert not torch.equal(traced(labels), traced(labels))
