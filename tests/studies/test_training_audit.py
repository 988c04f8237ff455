# SPDX-License-Identifier: Apache-2.0
"""Canaries come close to what private training claims, never above it, and find trainings that break it.

Flake rates: a kept claim is contradicted with a probability of 1e-6 by many canaries, and of 0.01 by those of one run
if the bound were tight, which it is not: it stays at half of the claim. Controls are caught by far.
"""

from __future__ import annotations

import pytest
import torch

from monai_cadp.privacy.noisy_sum import SumLattice
from monai_cadp.studies.training_audit import audit_moments, audit_training
from monai_cadp.studies.training_controls import BROKEN_MOMENTS, BROKEN_TRAINERS

pytestmark = pytest.mark.slow

EPSILON = 4.0


@pytest.fixture(scope="module")
def honest():
    return audit_training(EPSILON, runs=6, canaries=2000)


def test_canaries_of_private_training_come_close_to_the_claim_and_stay_below_it(honest):
    assert 0.6 * EPSILON < honest.measured <= EPSILON
    assert 0.1 * EPSILON < honest.one_run <= EPSILON
    assert not honest.is_contradicted and honest.canaries == honest.positives + honest.negatives == 9600


@pytest.mark.parametrize("name", BROKEN_TRAINERS)
def test_trainings_that_break_their_promise_are_caught(name):
    result = audit_training(EPSILON, runs=2, canaries=800, trainer=BROKEN_TRAINERS[name])
    assert result.is_contradicted and result.measured > EPSILON


def test_canaries_of_private_moments_come_close_to_the_claim_and_stay_below_it():
    assert 0.6 * EPSILON < audit_moments(EPSILON, runs=800).measured <= EPSILON


@pytest.mark.parametrize("name", BROKEN_MOMENTS)
def test_moments_that_break_their_promise_are_caught(name):
    assert audit_moments(EPSILON, runs=60, moments=BROKEN_MOMENTS[name]).measured > EPSILON


def test_a_training_without_noise_is_caught_by_its_first_run_alone(monkeypatch):
    monkeypatch.setattr(SumLattice, "noise", lambda self, like, *_: torch.zeros_like(like, dtype=torch.int64))
    result = audit_training(1.0, runs=1, canaries=400)
    assert result.one_run > 1.0 and result.to_dict()["contradicted"]


def test_more_canaries_than_parameters_are_refused(refused):
    with refused(ValueError, "give fewer"):
        audit_training(EPSILON, runs=1, canaries=10**6)
