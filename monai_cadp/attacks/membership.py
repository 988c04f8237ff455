# SPDX-License-Identifier: Apache-2.0
"""Was this image in the training set? What a network's likelihoods tell of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from monai_cadp.metrics.auc import auc
from monai_cadp.metrics.intervals import Estimate, bootstrap

__all__ = ["MembershipResult", "likelihood_ratio_scores", "membership"]

SMALLEST_DEVIATION = 1e-6


class MembershipResult(NamedTuple):
    """How well an attacker tells members of a training set from others.

    Args:
        auc: area under the curve; 0.5 is guessing.
        tpr_at_1_percent: share of members found where 1 % of others are taken for members; 0.01 is guessing.
        tpr_at_01_percent: the same at 0.1 %.
    """

    auc: Estimate
    tpr_at_1_percent: Estimate
    tpr_at_01_percent: Estimate


def membership(
    members: Tensor,
    others: Tensor,
    *,
    people: tuple[Tensor, Tensor] | None = None,
    num_bootstraps: int = 1000,
    seed: int = 0,
) -> MembershipResult:
    """Return how well scores tell members from others.

    As a control, give one half of the members in the place of the others: an attack that tells members from members
    sees something else than membership.

    Args:
        members: scores (n,) of images in the training set, larger for what the attacker takes for a member, such as log
            likelihoods or :func:`likelihood_ratio_scores`.
        others: scores (m,) of images that were not, from the same population.
        people: whose each image is, (n,) and (m,), as numbers; None for images of as many people. Nobody is among
            members and others.
        num_bootstraps: how often people are drawn again for the intervals, each with all their images.
        seed: of the drawing.

    Returns:
        The figures with their intervals.

    Raises:
        ValueError: if there are no scores, one is NaN, or somebody is among members and others.

    References:
        Yeom, Giacomelli, Fredrikson, Jha: Privacy risk in machine learning, CSF 2018 (scores that are likelihoods).
        Carlini, Chien, Nasr, Song, Terzis, Tramer: Membership inference attacks from first principles, S&P 2022 (true
        positives at low false positive rates).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> members, others = 2 + torch.randn(300, generator=generator), torch.randn(300, generator=generator)
        >>> membership(members, others, num_bootstraps=20).auc.value > 0.85
        True
    """
    if members.ndim != 1 or others.ndim != 1 or min(len(members), len(others)) == 0:
        raise ValueError(
            f"Scores came in the shapes {tuple(members.shape)} and {tuple(others.shape)}; expected (n,) and (m,), one "
            "each at least."
        )
    scores = torch.cat([members, others]).double()
    if scores.isnan().any():
        raise ValueError("A score is NaN; expected numbers, larger for what is taken for a member.")
    is_member = torch.arange(len(scores)) < len(members)
    owner = None
    if people is not None:
        if set(people[0].tolist()) & set(people[1].tolist()):
            raise ValueError("Somebody has images among members and among others; expected each in one of the two.")
        owner = torch.cat([of.cpu() for of in people])

    def estimate(figure: Callable[[Tensor, Tensor], float]) -> Estimate:
        def of(drawn: Tensor) -> float:
            return figure(scores[drawn][is_member[drawn]], scores[drawn][~is_member[drawn]])

        return bootstrap(of, len(scores), people=owner, num_bootstraps=num_bootstraps, seed=seed)

    return MembershipResult(
        estimate(auc),
        estimate(lambda x, y: _true_positives(x, y, 0.01)),
        estimate(lambda x, y: _true_positives(x, y, 0.001)),
    )


def likelihood_ratio_scores(target: Tensor, shadows: Tensor, is_member: Tensor) -> Tensor:
    r"""Return for each image how much likelier its log likelihood is if it was in the training set.

    Shadow networks are trained on random halves of the population. For each image, normal distributions are fitted to
    its log likelihoods under the networks that saw it and under those that did not; the score is the logarithm of the
    ratio of their densities at its log likelihood under the attacked network. What makes an image hard or easy is the
    same in both, and falls out.

    Args:
        target: log likelihoods (n,) under the attacked network.
        shadows: log likelihoods (s, n) under the shadow networks.
        is_member: which shadow network saw which image (s, n), bool.

    Returns:
        Scores (n,), larger for likely members.

    Raises:
        ValueError: if the shapes do not fit, or an image was seen by fewer than two networks, or not seen by fewer.

    References:
        Carlini, Chien, Nasr, Song, Terzis, Tramer: Membership inference attacks from first principles, S&P 2022,
        algorithm 1, with one deviation for all images.

    Example:
        >>> is_member = torch.arange(4)[:, None].expand(4, 3) % 2 == 0
        >>> likelihood_ratio_scores(torch.zeros(3), torch.randn(4, 3), is_member).shape
        torch.Size([3])
    """
    if shadows.ndim != 2 or shadows.shape != is_member.shape or target.shape != shadows.shape[1:]:
        raise ValueError(
            f"Log likelihoods came in the shapes {tuple(target.shape)}, {tuple(shadows.shape)} and "
            f"{tuple(is_member.shape)}; expected (n,), (s, n) and (s, n)."
        )
    seen = is_member.sum(0)
    if int(torch.minimum(seen, len(shadows) - seen).min()) < 2:
        raise ValueError("An image was seen, or not seen, by one shadow network at most; expected two of each.")
    score = torch.zeros(len(target), dtype=torch.float64)
    for sign, mask in ((1.0, is_member), (-1.0, ~is_member)):
        values = shadows.double()
        mean = (values * mask).sum(0) / mask.sum(0)
        # With few networks, one deviation for all images is more certain than one for each.
        deviation = (((values - mean).square() * mask).sum() / (mask.sum() - len(target))).sqrt()
        deviation = deviation.clamp(min=SMALLEST_DEVIATION)
        score += sign * torch.distributions.Normal(mean, deviation).log_prob(target.double())
    return score


def _true_positives(members: Tensor, others: Tensor, false_positives: float) -> float:
    """Share of members above the smallest threshold that at most this share of others passes."""
    if min(len(members), len(others)) == 0:
        return false_positives
    threshold = others.sort(descending=True).values[int(false_positives * len(others))]
    return float((members > threshold).float().mean())
