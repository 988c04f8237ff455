# SPDX-License-Identifier: Apache-2.0
"""Who is in a set of releases is told as well as the releases tell it, and not by being like many."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.attacks import membership, set_membership_scores

CANDIDATES, RELEASED, OTHERS = 60, 30, 50


def people(seed=0):
    """Candidates, and people of whom nobody is a candidate, as directions."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(torch.randn(CANDIDATES + OTHERS, 16, generator=generator), dim=1)
    return vectors[:CANDIDATES], vectors[CANDIDATES:]


def area(candidates, released, others):
    scores = set_membership_scores(candidates @ released.T, candidates @ others.T)
    return membership(scores[:RELEASED], scores[RELEASED:], num_bootstraps=200).auc


def test_who_is_released_is_found_in_the_set_in_any_order():
    candidates, others = people()
    order = torch.randperm(RELEASED, generator=torch.Generator().manual_seed(1))
    found = area(candidates, candidates[:RELEASED][order], others)
    assert found.value == 1.0 and found == pytest.approx(area(candidates, candidates[:RELEASED], others))


def test_nobody_is_found_among_releases_of_others():
    candidates, others = people()
    strangers, _ = people(seed=2)
    found = area(candidates, strangers[:RELEASED], others)
    assert found.low < 0.5 < found.high


def test_being_like_everybody_is_no_sign_of_membership():
    """One candidate is as like all releases, of the set and of others, as another is unlike them."""
    similarity = torch.tensor([[0.9, 0.9], [-0.9, -0.9]])
    assert set_membership_scores(similarity, similarity).tolist() == pytest.approx([0.0, 0.0])


def test_similarities_that_do_not_fit_are_refused(refused):
    for similarity, reference in ((torch.ones(2, 0), torch.ones(2, 3)), (torch.ones(2, 3), torch.ones(3, 3))):
        with refused(ValueError, "expected \\(c, n\\) and \\(c, m\\)"):
            set_membership_scores(similarity, reference)
