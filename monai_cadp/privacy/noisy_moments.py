# SPDX-License-Identifier: Apache-2.0
"""Second moments of vectors, group by group, with differential privacy."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_cadp.privacy.noisy_sum import SumLattice

__all__ = ["REPLACEMENT", "noisy_second_moments"]

# Two contributions are so far apart at most, over the largest norm of one (``training_epsilon`` has the proof).
REPLACEMENT = 2.0**0.5
# Whole numbers in nearly, and not above, the ratio of 1 to the root of 2.
DIAGONAL, ABOVE = 29, 41
# Of squares of lengths, in steps; the sum of so many rows' is exact in numbers of 64 bits.
LARGEST_BOUND, ROWS_AT_ONCE = 2**37, 2**12


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

    Proof. Vectors are rounded to integer vectors q, in steps of :math:`c^{-1/2}`, with :math:`\lVert q_i \rVert^2 \le
    w_i c`, where a person's weights :math:`w_i` add up to 1 at most: exactly, for the squares of integers are summed
    without rounding and whatever is longer counts as 0. What one person adds is the block-diagonal integer matrix
    :math:`A = \sum_i e_{g_i} e_{g_i}^T \otimes q_i q_i^T`. It is positive semidefinite, so :math:`\lVert A \rVert_F \le
    \operatorname{tr} A = \sum_i \lVert q_i \rVert^2 \le c`, and two such matrices are :math:`\sqrt 2 \, c` apart at
    most (:func:`~monai_cadp.privacy.training_accounting.training_epsilon`); groups, counts and vectors may all differ.

    A is told by the integers :math:`29 A_{jj}` and, above the diagonal, :math:`41 A_{jk}`: as :math:`41^2 \le 2 \cdot
    29^2`, this vector is no longer than :math:`29 \lVert A \rVert_F`, and two of them are :math:`29 \sqrt 2 \, c` apart
    at most. Their sum over everybody gets discrete Gaussian noise, of the multiplier s beside 29 c
    (:class:`~monai_cadp.privacy.noisy_sum.SumLattice`). Dividing by 29, 41 and c, and filling in the other half, is
    post-processing.

    Args:
        rows: vectors (n, d).
        group: of each (n,), from 0 to ``num_groups`` - 1.
        num_groups: number of groups, public.
        noise_multiplier: s.
        weights: of each (n,), for people with several vectors: each person's add up to 1 at most. None for 1.
        generator: draws the noise. For tests only: its numbers can be foretold.

    Returns:
        Symmetric matrices (num_groups, d, d), float64.

    Example:
        >>> noisy_second_moments(torch.rand(5, 3), torch.tensor([0, 0, 1, 1, 1]), 2, noise_multiplier=4.0).shape
        torch.Size([2, 3, 3])
    """
    lattice = SumLattice(1.0, noise_multiplier, division=DIAGONAL, largest_bound=LARGEST_BOUND)
    rows = rows.double()
    shares = torch.ones(len(rows), dtype=torch.float64) if weights is None else weights.double()
    # In squares of steps; the factor is for weights that add up to a little more than 1 in floating-point numbers.
    longest = (shares * (lattice.bound * (1 - 2.0**-30))).floor()
    steps = rows * (longest.sqrt() * (1 - 2.0**-30) / rows.norm(dim=1).clamp(min=1.0))[:, None]
    steps = steps.trunc()
    kept = steps.square().sum(dim=1) <= longest
    steps, group = steps[kept], group[kept]
    size = rows.shape[1]
    above = torch.triu_indices(size, size, offset=1)
    moments = torch.zeros(num_groups, size, size, dtype=torch.float64)
    for g in range(num_groups):
        total = torch.zeros(size, size, dtype=torch.int64)
        for some in steps[group == g].split(ROWS_AT_ONCE):
            total += (some.T @ some).long()
        told = torch.cat([DIAGONAL * total.diagonal(), ABOVE * total[above[0], above[1]]])
        told = (told + lattice.noise(told, generator)).double() / lattice.bound
        moments[g].diagonal().copy_(told[:size] / DIAGONAL)
        moments[g][above[0], above[1]] = told[size:] / ABOVE
        moments[g] = moments[g].triu() + moments[g].triu(1).T
    return moments
