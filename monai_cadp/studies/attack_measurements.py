# SPDX-License-Identifier: Apache-2.0
"""What attackers get from released images, as a study measures it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from monai_cadp.attacks import (
    LinkageResult,
    aligned_similarity,
    attribute_inference,
    expected_releases,
    largest_top_1,
    linkage,
    membership,
    nearest_candidate,
    set_membership_scores,
    train_verification,
)
from monai_cadp.studies.measurements import (
    Figures,
    LearnedMeasurement,
    Releases,
    in_groups_of,
    people_of,
    public_conditions,
    public_groups,
)

__all__ = ["AttributeInference", "Linkage", "NearestCandidate", "Reidentification", "mean_intensity"]

# People of each half of an attribute.
SMALLEST_HALF = 3
# Pixels a side, in two and three dimensions.
LARGEST_SIDE = {2: 32, 3: 16}


class Linkage(LearnedMeasurement):
    """An attacker who has learnt nothing lays every release over every original, and sorts by how alike they are.

    Of people who are equal in all that is public, they tell a release and the very image that was released from a
    release and an image of somebody else (AUC), and name the person whose image is most like the release (top 1). Where
    people have several images, the same with another image of the person. Large images are looked at with at most 32
    pixels a side, and volumes with 16.

    Args:
        num_attacked: releases that they attack.
    """

    def __init__(self, num_attacked: int = 1000) -> None:
        self.num_attacked = num_attacked

    def learn(self, releases: Releases, seed: int) -> Callable[[Releases], Figures]:
        """Learn nothing; figures have their intervals over people, and top 1 the most that the guarantee allows."""
        return lambda part: self._attacked(part, seed)

    def _attacked(self, releases: Releases, seed: int) -> Figures:
        if releases.test_released is None:
            return {}
        attacked = _attacked(releases, self.num_attacked)
        if len(attacked) == 0:
            return {}
        seen, held = (_reduced(x[attacked]) for x in (releases.test_released, releases.test.x))
        return _linked("linkage", aligned_similarity(seen, held), releases, attacked, seed)


class Reidentification(LearnedMeasurement):
    """A Siamese network, trained on releases, tells who is who among people who are equal in all that is public.

    The attacker makes releases of people of their own in the same way, and learns from pairs of a release and an image
    of the same person: the image that was released, and another one where people have several. With the network they
    do what :class:`Linkage` does, and tell whether somebody is in a set of releases: half of the people are, with one
    release each, and the attacker sees the whole set without names.

    Args:
        num_learning: images from whose releases the attacker learns.
        num_attacked: releases that they attack.
        epochs: of their network.
    """

    def __init__(self, num_learning: int = 2000, num_attacked: int = 1000, epochs: int = 20) -> None:
        self.num_learning, self.num_attacked, self.epochs = num_learning, num_attacked, epochs

    def learn(self, releases: Releases, seed: int) -> Callable[[Releases], Figures]:
        """Train the attacker; figures have their intervals over people, and top 1 the most that epsilon allows."""
        if releases.train_released is None or releases.test_released is None:
            return lambda part: {}
        people = people_of(releases)[0][: self.num_learning]
        seen, held = _pairs_of_one(people)
        model = train_verification(
            releases.train_released[seen],
            releases.train.x[held],
            people=people[seen],
            epochs=self.epochs,
            seed=seed,
            progress=True,
        )
        reference = _embedded(model, releases.train_released[: self.num_learning], 0)
        return lambda part: self._attacked(model, reference, part, seed)

    def _attacked(self, model: nn.Module, reference: Tensor, releases: Releases, seed: int) -> Figures:
        assert releases.test_released is not None
        attacked = _attacked(releases, self.num_attacked)
        if len(attacked) == 0:
            return {}
        seen, held = (
            _embedded(model, x[attacked], side) for side, x in enumerate((releases.test_released, releases.test.x))
        )
        figures = _linked("reidentification", seen @ held.T, releases, attacked, seed)
        scores = self._set_scores((held @ seen.T).cpu(), (held @ reference.T).cpu(), releases, attacked.cpu(), seed)
        return figures | ({"set_membership_auc": membership(*scores, seed=seed).auc} if len(scores[0]) > 0 else {})

    def _set_scores(
        self, similarity: Tensor, reference: Tensor, releases: Releases, attacked: Tensor, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Scores of people in the set, and of as many others; of each class as many."""
        people = people_of(releases)[1][attacked]
        learnt, groups = (x.cpu() for x in public_groups(releases))
        learnt, groups = learnt[: self.num_learning], groups[attacked]
        # One image of everybody: a person with several would be in the set several times.
        first = torch.tensor([place for place, who in enumerate(people.tolist()) if who not in people[:place]])
        generator = torch.Generator().manual_seed(seed)
        scores = [(torch.empty(0), torch.empty(0))]
        for group in groups.unique():
            candidates = first[groups[first] == group]
            half, known = len(candidates) // 2, (learnt == group).nonzero()[:, 0]
            if half == 0 or len(known) == 0:
                continue
            candidates = candidates[torch.randperm(len(candidates), generator=generator)][: 2 * half]
            released = candidates[:half]
            of_all = set_membership_scores(similarity[candidates][:, released], reference[candidates][:, known])
            scores.append((of_all[:half], of_all[half:]))
        members, others = (torch.cat(part) for part in zip(*scores, strict=True))
        return members, others


class NearestCandidate:
    """An attacker holds a few candidates of one class, one of whom is the original, and names the nearest to a release.

    They try it with the candidates themselves, and with what they have learnt that their releases look like; the better
    one counts. Large images they look at with at most 32 pixels a side, and volumes with 16.

    Args:
        num_candidates: that they hold; people of smaller classes are left in peace.
        num_learning: people from whom they learn what releases look like.
        num_attacked: releases that they attack.
    """

    def __init__(self, num_candidates: int = 10, num_learning: int = 2000, num_attacked: int = 1000) -> None:
        self.num_candidates, self.num_learning, self.num_attacked = num_candidates, num_learning, num_attacked

    def __call__(self, releases: Releases, seed: int) -> Figures:
        """Return how often they are right, beside the most that the guarantee allows."""
        if releases.train_released is None or releases.test_released is None:
            return {}
        train_groups, groups = public_groups(releases)
        learning = slice(self.num_learning)
        attacked = in_groups_of(groups, self.num_candidates)
        attacked = attacked[torch.isin(groups[attacked], train_groups[learning])][: self.num_attacked]
        attacked = attacked[in_groups_of(groups[attacked], self.num_candidates)]
        if len(attacked) == 0:
            return {}
        train, released_train, test, released_test = (
            _reduced(x)
            for x in (
                releases.train.x[learning],
                releases.train_released[learning],
                releases.test.x[attacked],
                releases.test_released[attacked],
            )
        )
        expected = expected_releases(
            train, released_train, test, shadow_labels=train_groups[learning], labels=groups[attacked]
        )
        results = [
            nearest_candidate(
                candidates,
                released_test,
                self.num_candidates,
                epsilon=releases.variant.epsilon,
                labels=groups[attacked],
                people=people_of(releases)[1][attacked.cpu()],
                seed=seed,
            )
            for candidates in (test, expected.to(test.dtype))
        ]
        best = max(results, key=lambda result: result.success.value)
        return {
            "reconstruction_success": best.success,
            "reconstruction_guess": best.guessing,
            "reconstruction_limit": best.limit,
        }


def mean_intensity(images: Tensor) -> Tensor:
    r"""Return the mean of every channel (B, C) of images (B, C, \*spatial)."""
    return images.flatten(2).mean(2)


class AttributeInference:
    r"""An attacker learns from releases of other people to tell an attribute of an original, beside what is public.

    The AUC is that of telling the upper half of the people of a class from the lower one, of which the class says
    nothing; R2 is that of the number itself.

    Args:
        attribute: maps images (B, C, \*spatial) to numbers (B,) or (B, k), of which the one of ``index`` is taken.
        index: which one.
        num_learning: people from whom they learn.
        num_attacked: people whom they attack.
    """

    def __init__(
        self,
        attribute: Callable[[Tensor], Tensor] = mean_intensity,
        index: int = 0,
        num_learning: int = 2000,
        num_attacked: int = 1000,
    ) -> None:
        self.attribute, self.index = attribute, index
        self.num_learning, self.num_attacked = num_learning, num_attacked

    def __call__(self, releases: Releases, seed: int) -> Figures:
        """Return the AUC, R2 with the release and with the class alone, and what the release adds."""
        if releases.train_released is None or releases.test_released is None:
            return {}
        learning, attacked = slice(self.num_learning), slice(self.num_attacked)
        known, told = (
            self.attribute(x).reshape(len(x), -1)[:, self.index]
            for x in (releases.train.x[learning], releases.test.x[attacked])
        )
        seen_of_known, seen = releases.train_released[learning], releases.test_released[attacked]
        public_of_known, public = (
            y[part] for y, part in zip(public_conditions(releases), (learning, attacked), strict=True)
        )
        people = people_of(releases)[1][attacked]
        number = attribute_inference(
            seen_of_known,
            known,
            seen,
            told,
            shadow_labels=public_of_known,
            labels=public,
            people=people,
            seed=seed,
        )
        figures: Figures = {
            "attribute_r2": number.from_release,
            "attribute_r2_of_class": number.from_label,
            "attribute_gain": number.gain,
        }
        groups_of_known, groups = (
            x[part] for x, part in zip(public_groups(releases), (learning, attacked), strict=True)
        )
        upper_of_known, upper = _upper_half(known, groups_of_known), _upper_half(told, groups)
        halved, asked = (upper_of_known >= 0).nonzero()[:, 0], (upper >= 0).nonzero()[:, 0]
        if min(len(halved) // 2, len(asked)) < SMALLEST_HALF:
            return figures
        half = attribute_inference(
            seen_of_known[halved],
            upper_of_known[halved],
            seen[asked],
            upper[asked],
            shadow_labels=public_of_known[halved],
            labels=public[asked],
            people=people[asked.cpu()],
            seed=seed,
        )
        return {"attribute_auc": half.from_release, **figures}


def _attacked(releases: Releases, limit: int) -> Tensor:
    """Indices of test images that others share a class with."""
    return in_groups_of(public_groups(releases)[1], 2)[:limit]


def _pairs_of_one(people: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of pairs of images of one person: each with itself, and with the person's next one if there is one."""
    following = torch.arange(len(people))
    for person in people.unique():
        own = (people == person).nonzero()[:, 0]
        following[own] = own.roll(-1)
    itself = torch.arange(len(people))
    other = (following != itself).nonzero()[:, 0]
    return torch.cat([itself, other]), torch.cat([itself, following[other]])


@torch.no_grad()
def _embedded(model: nn.Module, images: Tensor, side: int) -> Tensor:
    return torch.cat([model(part, side) for part in images.split(64)])


def _linked(name: str, similarity: Tensor, releases: Releases, attacked: Tensor, seed: int) -> Figures:
    """Figures of an attacker to whom releases and the originals of the same images are so similar."""
    attacked, similarity = attacked.cpu(), similarity.cpu()
    people, groups = people_of(releases)[1][attacked], public_groups(releases)[1].cpu()[attacked]
    itself = torch.eye(len(people), dtype=torch.bool)
    other_class = groups[:, None] != groups
    another = (people[:, None] == people) & ~itself & ~other_class

    def sorted_by(left_out: Tensor) -> LinkageResult:
        return linkage(similarity, people, people, left_out=left_out | other_class, balanced=True, seed=seed)

    def named(prefix: str, result: LinkageResult, counted: Tensor) -> Figures:
        return {
            f"{prefix}_top_1": result.top_1,
            f"{prefix}_top_1_guess": result.guess,
            f"{prefix}_top_1_limit": _largest_top_1(releases, people[counted], groups[counted]),
        }

    of_person = sorted_by(torch.zeros_like(itself))
    if not another.any():
        return {f"{name}_auc": of_person.auc, **named(name, of_person, itself.any(1))}
    of_another = sorted_by(itself)
    return {
        f"{name}_auc": sorted_by(another).auc,
        **named(name, of_person, itself.any(1)),
        f"{name}_another_auc": of_another.auc,
        **named(f"{name}_another", of_another, another.any(1)),
    }


def _largest_top_1(releases: Releases, people: Tensor, groups: Tensor) -> float:
    """The most that the guarantee allows, on average over the classes of images (n,)."""
    epsilon, delta = releases.variant.epsilon, releases.variant.delta
    total = 0.0
    for group in groups.unique():
        counts = people[groups == group].unique(return_counts=True)[1]
        total += largest_top_1(epsilon, counts, delta) * int(counts.sum()) / len(groups)
    return total


def _upper_half(numbers: Tensor, groups: Tensor) -> Tensor:
    """1 for the upper half of each group (n,), 0 for the lower half, and -1 for who stands in the middle."""
    upper = torch.full_like(groups, -1)
    for group in groups.unique():
        members = (groups == group).nonzero()[:, 0]
        members = members[numbers[members].argsort(stable=True)]
        half = len(members) // 2
        upper[members[:half]], upper[members[len(members) - half :]] = 0, 1
    return upper


def _reduced(images: Tensor) -> Tensor:
    dimensions = images.ndim - 2
    if dimensions < 1:
        return images
    largest = LARGEST_SIDE[dimensions]
    sizes = [min(size, largest) for size in images.shape[2:]]
    return torch.nn.functional.interpolate(images, size=sizes, mode="area")
