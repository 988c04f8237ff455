# SPDX-License-Identifier: Apache-2.0
"""Members are found where a network knows them by heart, and not where it does not."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.attacks import likelihood_ratio_scores, membership


def scores(count, seed, gain=0.0):
    return gain + torch.randn(count, generator=torch.Generator().manual_seed(seed))


def test_members_that_are_known_by_heart_are_found_and_strangers_are_not():
    known, unknown = (membership(scores(500, 0, gain), scores(500, 1), num_bootstraps=200) for gain in (2.0, 0.0))
    assert known.auc.low > 0.85 and known.tpr_at_1_percent.value > 0.2
    assert unknown.auc.low < 0.5 < unknown.auc.high and unknown.tpr_at_1_percent.value < 0.05


def test_a_few_members_who_are_surely_told_show_at_low_false_positive_rates():
    members = torch.cat([scores(950, 0), scores(50, 2, gain=20.0)])
    result = membership(members, scores(2000, 1), num_bootstraps=50)
    assert result.auc.value < 0.6 and result.tpr_at_01_percent.value > 0.045


def test_the_interval_is_over_people_with_all_their_images():
    members, others = (torch.repeat_interleave(scores(80, seed, 0.5 * (1 - seed)), 6) for seed in (0, 1))
    people = torch.arange(80).repeat_interleave(6)
    known, unknown = (
        membership(members, others, people=of, num_bootstraps=200).auc for of in ((people, 80 + people), None)
    )
    assert known.value == unknown.value and known.high - known.low > 1.5 * (unknown.high - unknown.low)


def test_somebody_among_members_and_others_is_refused(refused):
    people = torch.arange(3), torch.tensor([3, 2, 4])
    with refused(ValueError, "among members and among others"):
        membership(torch.zeros(3), torch.ones(3), people=people)


def test_at_no_false_positives_the_threshold_is_the_largest_of_the_others():
    result = membership(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0]), num_bootstraps=1)
    assert result.tpr_at_01_percent.value == 0.5 and result.auc.value == 0.75


def shadows(gain, count=400, networks=16, difficulty=10.0):
    """Images differ much more in how hard they are than in what membership adds."""
    generator = torch.Generator().manual_seed(0)
    hard = difficulty * torch.randn(count, generator=generator)
    is_member = torch.rand(networks + 1, count, generator=generator).argsort(0) % 2 == 0
    losses = hard + gain * is_member + 0.3 * torch.randn(networks + 1, count, generator=generator)
    return losses[0], is_member[0], losses[1:], is_member[1:]


def test_the_likelihood_ratio_sees_membership_behind_how_hard_images_are():
    target, truth, others, is_member = shadows(gain=1.0)
    plain = membership(target[truth], target[~truth], num_bootstraps=20)
    ratio = likelihood_ratio_scores(target, others, is_member)
    sharp = membership(ratio[truth], ratio[~truth], num_bootstraps=20)
    assert plain.auc.value < 0.6 and sharp.auc.value > 0.95


def test_the_likelihood_ratio_sees_nothing_where_nothing_is():
    target, truth, others, is_member = shadows(gain=0.0)
    ratio = likelihood_ratio_scores(target, others, is_member)
    result = membership(ratio[truth], ratio[~truth], num_bootstraps=200)
    assert result.auc.low < 0.5 < result.auc.high


def test_the_control_of_members_against_members_says_guessing():
    target, truth, others, is_member = shadows(gain=1.0)
    ratio = likelihood_ratio_scores(target, others, is_member)[truth]
    result = membership(ratio[0::2], ratio[1::2], num_bootstraps=200)
    assert result.auc.low < 0.5 < result.auc.high


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: membership(torch.zeros(0), torch.zeros(3)), "one each at least"),
        (lambda: membership(torch.tensor([float("nan")]), torch.zeros(3)), "NaN"),
        (lambda: likelihood_ratio_scores(torch.zeros(3), torch.zeros(4, 2), torch.ones(4, 2) > 0), "expected"),
        (lambda: likelihood_ratio_scores(torch.zeros(2), torch.zeros(4, 2), torch.ones(4, 2) > 0), "two of each"),
    ],
)
def test_what_cannot_be_attacked_is_refused(refused, call, match):
    with refused(ValueError, match):
        call()
