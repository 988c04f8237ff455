# SPDX-License-Identifier: Apache-2.0
"""The second derivation finds what the first has stated, and refuses less."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from monai_cadp.certificate.derivation import derived, derived_set
from monai_cadp.certificate.document import CertificateError, parsed
from monai_cadp.certificate.training import derived_training
from monai_cadp.privacy import (
    AttributeResponse,
    GaussianMechanism,
    LaplaceMechanism,
    PriorOnly,
    RandomizedResponse,
    SubsetSelection,
    TrainingData,
    compose,
)
from monai_cadp.privacy.training_accounting import NoisySums, training_epsilon


def plain(guarantee):
    return parsed(guarantee.to_json().encode(), "a card")


def subset(epsilon, blocks=None, num=64):
    return SubsetSelection(epsilon, num_candidates=num, num_blocks=blocks).configured(4).guarantee()


GUARANTEES = {
    "one choice": subset(4.0),
    "a small epsilon": subset(0.1),
    "blocks": subset(25.0, blocks=3),
    "a label": RandomizedResponse(1.0, num_classes=7).guarantee(),
    "attributes": AttributeResponse(3.0, num_attributes=5, kept=[1]).guarantee(),
    "Laplace noise": LaplaceMechanism(2.7, clipping_bound=3.3).guarantee(),
    "Gaussian noise": GaussianMechanism(2.0, 1e-5, clipping_bound=1.7).guarantee(),
    "an image and its label": compose([subset(4.0), RandomizedResponse(0.3, num_classes=3).guarantee()]),
    "noise and a label": compose(
        [GaussianMechanism(8.0, 1e-6, 2.0).guarantee(), RandomizedResponse(1.0, 2).guarantee()]
    ),
    "slices": compose([subset(0.5)] * 30, 1e-6, unit="volume"),
    "noisy slices": compose([GaussianMechanism(1.0, 1e-6, 2.0).guarantee()] * 30, 1e-5, unit="volume"),
}


@pytest.mark.parametrize("name", GUARANTEES)
def test_what_a_mechanism_states_is_found_again(name):
    guarantee = GUARANTEES[name]
    found = derived(plain(guarantee), name)
    assert found.delta <= guarantee.delta + 1e-15
    assert 0.9 * guarantee.epsilon < found.epsilon <= float(guarantee.epsilon) * (1 + 1e-15)


@pytest.mark.parametrize("name", GUARANTEES)
def test_a_hundredth_less_is_refused(name):
    guarantee = GUARANTEES[name]
    with pytest.raises(CertificateError, match=f"^{name} states"):
        derived(plain(replace(guarantee, epsilon=0.9 * guarantee.epsilon)), name)


def test_nothing_of_the_content_has_an_epsilon_of_0():
    assert derived(plain(PriorOnly().guarantee()), "card").epsilon == 0


@pytest.mark.parametrize("name", ["one choice", "a label", "attributes", "Laplace noise"])
def test_a_card_without_integers_is_not_certified(name):
    card = plain(GUARANTEES[name])
    for key in ("thresholds", "threshold", "lattice_scale"):
        card["parameters"].pop(key, None)
    with pytest.raises(CertificateError, match=r"lacks|threshold is not"):
        derived(card, "card")


@pytest.mark.parametrize("size", [50, 400])
@pytest.mark.parametrize("one", ["one choice", "a label", "an image and its label"])
def test_the_number_of_a_set_is_found_again_and_less_is_refused(one, size):
    local = GUARANTEES[one]
    whole = local.shuffled(size, delta=1e-4)
    assert float(derived_set(plain(whole), plain(local), size, "set").epsilon) == whole.epsilon
    with pytest.raises(CertificateError, match=f"{size} shuffled releases give"):
        derived_set(plain(replace(whole, epsilon=0.3 * whole.epsilon)), plain(local), size, "set")
    with pytest.raises(CertificateError, match=f"there are {size - 1}"):
        derived_set(plain(whole), plain(local), size - 1, "set")


def record(**changes):
    sums = [NoisySums(4.0, replacement=2**0.5), NoisySums(2.0, 0.04, 20)]
    stated = {"epsilon": training_epsilon(sums, 1e-5), "delta": 1e-5, "unit": "image", "sums": [list(s) for s in sums]}
    return parsed(json.dumps(TrainingData.dp(**{**stated, **changes}).to_dict()).encode(), "record")


def test_a_private_training_is_found_again():
    assert "derived by dp_accounting" in derived_training(record(), "record")
    assert "stated, not derived" in derived_training(record(sums=None), "record")


def test_a_training_that_states_less_than_its_sums_is_refused():
    with pytest.raises(CertificateError, match=r"events\.0\.guarantee states epsilon 1, but its sums give"):
        derived_training(record(epsilon=1.0), "record")


@pytest.mark.parametrize(("name", "value"), [("epsilon", "0.1"), ("delta", "1e-9"), ("unit", "patient")])
def test_a_record_that_states_less_than_its_events_is_refused(name, value):
    changed = record()
    changed["guarantee"][name] = value
    with pytest.raises(CertificateError, match="record.guarantee"):
        derived_training(changed, "record")


def test_an_unprotected_training_is_not_called_protected():
    changed = parsed(json.dumps(TrainingData.unprotected().to_dict()).encode(), "record")
    assert derived_training(changed, "record").startswith("unprotected")
    with pytest.raises(CertificateError, match="its events are 'unprotected'"):
        derived_training({**changed, "protection": "public"}, "record")
