# SPDX-License-Identifier: Apache-2.0
"""Which original is it? An attacker who holds candidates picks the one that is nearest to the release."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from monai_cadp.attacks.nearest import among_nearest
from monai_cadp.extras import extra
from monai_cadp.metrics.intervals import Estimate, bootstrap_mean

__all__ = ["NearestCandidateResult", "expected_releases", "nearest_candidate", "success_limit"]

STRENGTHS = tuple(10.0**power for power in range(-3, 5))


class NearestCandidateResult(NamedTuple):
    """How often an attacker picks the true original.

    Args:
        success: share of releases whose nearest candidate is their original.
        guessing: what is reached without looking at the release.
        limit: what no attacker exceeds, on average, if the promise is kept.
    """

    success: Estimate
    guessing: float
    limit: float


def success_limit(epsilon: float, num_candidates: int) -> float:
    r"""Return the largest chance to name the true one of M candidates that pure epsilon allows to any attacker.

    Proof. Let :math:`q_{ij}` be the probability that they name j when i is true, each with chance 1 / M. The promise,
    carried through their choice, says :math:`q_{ij} \ge e^{-\epsilon} q_{jj}`; so :math:`1 = \sum_j q_{ij} \ge q_{ii} +
    e^{-\epsilon} \sum_{j \ne i} q_{jj}`. Summed over i, :math:`M \ge (1 + (M - 1) e^{-\epsilon}) \sum_i q_{ii}`; hence
    :math:`\frac{1}{M} \sum_i q_{ii} \le 1 / (1 + (M - 1) e^{-\epsilon}) = e^\epsilon / (e^\epsilon + M - 1)`.

    Args:
        epsilon: promised, with delta 0; infinity for no promise.
        num_candidates: M.

    Returns:
        A probability, from 1 / M at epsilon 0 to 1.

    Raises:
        ValueError: if epsilon is negative or NaN, or there are fewer than two candidates.

    Example:
        >>> round(success_limit(1.0, 2), 3), success_limit(0.0, 10), success_limit(math.inf, 10)
        (0.731, 0.1, 1.0)
    """
    if not epsilon >= 0:
        raise ValueError(f"epsilon is {epsilon}; expected 0 or more, or infinity for no promise.")
    if num_candidates < 2:
        raise ValueError(f"There are {num_candidates} candidates; expected 2 or more.")
    return 1 / (1 + (num_candidates - 1) * math.exp(-epsilon))


def nearest_candidate(
    originals: Tensor,
    releases: Tensor,
    num_candidates: int,
    *,
    epsilon: float,
    labels: Tensor | None = None,
    people: Tensor | None = None,
    num_bootstraps: int = 1000,
    seed: int = 0,
) -> NearestCandidateResult:
    r"""Return how often the nearest of M candidates, the true original and others of its class, is the true one.

    Near is what has a small Euclidean distance: in pixels if images are given, in features if features are. The others
    are drawn at random, without repetition, from the originals of the same class. An attacker who knows how images are
    released compares the release with what the candidates would become, which finds many more:
    :func:`expected_releases`, or the candidates through a function that they know.

    Args:
        originals: images (n, C, \*spatial) or features (n, k), as the attacker expects to meet them.
        releases: of the originals, in the same order and space.
        num_candidates: M.
        epsilon: promised to every original, with delta 0; infinity for no promise.
        labels: public classes (n,), each of M originals or more; None for one class.
        people: whose each original is (n,), as numbers; None for n people.
        num_bootstraps: how often people are drawn again for the interval, with all their releases.
        seed: of all drawing.

    Returns:
        The success with its interval, beside guessing and the limit of :func:`success_limit`.

    Raises:
        ValueError: if shapes do not fit, a class has fewer originals than candidates are wanted, or a number is NaN.

    Example:
        >>> x = torch.rand(50, 1, 4, 4)
        >>> result = nearest_candidate(x, x, 10, epsilon=math.inf)
        >>> result.success.value, result.guessing
        (1.0, 0.1)
    """
    limit = success_limit(epsilon, num_candidates)
    labels = torch.zeros(len(originals), dtype=torch.long, device=originals.device) if labels is None else labels
    if originals.shape != releases.shape or labels.shape != originals.shape[:1]:
        raise ValueError(
            f"Originals, releases and labels came in the shapes {tuple(originals.shape)}, {tuple(releases.shape)} and "
            f"{tuple(labels.shape)}; expected the same shape twice, and (n,)."
        )
    classes, counts = labels.unique(return_counts=True)
    if len(classes) == 0 or int(counts.min()) < num_candidates:
        raise ValueError(
            f"{num_candidates} candidates were asked for, but the smallest class has "
            f"{int(counts.min()) if len(classes) else 0} originals; expected that many or more in every class."
        )
    x, y = originals.flatten(1).double(), releases.flatten(1).double()
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.empty(len(x), num_candidates, dtype=torch.float64, device=x.device)
    for label in classes:
        members = (labels == label).nonzero()[:, 0]
        for place, index in enumerate(members.tolist()):
            # The true one first; it is as likely to be any of the candidates, since all are drawn alike.
            others = torch.randperm(len(members) - 1, generator=generator)[: num_candidates - 1]
            candidates = torch.cat([torch.tensor([place]), others + (others >= place)])
            similarity[index] = -(x[members[candidates]] - y[index]).square().sum(1)
    success = among_nearest(similarity, torch.zeros(len(x), dtype=torch.long, device=x.device))
    return NearestCandidateResult(
        bootstrap_mean(success, people=people, num_bootstraps=num_bootstraps, seed=seed), 1 / num_candidates, limit
    )


def expected_releases(
    shadow_originals: Tensor,
    shadow_releases: Tensor,
    originals: Tensor,
    *,
    shadow_labels: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    r"""Return what the releases of originals look like on average, learnt from other people's by ridge regression.

    An attacker who knows how images are released does not look for an original that is like the release, which may be
    blurred or look different altogether, but for one whose release would be like it: give what this returns to
    :func:`nearest_candidate` in the place of the originals. Class by class means are taken away on both sides; the
    strength of the regression is chosen by cross-validation that leaves one out.

    Args:
        shadow_originals: of other people (m, C, \*spatial) or (m, k).
        shadow_releases: theirs, in the same order, of any shape (m, ...).
        originals: the candidates (n, C, \*spatial) or (n, k).
        shadow_labels: public classes of the others (m,); None for one class.
        labels: public classes of the candidates (n,), each with others in it; None for one class.

    Returns:
        Expected releases (n, ...), of the shape of releases.

    Raises:
        ValueError: if shapes do not fit, or a class has no shadow.

    Example:
        >>> x = torch.rand(100, 1, 4, 4)
        >>> expected = expected_releases(x[:80], 1 - x[:80].mean(3), x[80:])
        >>> expected.shape, bool((expected - (1 - x[80:].mean(3))).abs().max() < 0.01)
        (torch.Size([20, 1, 4]), True)
    """
    groups, shadow_groups = (
        torch.zeros(len(images), dtype=torch.long) if of is None else of.cpu()
        for images, of in ((originals, labels), (shadow_originals, shadow_labels))
    )
    if (
        shadow_originals.shape[1:] != originals.shape[1:]
        or not len(shadow_originals) == len(shadow_releases) == len(shadow_groups)
        or len(groups) != len(originals)
        or not torch.isin(groups, shadow_groups).all()
    ):
        raise ValueError(
            f"Shadows came in the shapes {tuple(shadow_originals.shape)} and {tuple(shadow_releases.shape)}, "
            f"candidates in {tuple(originals.shape)}; expected originals of one shape, a release for each shadow, and "
            "shadows of every class."
        )
    with extra("studies", "The attack by ridge regression"):
        from sklearn.linear_model import RidgeCV
    # scikit-learn works on the CPU.
    shadows, released, x = (
        images.flatten(1).double().cpu().clone() for images in (shadow_originals, shadow_releases, originals)
    )
    expected = torch.empty(len(x), released.shape[1], dtype=torch.float64)
    for label in shadow_groups.unique():
        of, among = shadow_groups == label, groups == label
        expected[among] = released[of].mean(0)
        x[among] -= shadows[of].mean(0)
        released[of] -= released[of].mean(0)
        shadows[of] -= shadows[of].mean(0)
    model = RidgeCV(STRENGTHS, fit_intercept=False).fit(shadows.numpy(), released.numpy())
    expected += torch.from_numpy(model.predict(x.numpy()).reshape(expected.shape))
    return expected.reshape(len(x), *shadow_releases.shape[1:]).to(originals.device, shadow_releases.dtype)
