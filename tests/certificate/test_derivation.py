# SPDX-License-Identifier: Apache-2.0
"""The second derivation finds what the first has stated, and refuses less."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import product

import pytest

from monai_cadp.certificate.derivation import derived, derived_set
from monai_cadp.certificate.document import CertificateError, parsed
from monai_cadp.certificate.shuffled import Choice, set_delta
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
from monai_cadp.privacy.threshold import acceptance_threshold
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
    "attributes": AttributeResponse(3.0, num_attributes=5, kept=[1]).guarantee(public=("attribute 1",)),
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
    found = derived_set(plain(whole), plain(local), size, "set").epsilon
    assert 0.99 * whole.epsilon < found <= float(whole.epsilon) * (1 + 1e-15)
    with pytest.raises(CertificateError, match=f"{size} shuffled releases give"):
        derived_set(plain(replace(whole, epsilon=0.3 * whole.epsilon)), plain(local), size, "set")
    with pytest.raises(CertificateError, match=f"there are {size - 1}"):
        derived_set(plain(whole), plain(local), size - 1, "set")


def test_the_bound_of_a_small_set_may_be_loose_and_what_it_needs_is_found():
    """Where few hide, the first bound lets neighbouring sums share a law, to the safe side; the second one does not."""
    local = SubsetSelection(8.0, num_candidates=2**14, subset_size=10).configured(4).guarantee()
    whole = local.shuffled(50, delta=0.01)
    found = float(derived_set(plain(whole), plain(local), 50, "set").epsilon)
    choice = Choice(2**14, 10, int(local.parameters["thresholds"][0]))
    assert delta_by_enumeration(found, choice, 50) <= 0.01 < delta_by_enumeration(0.998 * found, choice, 50)
    assert 0.98 * whole.epsilon < found < 0.995 * whole.epsilon
    derived_set(plain(replace(whole, epsilon=found)), plain(local), 50, "set")
    with pytest.raises(CertificateError, match="50 shuffled releases give"):
        derived_set(plain(replace(whole, epsilon=0.99 * found)), plain(local), 50, "set")


def delta_by_enumeration(epsilon, choice, count):
    """The mean of the theorem, every outcome listed: how often each of the values of J is drawn."""
    num, size, threshold = choice
    ratio, other = math.exp(epsilon), (2**64 - threshold) / (2**64 * (num - size))
    local, apart = threshold / 2**64 / size / other, min(size, num - size)
    values = [local - ratio, 1 - ratio * local, (1 - ratio) * (1 if 2 * size <= num else local), 0]
    chances = [apart * other, apart * other, (num - 2 * apart) * other]
    chances.append(max(1 - sum(chances), 0.0))
    total = 0.0
    for first, second, third in product(range(count + 1), repeat=3):
        numbers = [first, second, third, count - first - second - third]
        gain = sum(number * value for number, value in zip(numbers, values, strict=True))
        if numbers[-1] >= 0 and gain > 0:
            ways = math.factorial(count) // math.prod(map(math.factorial, numbers))
            total += gain * ways * math.prod(chance**number for chance, number in zip(chances, numbers, strict=True))
    return total / count


@pytest.mark.parametrize("count", [2, 15])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize(
    ("local", "num", "size"),
    [(0.1, 2, 1), (1.0, 7, 1), (1.0, 7, 5), (4.0, 64, 2), (8.0, 2**14, 10), (12.0, 2**24, 3), (20.0, 3, 1)],
)
def test_the_delta_of_a_set_is_that_of_all_its_outcomes_and_not_below(local, num, size, share, count):
    choice = Choice(num, size, acceptance_threshold(local, num, size))
    exact = delta_by_enumeration(share * local, choice, count)
    assert (1 - 1e-6) * exact <= set_delta(share * local, local, count, choice) <= 1.03 * exact


@pytest.mark.parametrize("local", [25.0, 39.0])
def test_a_release_that_hardly_hides_is_certified_for_a_set_with_its_own_epsilon_alone(local):
    one = RandomizedResponse(local, num_classes=7).guarantee()
    whole = one.shuffled(1000, delta=1e-6)
    assert 0.999 * whole.epsilon < float(derived_set(plain(whole), plain(one), 1000, "set").epsilon) <= local
    with pytest.raises(CertificateError, match="local epsilons up to 24"):
        derived_set(plain(replace(whole, epsilon=0.9 * local)), plain(one), 1000, "set")


def test_a_choice_that_prefers_what_is_not_marked_hides_like_its_mirror_image():
    """The same law, told by the unmarked candidates; taken as it is, it would seem to hide better."""
    local = subset(4.0)
    size, threshold = local.parameters["subset_size"][0], int(local.parameters["thresholds"][0])
    mirrored = {**local.parameters, "subset_size": [64 - size], "thresholds": [str(2**64 - threshold)]}
    whole = local.shuffled(400, delta=1e-4)
    other = replace(local, parameters=mirrored)
    claimed = replace(whole, parameters={"num_releases": 400, "local": other.to_dict()})
    derived_set(plain(claimed), plain(other), 400, "set")
    with pytest.raises(CertificateError, match="400 shuffled releases give"):
        derived_set(plain(replace(claimed, epsilon=0.98 * whole.epsilon)), plain(other), 400, "set")


def test_attributes_that_are_kept_are_stated_as_public_and_are_not_all():
    card = plain(GUARANTEES["attributes"])
    with pytest.raises(CertificateError, match=r"card\.public lacks 'attribute 1', which is released as it is"):
        derived({**card, "public": []}, "card")
    names = [f"attribute {index}" for index in range(5)]
    all_kept = {**card["parameters"], "kept": list(range(5))}
    with pytest.raises(CertificateError, match="not of all of them"):
        derived({**card, "parameters": all_kept, "public": names, "epsilon": "0.0"}, "card")


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("training_data", TrainingData.unprotected().to_dict(), "training_data lacks a training of"),
        ("public", ["name"], "public lacks a fact that is public in"),
        ("fingerprint", "another network", "fingerprint is not that of"),
        ("training_data", {**TrainingData.unprotected().to_dict(), "protection": "public"}, "events are 'unprotected'"),
    ],
)
def test_a_composition_says_no_less_than_its_parts_of_anything(field, value, match):
    part = subset(1.0)
    parts = [replace(part, training_data=TrainingData.public(), fingerprint="this network")] * 2
    whole = plain(compose(parts))
    derived(whole, "card")
    whole["parameters"]["parts"][1][field] = value
    with pytest.raises(CertificateError, match=match):
        derived(whole, "card")


def test_a_composition_within_another_states_no_false_number():
    inner = compose([subset(1.0), subset(2.0)])
    false = plain(compose([inner, subset(0.5)]))
    derived(false, "card")
    false["parameters"]["parts"][0]["epsilon"] = "0.1"
    with pytest.raises(CertificateError, match=r"card\.parameters\.parts\.0 states less than its 2 parts"):
        derived(false, "card")


@pytest.mark.parametrize(
    "text", ["\u0664.0", " 4.0", "+4.0", "04.0", "4.", ".5e1", "-0.0", "1e-400", "inf", "NaN", True]
)
def test_a_number_is_written_as_json_writes_it(text):
    with pytest.raises(CertificateError, match="is not a number of 0 or more"):
        derived({**plain(GUARANTEES["one choice"]), "epsilon": text}, "card")


def test_a_zero_with_an_exponent_without_end_is_read_at_once():
    card = {**plain(PriorOnly().guarantee()), "epsilon": "0.0e999999999"}
    code = f"from monai_cadp.certificate.derivation import derived; assert derived({card!r}, 'card').epsilon == 0"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(("name", "parameter"), [("Laplace noise", "norm"), ("one choice", "num_blocks")])
def test_true_is_no_parameter_of_a_mechanism(name, parameter):
    card = plain(GUARANTEES[name])
    assert card["parameters"][parameter] == 1
    card["parameters"][parameter] = True
    with pytest.raises(CertificateError, match="is not an integer"):
        derived(card, "card")


@pytest.mark.parametrize(("epsilon", "delta"), [("0.0", "1e-16"), ("1e-12", "1e-200")])
def test_an_epsilon_for_which_floats_are_too_coarse_is_not_derived_from_them(epsilon, delta):
    """The formula gave 0, and 1e-12, where delta is 1.3e-14, and 1e-85."""
    noise = {"0.0": 2 * 3.16e13, "1e-12": 2 * 1.78e13}[epsilon]
    card = plain(GaussianMechanism(1e-9, 0.1, clipping_bound=1.0).guarantee())
    derived(card, "card")
    card["parameters"]["noise_deviation"] = repr(noise)
    with pytest.raises(CertificateError, match=r"but its noise gives 1e-09"):
        derived({**card, "epsilon": epsilon, "delta": delta}, "card")


def record(**changes):
    sums = [NoisySums(4.0, replacement=2**0.5), NoisySums(2.0, 0.04, 20)]
    stated = {"epsilon": training_epsilon(sums, 1e-5), "delta": 1e-5, "unit": "image", "sums": [list(s) for s in sums]}
    return parsed(json.dumps(TrainingData.dp(**{**stated, **changes}).to_dict()).encode(), "record")


def test_a_private_training_is_found_again():
    assert "derived by dp_accounting" in derived_training(record(), "record")
    assert "stated, not derived" in derived_training(record(sums=None), "record")


def test_what_is_said_of_a_private_training_is_not_below_what_was_found():
    found = derived_training(record(sums=None, epsilon=0.453629511, delta=1.0000001e-6, relation="other"), "record")
    assert found.startswith("dp: epsilon 0.90726, delta 2.57402e-06 for")
    assert derived_training(record(sums=None, epsilon=4.0), "record").startswith("dp: epsilon 4, delta 1e-05 for")


def test_a_training_that_states_less_than_its_sums_is_refused():
    with pytest.raises(CertificateError, match=r"events\.0\.guarantee states epsilon 1, but its sums give"):
        derived_training(record(epsilon=1.0), "record")


@pytest.mark.parametrize(("name", "value"), [("epsilon", "0.1"), ("delta", "1e-9"), ("unit", "patient")])
def test_a_record_that_states_less_than_its_events_is_refused(name, value):
    changed = record()
    changed["guarantee"][name] = value
    with pytest.raises(CertificateError, match="record.guarantee"):
        derived_training(changed, "record")


@pytest.mark.parametrize("count", [1, 2])
def test_a_training_with_a_delta_of_1_is_not_called_protected(count):
    """TrainingData calls it unprotected."""
    changed = record(sums=None)
    delta, (event,) = {1: "1.5", 2: "0.6"}[count], changed["events"]
    changed["events"] = [
        {**event, "identity": str(index), "guarantee": {**event["guarantee"], "delta": delta}} for index in range(count)
    ]
    changed["guarantee"] |= {"epsilon": "100.0", "delta": "1.5"}
    with pytest.raises(CertificateError, match="1 or more"):
        derived_training(changed, "record")


def test_no_guarantee_stands_beside_an_unprotected_training():
    changed = parsed(json.dumps(TrainingData.unprotected().to_dict()).encode(), "record")
    with pytest.raises(CertificateError, match=r"record\.guarantee is given for unprotected data"):
        derived_training({**changed, "guarantee": record()["guarantee"]}, "record")


def test_an_unprotected_training_is_not_called_protected():
    changed = parsed(json.dumps(TrainingData.unprotected().to_dict()).encode(), "record")
    assert derived_training(changed, "record").startswith("unprotected")
    with pytest.raises(CertificateError, match="its events are 'unprotected'"):
        derived_training({**changed, "protection": "public"}, "record")
