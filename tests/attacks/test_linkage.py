# SPDX-License-Identifier: Apache-2.0
"""People of whom there are several images are linked by what their images have in common, and by nothing else."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import roc_auc_score

from monai_cadp.attacks import edge_features, linkage, train_verification

PEOPLE = torch.arange(40).repeat_interleave(3)


def films(people, seed, identity=1.0, size=32):
    """Films with a few bars a person, at places of their own, under noise."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.nn.functional.interpolate(
        torch.randn(int(people.max()) + 1, 1, 6, 6, generator=generator), size=size, mode="bicubic"
    )
    return identity * patterns[people] + 0.3 * torch.randn(len(people), 1, size, size, generator=generator)


def own(people):
    return torch.eye(len(people), dtype=torch.bool)


def test_films_of_one_person_are_linked_by_their_edges():
    features = edge_features(films(PEOPLE, 0))
    result = linkage(features @ features.T, PEOPLE, PEOPLE, left_out=own(PEOPLE), num_bootstraps=50)
    assert result.top_1.low > 0.9 and result.auc.low > 0.9
    assert result.guess == pytest.approx(2 / 119)


def test_exposure_and_contrast_do_not_count():
    seen = films(PEOPLE, 0)
    brighter = 0.2 + seen * torch.linspace(0.3, 3, len(seen))[:, None, None, None]
    assert (edge_features(brighter) * edge_features(seen)).sum(1).min() > 0.99


def test_nobody_is_linked_where_there_is_nothing_in_common():
    features = edge_features(films(PEOPLE, 0, identity=0.0))
    result = linkage(features @ features.T, PEOPLE, PEOPLE, left_out=own(PEOPLE), num_bootstraps=200)
    assert result.auc.low < 0.5 < result.auc.high
    assert result.top_1.low <= result.guess <= result.top_1.high


def test_the_area_is_that_over_all_pairs_that_count():
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(120, 120, generator=generator)
    counted = ~own(PEOPLE)
    found = linkage(similarity, PEOPLE, PEOPLE, left_out=own(PEOPLE), num_bootstraps=2).auc.value
    same = PEOPLE[:, None] == PEOPLE
    assert found == pytest.approx(roc_auc_score(same[counted], similarity[counted]))


def test_who_knows_the_class_alone_guesses_where_pairs_are_balanced():
    """Images of the small class are alike: it has more of the pairs of one person than of those of two."""
    labels = (torch.arange(60) < 10).long()
    similarity = labels[:, None] * labels + 0.0
    apart = labels[:, None] != labels
    plain, balanced = (
        linkage(similarity, torch.arange(60), torch.arange(60), left_out=apart, balanced=of, num_bootstraps=50)
        for of in (False, True)
    )
    assert plain.auc.value > 0.55 and balanced.auc.value == pytest.approx(0.5)
    assert balanced.top_1 == plain.top_1


def test_balancing_changes_nothing_where_everybody_has_as_many_pairs():
    similarity = torch.rand(120, 120, generator=torch.Generator().manual_seed(0))
    plain, balanced = (
        linkage(similarity, PEOPLE, PEOPLE, left_out=own(PEOPLE), balanced=of, num_bootstraps=2) for of in (False, True)
    )
    assert balanced.auc.value == pytest.approx(plain.auc.value)


def test_an_image_that_is_left_out_is_never_found():
    """With its own copy in the gallery every film is found; without it, none."""
    people = torch.arange(10).repeat_interleave(2)
    similarity = 2 * torch.eye(20) - (people[:, None] == people).float()
    assert linkage(similarity, people, people, num_bootstraps=2).top_1.value == 1
    assert linkage(similarity, people, people, left_out=own(people), num_bootstraps=2).top_1.value == 0


def test_images_that_are_equally_similar_count_as_sorted_at_random():
    result = linkage(torch.zeros(6, 6), torch.arange(6), torch.arange(6), num_bootstraps=2)
    assert (result.top_1.value, result.auc.value) == (pytest.approx(1 / 6), 0.5)


def test_people_of_whom_the_gallery_holds_nothing_do_not_count():
    result = linkage(torch.eye(3)[:2], torch.tensor([0, 9]), torch.arange(3), num_bootstraps=2)
    assert result.top_1.value == 1
    with pytest.raises(ValueError, match="No person of a probe"):
        linkage(torch.eye(2), torch.tensor([7, 8]), torch.arange(2))


def test_intervals_are_those_of_people_and_not_of_images():
    """A person's hundred equal images are no more evidence than one."""
    people = torch.arange(8)
    right = torch.arange(8) < 4
    similarity = torch.where(right[:, None], torch.eye(8), 1 - torch.eye(8)) + 0.001 * torch.rand(8, 8)
    few = linkage(similarity, people, people).top_1
    many = linkage(similarity.repeat_interleave(100, 0), people.repeat_interleave(100), people).top_1
    assert (many.value, many.low, many.high) == (few.value, pytest.approx(few.low), pytest.approx(few.high))


@pytest.mark.slow
def test_a_network_learns_from_people_with_several_pairs():
    others = torch.arange(30).repeat_interleave(3)
    learnt, shown = films(PEOPLE, 1), films(others, 2)
    another = learnt.unflatten(0, (40, 3)).roll(1, 1).flatten(0, 1)
    model = train_verification(learnt, another, people=PEOPLE, epochs=15)
    with torch.no_grad():
        similarity = model(shown, 0) @ model(shown, 1).T
    result = linkage(similarity, others, others, left_out=own(others), num_bootstraps=20)
    assert result.auc.value > 0.8


def test_what_is_no_similarity_is_refused():
    with pytest.raises(ValueError, match="expected numbers for 2 probes and 3 images"):
        linkage(torch.zeros(3, 2), torch.arange(2), torch.arange(3))
    with pytest.raises(ValueError, match="expected numbers"):
        linkage(torch.full((2, 2), torch.nan), torch.arange(2), torch.arange(2))
    with pytest.raises(ValueError, match=r"expected \(B, 1, H, W\)"):
        edge_features(torch.rand(2, 3, 32, 32))
