# SPDX-License-Identifier: Apache-2.0
"""Second moments of vectors, group by group, with differential privacy."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_cadp.privacy.noisy_sum import SHARE, gaussian_noise

__all__ = ["REPLACEMENT", "noisy_second_moments"]

# Two contributions are so far apart at most, over the largest norm of one (``training_epsilon`` has the proof).
REPLACEMENT = 2.0**0.5


def noisy_second_moments(
    rows: Tensor,
    group: Tensor,
    num_groups: int,
    noise_multiplier: float,
    *,
    weights: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return for each group the noisy sum of :math:`u u^T` over its vectors u, which are clipped to norm 1.

    Proof. What one person adds is a block-diagonal matrix :math:`A = \sum_i w_i \, e_{g_i} e_{g_i}^T \otimes u_i
    u_i^T` over his vectors, with weights :math:`w_i \ge 0` that add up to 1 at most: it is a convex combination of
    (and 0, where they add up to less) matrices :math:`v v^T`, :math:`v = e_g \otimes u`, with :math:`\lVert v \rVert
    \le 1`. So :math:`\lVert A \rVert_F \le 1`, and two such matrices are :math:`\sqrt 2` apart at most
    (:func:`~monai_cadp.privacy.training_accounting.training_epsilon`); groups, counts and vectors may all differ. A
    symmetric matrix is told by its diagonal and :math:`\sqrt 2` times what is above it, which is a vector with the
    Frobenius norm as its length: independent noise :math:`N(0, s^2)` on every number of it is the Gaussian mechanism
    with the multiplier s. Filling in the other half is post-processing.

    Norms are computed in floating-point numbers and cut to :math:`1 - 2^{-10}`, which covers their rounding. Vectors
    that are not finite count as 0.

    Args:
        rows: vectors (n, d).
        group: of each (n,), from 0 to ``num_groups`` - 1.
        num_groups: number of groups, public.
        noise_multiplier: s.
        weights: of each (n,), for people with several vectors: those of a person add up to 1 at most. None for 1.
        generator: draws the noise. For tests only: its numbers can be foretold.

    Returns:
        Symmetric matrices (num_groups, d, d), float64.

    Example:
        >>> noisy_second_moments(torch.rand(5, 3), torch.tensor([0, 0, 1, 1, 1]), 2, noise_multiplier=4.0).shape
        torch.Size([2, 3, 3])
    """
    rows = rows.double()
    norms = rows.norm(dim=1)
    factors = (SHARE / norms).clamp(max=1.0)
    if weights is not None:
        factors = factors * weights.double().sqrt()
    finite = norms.isfinite()
    rows, group = rows[finite] * factors[finite, None], group[finite]
    size = rows.shape[1]
    above = torch.triu_indices(size, size, offset=1)
    moments = torch.zeros(num_groups, size, size, dtype=torch.float64)
    for g in range(num_groups):
        members = rows[group == g]
        moment = members.T @ members
        noise = gaussian_noise(torch.zeros(size + above.shape[1]), noise_multiplier, generator)
        moment.diagonal().add_(noise[:size])
        moment[above[0], above[1]] += noise[size:] / 2**0.5
        moments[g] = moment.triu() + moment.triu(1).T
    return moments
