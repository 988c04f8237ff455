# SPDX-License-Identifier: Apache-2.0
"""Every control makes the mistake that it is named for, and claims what its honest version promises."""

from __future__ import annotations

import math

import pytest
import torch

from monai_cadp.attacks import all_controls
from monai_cadp.attacks.negative_controls import (
    BatchNormClip,
    DataDependentSubset,
    NaNStopsClipping,
    ReusedNoise,
    with_noise,
)
from monai_cadp.privacy import GaussianMechanism, LaplaceMechanism, SubsetSelection

QUIET = 4.0, 1.0  # epsilon, C


def clipped(mechanism, latents):
    """L1 norms of rows after the clip, in units of C."""
    return mechanism.lattice.clip(mechanism._prepare(latents)).abs().sum(1) / mechanism.lattice.bound


@pytest.mark.parametrize("control", all_controls(), ids=lambda control: control.name)
def test_a_control_claims_what_its_honest_version_promises_and_keeps_less(control):
    assert (control.broken.epsilon, control.broken.delta) == (control.honest.epsilon, control.honest.delta)
    assert control.broken.num_directions == control.honest.num_directions
    assert control.true_epsilon > 1.2 * control.honest.epsilon


def test_a_clip_by_the_norm_of_the_batch_leaves_one_row_with_k_times_the_bound():
    row = torch.full((1, 5), 100.0)
    assert float(clipped(LaplaceMechanism(*QUIET), row)) == pytest.approx(1.0, abs=1e-4)
    assert float(clipped(BatchNormClip(*QUIET), row)) == pytest.approx(5.0, abs=1e-4)


def test_a_clip_by_the_norm_of_the_batch_lets_one_row_change_another():
    rows = torch.tensor([[0.5, 0.0], [0.0, 0.0]])
    loud = torch.tensor([[0.5, 0.0], [9.5, 0.0]])
    assert clipped(BatchNormClip(*QUIET), rows)[0] > 5 * clipped(BatchNormClip(*QUIET), loud)[0]
    assert clipped(LaplaceMechanism(*QUIET), rows)[0] == clipped(LaplaceMechanism(*QUIET), loud)[0]


def test_one_nan_stops_the_clipping_of_all_rows():
    rows = torch.tensor([[50.0, 0.0], [0.0, 0.0]])
    with_nan = torch.tensor([[50.0, 0.0], [math.nan, 0.0]])
    control = NaNStopsClipping(*QUIET)
    assert clipped(control, rows)[0] == pytest.approx(1.0, abs=1e-4)
    assert clipped(control, with_nan)[0] == pytest.approx(50.0, abs=1e-3)
    assert clipped(LaplaceMechanism(*QUIET), with_nan)[0] == pytest.approx(1.0, abs=1e-4)


def test_reused_noise_is_gone_from_the_difference_of_two_rows():
    rows = torch.tensor([[0.25, 0.5], [0.0, 0.0]])
    released = ReusedNoise(*QUIET)(rows)
    scale = 1 / math.sqrt(1 + ReusedNoise(*QUIET).noise_deviation ** 2)
    torch.testing.assert_close(released[0] - released[1], scale * rows[0], rtol=0, atol=1e-5)
    assert not torch.allclose(released, ReusedNoise(*QUIET)(rows))


@pytest.mark.parametrize("honest", [LaplaceMechanism(*QUIET), GaussianMechanism(4.0, 1e-5, 1.0)])
def test_with_less_noise_nothing_else_changes(honest):
    control = with_noise(honest, 0.8)
    assert control.scale == 0.8 * honest.scale
    assert control.lattice == honest.lattice and type(control) is type(honest)


def test_a_data_dependent_subset_changes_probabilities_by_more_than_epsilon_and_the_honest_one_does_not():
    """Of 8 candidates on a line, the outermost: how often the origin, and an image next to it, release it."""
    losses = []
    for kind in (DataDependentSubset, SubsetSelection):
        mechanism = kind(2.0, num_candidates=8, subset_size=4).configured(1)
        public = mechanism(torch.zeros(2000, 1)).unique()
        outermost = public[public.abs().argmax()]
        released = [mechanism(content * torch.ones(40_000, 1)) for content in (100 * outermost, 0 * outermost)]
        frequencies = [float((batch == outermost).float().mean()) for batch in released]
        losses.append(math.log(frequencies[0] / frequencies[1]))
    # The smaller frequency is 1 / 61 or more: a deviation of 4 % of it at most, and of 0.04 of the logarithm.
    assert losses[0] > 2.5
    assert losses[1] < 2.3
