# SPDX-License-Identifier: Apache-2.0
"""Audits contradict every broken promise and no kept one.

Flake rates: an honest mechanism is contradicted with probability 1e-6 at most, which is the failure rate of each audit.
A control is missed with less: the trials are so many that its bound is expected five of its deviations above the claim,
or four in each of four games.
"""

from __future__ import annotations

import math

import pytest
import torch

from monai_cadp import Privatizer
from monai_cadp.attacks import all_controls, audit_mechanism, audit_releaser
from monai_cadp.attacks.suite import shipped_privatizers, small_privatizer
from monai_cadp.networks import ConditionalINN, ContentBasis
from monai_cadp.privacy import (
    AttributeResponse,
    GaussianMechanism,
    LaplaceMechanism,
    PriorOnly,
    RandomizedResponse,
    SubsetSelection,
)

pytestmark = pytest.mark.slow

CONTROLS = {control.name: control for control in all_controls()}
# Trials of each input in every game: many in each call, and one in each call.
TRIALS = {
    "C for 2 C, Laplace": (4000, 20),
    "C for 2 C, Gaussian": (4000, 20),
    "noise x 0.8, Laplace": (24_000, 20),
    "noise x 0.8, Gaussian": (10_000, 20),
    "m depends on the image": (20_000, 20),
    "noise reused across images": (20, 300),
    "one NaN in the batch": (20, 300),
    "clip by the norm of the batch": (20, 600),
}

# Several controls have the same honest version; each is audited as that one of them that needs the most trials.
HONEST = (
    "noise x 0.8, Laplace",
    "noise x 0.8, Gaussian",
    "m depends on the image",
    "one NaN in the batch",
    "clip by the norm of the batch",
)


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_is_caught(name):
    assert audit_mechanism(CONTROLS[name].broken, *TRIALS[name]).is_contradicted


@pytest.mark.parametrize("name", HONEST)
def test_no_honest_version_of_a_control_is_contradicted(name):
    assert not audit_mechanism(CONTROLS[name].honest, *TRIALS[name]).is_contradicted


def test_the_honest_versions_above_are_those_of_all_controls():
    def described(mechanism):
        return mechanism.num_directions, repr(mechanism)

    assert {described(control.honest) for control in CONTROLS.values()} == {
        described(CONTROLS[name].honest) for name in HONEST
    }


@pytest.mark.parametrize(
    "mechanism",
    [SubsetSelection(8.0, num_candidates=64), RandomizedResponse(8.0, 3)],
    ids=["SubsetSelection", "RandomizedResponse"],
)
def test_with_enough_trials_most_of_an_epsilon_of_8_is_measured_and_no_more_than_all(mechanism):
    result = audit_mechanism(mechanism, trials_alone=20)
    # The lower number is five deviations of the measured one below what is expected of it.
    assert 6.8 < result.measured <= 8.0 < result.ceiling


@pytest.mark.parametrize(
    ("mechanism", "low"),
    [
        (SubsetSelection(2.0, num_candidates=64), 1.2),
        (LaplaceMechanism(2.0, 1.0), 1.0),
        (GaussianMechanism(2.0, 1e-5, 1.0), 0.3),
        (RandomizedResponse(2.0, 3), 1.2),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "epsilon") else None,
)
def test_what_is_measured_of_an_honest_mechanism_is_close_below_its_promise(mechanism, low):
    # Below: but for 1e-6. Close: each is at least six of its deviations above the lower number.
    assert low < audit_mechanism(mechanism, 4000, 20, num_directions=1).measured <= 2.0


def test_nothing_is_measured_of_a_mechanism_that_releases_nothing():
    assert audit_mechanism(PriorOnly(), 2000, 20).measured == 0.0


# --- end to end -------------------------------------------------------------------------------------------------------


PRIVATIZERS = {**shipped_privatizers(0.0), **shipped_privatizers(2.0)}


@pytest.mark.parametrize("name", PRIVATIZERS)
def test_no_privatizer_is_contradicted_from_image_to_image(name):
    privatizer = PRIVATIZERS[name]
    result = audit_releaser(privatizer, 1000, 20)
    assert not result.is_contradicted
    # The attack sees what is released; only Gaussian noise hides in so few trials.
    assert (result.measured > 0) == (name not in ("PriorOnly", "GaussianMechanism")) or name == "GaussianMechanism"


@pytest.mark.parametrize(
    ("name", "trials"),
    [
        ("C for 2 C, Laplace", (3000, 20)),
        ("C for 2 C, Gaussian", (1000, 20)),
        ("noise reused across images", (400, 20)),
        ("m depends on the image", (8000, 20)),
    ],
)
def test_a_control_is_caught_behind_a_network_too(name, trials):
    assert audit_releaser(small_privatizer(CONTROLS[name].broken), *trials).is_contradicted


def test_a_privatizer_lets_no_nan_reach_a_mechanism_that_trusts_its_input():
    control = CONTROLS["one NaN in the batch"]
    assert not control.reaches_images
    assert not audit_releaser(small_privatizer(control.broken), 400, 20).is_contradicted


# So many that what is measured lies several deviations above 0.
@pytest.mark.parametrize(("epsilon", "trials"), [(0.5, 6000), (2.0, 3000)])
def test_attributes_that_are_answered_are_attacked_and_those_that_are_kept_are_public(epsilon, trials):
    torch.manual_seed(0)
    inn = ConditionalINN((4, 4), 1, condition_size=3, rank=4, num_couplings=1, width=8)
    response = AttributeResponse(epsilon, 3, kept=[1])
    privatizer = Privatizer(inn, PriorOnly(), ContentBasis.leading(inn, 2), label_mechanism=response)
    assert 0 < audit_releaser(privatizer, trials, 20).measured <= epsilon


class KeepsTheRest(Privatizer):
    """Completes the content by what is left of the original, and not by fresh noise."""

    def _release_directions(self, x, condition):
        z, _ = self.inn.encode(x, condition)
        return self.inn.decode(self.content.complete(self.mechanism(self.content.project(z)), z), condition)


class EncodesTheTrueLabel(Privatizer):
    """Randomizes the label only after the image was encoded and decoded with the true one."""

    def draw(self, x, condition, subjects=None, items=None):
        randomized, self.label_mechanism = self.label_mechanism, None
        try:
            released, _ = super().draw(x, condition)
        finally:
            self.label_mechanism = randomized
        return released, randomized(condition)


def parts(num_classes=None):
    torch.manual_seed(0)
    inn = ConditionalINN((4, 4), 1, num_classes, num_levels=0, rank=8, num_couplings=2, width=8)
    inn.whitening.inside.mean += 5 * torch.randn_like(inn.whitening.inside.mean)
    return inn, PriorOnly(), ContentBasis.leading(inn, 2)


def test_a_leak_past_the_mechanism_is_caught():
    assert audit_releaser(KeepsTheRest(*parts()), 1000, 20).is_contradicted
    assert not audit_releaser(Privatizer(*parts()), 1000, 20).is_contradicted


def test_a_private_label_that_shows_in_the_pixels_is_caught():
    label = RandomizedResponse(1.0, 3)
    assert audit_releaser(EncodesTheTrueLabel(*parts(3), label_mechanism=label), 2000, 20).is_contradicted
    assert not audit_releaser(Privatizer(*parts(3), label_mechanism=label), 2000, 20).is_contradicted


@pytest.mark.parametrize("options", [{"condition": 2}, {"condition": [0.5, -1.0]}, {}])
def test_every_kind_of_public_condition_is_audited(options):
    condition = options.get("condition")
    kind = {"num_classes": 3} if condition == 2 else {"condition_size": 2} if condition else {}
    inn = ConditionalINN((), 3, **kind, num_couplings=1, width=4)
    privatizer = Privatizer(inn, SubsetSelection(1.0, num_candidates=16), ContentBasis.leading(inn, 2), **options)
    result = audit_releaser(privatizer, 400, 20)
    assert (result.name, result.level, result.epsilon) == ("SubsetSelection", "image", 1.0)
    assert not result.is_contradicted


# --- what an audit says -----------------------------------------------------------------------------------------------


def test_an_audit_says_what_was_counted():
    result = audit_mechanism(RandomizedResponse(1.0, 3), 400, 20, failure_rate=1e-3, name="label")
    said = result.to_dict()
    assert (said["name"], said["level"], said["epsilon"], said["delta"]) == ("label", "latent", 1.0, 0.0)
    assert [game["game"] for game in said["games"]] == ["label 0 or 1"] * 2 + ["label 0 or 2"] * 2
    assert [game["positives"] for game in said["games"]] == [200, 10, 200, 10]
    assert [game["trials_per_call"] for game in said["games"]] == [1000, 1, 1000, 1]
    assert said["measured"] == max(game["epsilon"] for game in said["games"])
    assert said["failure_rate"] == 1e-3 and said["contradicted"] is False


def test_too_few_trials_could_contradict_nothing_and_the_ceiling_says_so():
    result = audit_mechanism(SubsetSelection(8.0, num_candidates=64), 400, 20)
    assert not result.is_contradicted and result.ceiling < 8.0


def test_the_failure_rate_is_shared_by_all_games():
    few, many = (audit_mechanism(RandomizedResponse(1.0, classes), 400, 20) for classes in (2, 9))
    assert many.ceiling < few.ceiling


@pytest.mark.parametrize("trials", [(19, 100), (100, 19)])
def test_too_few_trials_to_choose_and_count_are_refused(refused, trials):
    with refused(ValueError, "19 trials were asked for"):
        audit_mechanism(PriorOnly(), *trials)
    assert math.isfinite(audit_mechanism(PriorOnly(), 20, 20).ceiling)


def test_attributes_that_spend_epsilon_each_are_caught_and_those_that_share_it_are_not():
    honest = AttributeResponse(1.0, num_attributes=4, kept=[2])
    control = AttributeResponse(1.0, num_attributes=4, kept=[2])
    vars(control)["response"] = RandomizedResponse(1.0, 2)
    assert not audit_mechanism(honest, trials=20_000, trials_alone=100).is_contradicted
    assert audit_mechanism(control, trials=20_000, trials_alone=100).is_contradicted
