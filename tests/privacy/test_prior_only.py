# SPDX-License-Identifier: Apache-2.0
"""Nothing of the content is released."""

from __future__ import annotations

import torch
from scipy import stats

from monai_cadp.privacy import PriorOnly


def test_the_release_is_standard_normal_whatever_comes_in_and_a_control_that_keeps_some_is_rejected():
    # A right mechanism fails with probability 1e-7 at most.
    released = PriorOnly()(torch.full((20_000, 2), 1e6)).flatten().double().numpy()
    assert stats.kstest(released, "norm").pvalue > 1e-7 > stats.kstest(released + 1e-7 * 1e6, "norm").pvalue


def test_the_release_is_the_same_for_all_inputs_once_the_random_draws_are_fixed():
    inputs = (torch.zeros(3, 4), torch.randn(3, 4), torch.full((3, 4), float("nan")))
    releases = [PriorOnly()(x, torch.Generator().manual_seed(0)) for x in inputs]
    assert torch.equal(releases[0], releases[1])
    assert torch.equal(releases[0], releases[2])


def test_the_guarantee_says_epsilon_zero():
    guarantee = PriorOnly().guarantee()
    assert (guarantee.epsilon, guarantee.delta) == (0.0, 0.0)
    assert guarantee.attacker_auc_bound == 0.5
