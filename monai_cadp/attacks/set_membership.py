# SPDX-License-Identifier: Apache-2.0
"""Is this person among those whose releases were published? A whole set of releases, seen at once and in any order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from monai_cadp.attacks.reidentification import TEMPERATURE

__all__ = ["set_membership_scores"]


def set_membership_scores(similarity: Tensor, reference: Tensor) -> Tensor:
    r"""Return how much likelier a set of releases is if it holds one of a candidate's.

    Of a set of n releases, one of which is of the candidate x if x is in it, and all others of anybody, the likelihood
    ratio is the mean of :math:`p(r \mid x) / p(r)` over the set. Its logarithm is estimated up to a constant of the
    candidate by what a verification network takes for similar, over its temperature; the mean over releases of other
    people takes the constant away, and with it that some people are like many.

    Args:
        similarity: of every candidate to every release of the set (c, n), to a network of
            :func:`~monai_cadp.attacks.train_verification`.
        reference: of every candidate to releases that are of none of the candidates (c, m).

    Returns:
        Scores (c,), larger for likely members, to be judged by :func:`~monai_cadp.attacks.membership`.

    Raises:
        ValueError: if the shapes do not fit, or there is no release.

    References:
        van den Oord, Li, Vinyals: Representation learning with contrastive predictive coding, 2018 (what a network that
        tells pairs learns is such a ratio).
        Stadler, Oprisanu, Troncoso: Synthetic data - anonymisation groundhog day, USENIX Security 2022 (the game).

    Example:
        >>> scores = set_membership_scores(torch.tensor([[0.9, 0.0], [0.0, 0.0]]), torch.zeros(2, 5))
        >>> scores[0].item() > 8, scores[1].item()
        (True, 0.0)
    """
    shapes = tuple(similarity.shape), tuple(reference.shape)
    if not len(shapes[0]) == len(shapes[1]) == 2 or shapes[0][0] != shapes[1][0] or 0 in (*shapes[0], *shapes[1]):
        raise ValueError(f"Similarities came in the shapes {shapes[0]} and {shapes[1]}; expected (c, n) and (c, m).")
    of_set, of_others = (
        torch.logsumexp(x.double() / TEMPERATURE, dim=1) - math.log(x.shape[1]) for x in (similarity, reference)
    )
    return of_set - of_others
