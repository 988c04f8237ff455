# SPDX-License-Identifier: Apache-2.0
"""The members of a network that was overfitted are found, and nobody where members are told from members."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.data import Digits
from monai_cadp.networks import ConditionalINN
from monai_cadp.studies import NetworkMembership, NetworkTraining
from monai_cadp.studies.variant import Split

pytestmark = pytest.mark.slow


def digits(split):
    items = list(Digits(split))
    return Split(torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items]))


@pytest.fixture(scope="module")
def rows():
    torch.manual_seed(0)
    network = ConditionalINN((8, 8), 1, num_classes=10)
    training = NetworkTraining(network, "public", max_epochs=1, learning_rate=0.002)
    attack = NetworkMembership(num_overfitted=100, epochs=6)
    found = attack(network, training, digits("train"), digits("test"))
    return {(row["network"], row["attack"]): row for row in found}


def test_an_overfitted_network_gives_its_members_away_and_most_to_shadow_networks(rows):
    by_likelihood = rows["a network overfitted on purpose", "likelihood"]
    by_ratio = rows["a network overfitted on purpose", "likelihood ratio, with shadow networks"]
    assert by_likelihood["auc"]["interval"][0] > 0.7 and by_ratio["auc"]["value"] > by_likelihood["auc"]["value"]
    found = [row["tpr_at_1_percent"]["value"] for row in (by_likelihood, by_ratio)]
    assert found[1] > found[0] + 0.2


def test_nobody_is_found_in_a_network_that_has_learnt_nothing_and_by_the_control(rows):
    for name in ("the study's network", "control: members from members"):
        low, high = rows[name, "likelihood"]["auc"]["interval"]
        # Classes are not shared out evenly among the sets.
        assert low - 0.03 < 0.5 < high + 0.03


def test_intervals_are_over_people_and_the_control_shares_them_out_whole():
    """Every image four times: as those of one person, and as if of four people."""
    train, test = (Split(*(part[:40].repeat_interleave(4, 0) for part in digits(name))) for name in ("train", "test"))
    torch.manual_seed(0)
    network = ConditionalINN((8, 8), 1, num_classes=10)
    training = NetworkTraining(network, "public", max_epochs=1, learning_rate=0.002)
    attack, people = NetworkMembership(num_overfitted=40, epochs=1), torch.arange(40).repeat_interleave(4)
    known, unknown = (
        {(row["network"], row["attack"]): row["auc"] for row in attack(network, training, train, test, people=of)}
        for of in ((people, people), (None, None))
    )
    assert known.keys() == unknown.keys() and len(known) == 4
    # Of the overfitted network there is nothing to be uncertain of.
    for name in list(known)[:2]:
        assert known[name]["value"] == unknown[name]["value"]
        width, narrow = (high - low for low, high in (of[name]["interval"] for of in (known, unknown)))
        assert width > 1.4 * narrow


def test_every_image_must_be_known_and_unknown_to_two_shadows():
    with pytest.raises(ValueError, match="2 or more"):
        NetworkMembership(num_shadow_pairs=1)
