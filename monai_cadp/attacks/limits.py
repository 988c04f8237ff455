# SPDX-License-Identifier: Apache-2.0
"""How often a guarantee allows any attacker at most to name whose release it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["largest_top_1"]


def largest_top_1(epsilon: float, shares: Tensor, delta: float = 0.0) -> float:
    r"""Return the largest chance to name the person of a release that a guarantee allows to any attacker.

    The attacker knows which people it can be, and how often it is each: :math:`\pi_1 \ge \pi_2 \ge ... \ge \pi_M`.
    Where all are equally likely, and delta is 0, this is :func:`~monai_cadp.attacks.success_limit`.

    Proof. Let :math:`a_p` be the largest probability that they name p, over the images of p. The promise, carried
    through their choice, says that of any image of q they name p with :math:`e^{-\epsilon} (a_p - \delta)` at least; so
    :math:`a_q + e^{-\epsilon} \sum_{p \ne q} \max(a_p - \delta, 0) \le 1` for all q. Subject to this,
    :math:`\sum_p \pi_p a_p` is largest at a vertex, where k people share the largest :math:`a_p`, and all others have
    :math:`\delta`. There the k have :math:`A_k = \frac{1 + (k - 1) e^{-\epsilon} \delta}{1 + (k - 1) e^{-\epsilon}}`;
    the most likely people, and the best k, give the bound

    .. math:: \max_k \; \Pi_k A_k + (1 - \Pi_k) \delta, \quad \Pi_k = \sum_{p \le k} \pi_p.

    It also holds if the image that was released is left out of what the attacker compares, and they look for another
    one of the same person: if they name p without an image of p, they name p with it.

    Args:
        epsilon: promised for one image; infinity for no promise.
        shares: of the images that are attacked, how many are of each person (M,), as counts or shares.
        delta: promised for one image.

    Returns:
        A probability, from the largest share at epsilon 0 to 1.

    Raises:
        ValueError: if epsilon or delta is out of its range, or there is nobody.

    Example:
        >>> round(largest_top_1(1.0, torch.ones(2)), 3), largest_top_1(0.0, torch.tensor([3, 1, 1]))
        (0.731, 0.6)
    """
    if not epsilon >= 0 or not 0 <= delta < 1:
        raise ValueError(f"epsilon is {epsilon} and delta {delta}; expected 0 or more, and 0 or more below 1.")
    if shares.ndim != 1 or len(shares) == 0 or not (shares > 0).all():
        raise ValueError(f"Shares came in the shape {tuple(shares.shape)}; expected positive numbers (M,).")
    likely = (shares.double() / shares.double().sum()).sort(descending=True).values.cumsum(0)
    others = math.exp(-epsilon) * torch.arange(len(shares), dtype=torch.float64)
    named = (1 + others * delta) / (1 + others)
    return float((likely * named + (1 - likely) * delta).amax())
