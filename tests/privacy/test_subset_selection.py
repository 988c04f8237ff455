# SPDX-License-Identifier: Apache-2.0
"""Exactly m candidates are favoured, exactly as much as epsilon allows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from monai_cadp.privacy import SubsetSelection, select_candidates
from monai_cadp.privacy.subset_selection import choose_subset_size, mark_best
from monai_cadp.privacy.threshold import acceptance_threshold

# A right mechanism is rejected with probability 1e-7 at most; a control is accepted with less than 1e-7.
ALPHA = 1e-7
COUNT = 40_000
NUM, SIZE, EPSILON = 16, 4, 2.0
SCORES = torch.tensor([3, 1, 1, float("nan"), 1, 0, float("inf"), 1, 2, 9, 9, 5, 4, 7, 1, 6])
BEST = [1, 2, 4, 5]  # the tie between five scores of 1 goes to the first indices


def law_p_value(indices: torch.Tensor) -> float:
    """Test chosen indices for the law of subset selection with SIZE of NUM and EPSILON."""
    law = np.ones(NUM)
    law[BEST] = np.exp(EPSILON)
    return stats.chisquare(torch.bincount(indices, minlength=NUM).numpy(), law / law.sum() * COUNT).pvalue


def chosen(epsilon: float = EPSILON, size: int = SIZE) -> torch.Tensor:
    return select_candidates(SCORES.repeat(COUNT, 1), size, acceptance_threshold(epsilon, NUM, size))


def test_released_indices_have_the_law_that_the_proof_states():
    assert law_p_value(chosen()) > ALPHA


@pytest.mark.parametrize("control", [{"epsilon": EPSILON / 0.9}, {"epsilon": 2 * EPSILON}, {"size": SIZE + 1}])
def test_a_control_that_spends_more_or_marks_more_is_found_out(control):
    assert law_p_value(chosen(**control)) < ALPHA


def test_a_control_that_marks_every_tied_candidate_is_found_out():
    words = torch.rand(COUNT, generator=torch.Generator().manual_seed(0))
    tied = torch.tensor([1, 2, 4, 5, 7, 14])
    others = torch.tensor([i for i in range(NUM) if i not in tied.tolist()])
    inside = words < acceptance_threshold(EPSILON, NUM, SIZE) / 2**64
    pick = torch.randint(2**30, (COUNT,), generator=torch.Generator().manual_seed(1))
    assert law_p_value(torch.where(inside, tied[pick % 6], others[pick % 10])) < ALPHA


@st.composite
def hostile_scores(draw):
    num = draw(st.integers(2, 20))
    entries = st.sampled_from([0.0, -0.0, 1.0, 1e30, -1e30, 3.4e38, float("inf"), float("-inf"), float("nan"), 1e-45])
    rows = draw(st.lists(st.lists(entries, min_size=num, max_size=num), min_size=1, max_size=4))
    return torch.tensor(rows, dtype=torch.float32), draw(st.integers(1, num))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(hostile_scores())
def test_exactly_m_candidates_are_marked_whatever_the_scores_are(case):
    scores, size = case
    assert mark_best(scores, size).sum(1).tolist() == [size] * len(scores)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.data())
def test_the_marked_have_the_smallest_scores_and_among_equals_the_first_indices(scores, data):
    size = data.draw(st.integers(1, len(scores)))
    marks = mark_best(torch.tensor([scores], dtype=torch.float32), size)[0]
    expected = sorted(range(len(scores)), key=lambda j: (scores[j], j))[:size]
    assert marks.nonzero().flatten().tolist() == sorted(expected)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(hostile_scores())
def test_a_choice_is_always_one_of_the_candidates(case):
    scores, size = case
    size = min(size, scores.shape[1] - 1)
    indices = select_candidates(scores, size, acceptance_threshold(1.0, scores.shape[1], size))
    assert bool(((indices >= 0) & (indices < scores.shape[1])).all())


def fidelity(mechanism: SubsetSelection, size: int = 8) -> float:
    latents = torch.randn(4000, size, generator=torch.Generator().manual_seed(3))
    return float((latents * mechanism(latents, torch.Generator().manual_seed(4))).mean())


def test_more_epsilon_keeps_more_content():
    kept = [fidelity(SubsetSelection(epsilon, num_candidates=1024)) for epsilon in (0.1, 1.0, 4.0, 8.0, 24.0)]
    assert kept == sorted(kept)
    assert kept[0] < 0.1
    assert kept[-1] > 0.75


def test_directions_of_larger_weight_are_kept_better():
    mechanism = SubsetSelection(6.0, num_candidates=1024).configured(6, torch.tensor([4.0, 4.0, 4.0, 0.1, 0.1, 0.1]))
    latents = torch.randn(4000, 6, generator=torch.Generator().manual_seed(3))
    kept = (latents * mechanism(latents, torch.Generator().manual_seed(4))).mean(0)
    assert float(kept[:3].min()) > 3 * float(kept[3:].max())


def test_each_direction_comes_back_in_its_own_column_when_blocks_share_epsilon():
    mechanism = SubsetSelection(100.0, num_candidates=4096, num_blocks=5).configured(5)
    latents = torch.randn(500, 5, generator=torch.Generator().manual_seed(3))
    released = mechanism(latents, torch.Generator().manual_seed(4))
    correlation = torch.corrcoef(torch.cat([latents, released], 1).T)[:5, 5:]
    assert float(correlation.diag().min()) > 0.98
    assert float((correlation - correlation.diag().diag()).abs().max()) < 0.25


@pytest.mark.parametrize(("epsilon", "blocks"), [(0.1, 3), (0.7, 7), (25.0, 3), (1.0, 49), (8.0, 1)])
def test_the_blocks_together_never_spend_more_than_epsilon(epsilon, blocks):
    mechanism = SubsetSelection(epsilon, num_candidates=64, num_blocks=blocks, subset_size=5).configured(64)
    assert mechanism.parameters()["num_blocks"] == blocks
    # The law of a block is only seen through its guarantee: a share that is too large would raise the sum.
    shares = mechanism.epsilon_per_block
    assert Fraction(shares) * blocks <= Fraction(epsilon)
    assert shares == pytest.approx(epsilon / blocks, rel=1e-15)


@pytest.mark.parametrize(("epsilon", "blocks"), [(4.0, 1), (10.0, 1), (10.5, 2), (32.0, 4)])
def test_one_block_is_used_for_each_ten_of_epsilon(epsilon, blocks):
    assert SubsetSelection(epsilon, num_candidates=64).parameters()["num_blocks"] == blocks


def test_there_is_no_block_without_a_direction():
    assert SubsetSelection(32.0, num_candidates=64).configured(3).parameters()["num_blocks"] == 3
    with pytest.raises(ValueError, match="epsilon is 50.0 for one choice"):
        SubsetSelection(100.0, num_candidates=64).configured(2)


def test_releases_are_candidates_of_the_public_seed():
    mechanism = SubsetSelection(2.0, num_candidates=8).configured(3)
    released = torch.cat([mechanism(torch.randn(500, 3)), SubsetSelection(2.0, num_candidates=8)(torch.randn(500, 3))])
    assert len(torch.unique(released, dim=0)) == 8
    other = SubsetSelection(2.0, num_candidates=8, seed=1)(torch.randn(500, 3))
    assert len(torch.unique(torch.cat([released, other]), dim=0)) == 16


@pytest.mark.parametrize("entry", [float("nan"), float("inf"), 1e30, 3e38])
def test_hostile_latents_release_a_candidate_and_leave_their_batch_mates_alone(entry):
    mechanism = SubsetSelection(4.0, num_candidates=64).configured(3)
    latents = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    hostile = latents.clone()
    hostile[2] = entry
    before, after = (mechanism(x, torch.Generator().manual_seed(1)) for x in (latents, hostile))
    assert bool(torch.isfinite(after).all())
    keep = [0, 1, 3, 4]
    assert torch.equal(before[keep], after[keep])


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
def test_the_chosen_subset_size_beats_much_smaller_and_much_larger_ones(epsilon):
    latents = torch.randn(4000, 8, generator=torch.Generator().manual_seed(3))

    def kept(size: int | None) -> float:
        mechanism = SubsetSelection(epsilon, num_candidates=1024, subset_size=size).configured(8)
        return float((latents * mechanism(latents, torch.Generator().manual_seed(4))).mean())

    size = SubsetSelection(epsilon, num_candidates=1024).configured(8).parameters()["subset_size"][0]
    assert kept(size) > max(kept(max(1, size // 4)), kept(min(1023, size * 4))) - 0.01
    assert kept(None) == kept(size)


def test_a_small_epsilon_chooses_about_half_of_the_candidates():
    generator = torch.Generator().manual_seed(0)
    targets, candidates = torch.randn(64, 2, generator=generator), torch.randn(500, 2, generator=generator)
    assert 150 < choose_subset_size(targets, candidates, torch.ones(2), 0.01) < 350
    assert choose_subset_size(targets, candidates, torch.ones(2), 12.0) < 10


def test_a_large_batch_is_released_in_parts_with_the_same_law():
    mechanism = SubsetSelection(8.0, num_candidates=2**14).configured(4)
    latents = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    released = mechanism(latents)
    assert released.shape == (300, 4)
    assert float((released * latents).mean()) > 0.5
    assert len(torch.unique(released, dim=0)) > 200


def test_a_traced_module_takes_any_batch_and_draws_afresh():
    mechanism = SubsetSelection(16.0, num_candidates=256).configured(4)
    traced = torch.jit.trace(lambda x: mechanism(x), torch.zeros(2, 4), check_trace=False)
    latents = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
    first, second = traced(latents), traced(latents)
    assert first.shape == (2000, 4)
    assert not torch.equal(first, second)
    expected = float((mechanism(latents) * latents).mean())
    assert float((first * latents).mean()) == pytest.approx(expected, abs=0.1)


def test_tracing_before_configuring_is_refused():
    mechanism = SubsetSelection(1.0, num_candidates=16)
    with pytest.raises(ValueError, match="not configured before it was traced"):
        torch.jit.trace(lambda x: mechanism(x), torch.zeros(2, 4), check_trace=False)


@pytest.mark.parametrize(
    "settings_given",
    [
        {"num_candidates": 1},
        {"num_candidates": 2.0},
        {"num_candidates": True},
        {"num_blocks": 0},
        {"seed": -1},
        {"seed": 2**63},
        {"seed": None},
        {"subset_size": 0},
        {"num_candidates": 8, "subset_size": 8},
        {"epsilon": 50.0, "num_blocks": 1},
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_sentence(settings_given):
    with pytest.raises(ValueError, match=r"^[^\n]* is [^\n]*; expected [^\n]*\.$|at most"):
        SubsetSelection(**{"epsilon": 1.0, **settings_given})
