# SPDX-License-Identifier: Apache-2.0
"""A sum with differential privacy: a random batch, clipped contributions, Gaussian noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from monai_cadp.privacy.randomness import random_words

__all__ = ["clipped_sum", "gaussian_noise", "poisson_batch"]

# Contributions are clipped to this share of the bound; norms in 32 bits are wrong by less than the rest.
SHARE = 1 - 2.0**-10
ROWS_AT_ONCE = 32


def poisson_batch(count: int, sampling_rate: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Return the places of a random batch, which everybody enters by an independent coin.

    The coins are 64-bit words of the operating system's cryptographic generator, compared to an integer: one is in
    with the probability ``sampling_rate``, rounded down to a multiple of :math:`2^{-64}`.

    Args:
        count: number of images, or of patients, public.
        sampling_rate: above 0, and at most 1; public.
        generator: tosses the coins instead. For tests only: its numbers can be foretold.

    Returns:
        Indices in rising order, int64; perhaps none.

    Example:
        >>> poisson_batch(3, 1.0)
        tensor([0, 1, 2])
    """
    # Words are signed; `<=` because the threshold of rate 1 plus one would not be a word.
    last = math.floor(Fraction(sampling_rate) * 2**64) - 2**63 - 1
    words = random_words(torch.empty(count, 0), 1, generator)
    return (words[:, 0] <= last).nonzero()[:, 0]


def clipped_sum(rows: Sequence[Tensor], largest_norm: float) -> list[Tensor]:
    r"""Return the sum of what everybody contributes, each clipped to a norm over all parts together.

    Proof. Norms are computed in floating-point numbers, wrong by less than a relative :math:`2^{-10}`, and what is
    added has at most :math:`1 - 2^{-10}` of the bound by them. Whose norm is not finite, as that of NaN or infinity is
    not, counts as 0, as somebody does who is not there. So one contribution changes the sum by the bound at most when
    it comes or goes, and by twice the bound when it is replaced.

    Args:
        rows: contributions (n, \*shape) in one or more parts, float; n may be 0.
        largest_norm: C, to which the contribution of each is clipped.

    Returns:
        For every part the sum of its shape, float64.

    Example:
        >>> clipped_sum([torch.tensor([[3.0], [float("nan")]]), torch.tensor([[4.0], [1.0]])], largest_norm=10.0)
        [tensor([3.], dtype=torch.float64), tensor([4.], dtype=torch.float64)]
    """
    flat = [part.reshape(len(part), math.prod(part.shape[1:])) for part in rows]
    norms = torch.stack([_norms(part) for part in flat]).norm(dim=0)
    factors = (SHARE * largest_norm / norms).clamp(max=1.0)
    finite = norms.isfinite()
    if not finite.all():
        factors, flat = factors[finite], [part[finite] for part in flat]
    return [(factors.to(part) @ part).double().view(whole.shape[1:]) for part, whole in zip(flat, rows, strict=True)]


def _norms(rows: Tensor) -> Tensor:
    """Norms of rows (n, d), in 64 bits: in 32 the norm of millions of numbers would be wrong by more."""
    # A few rows at a time, whose copies in 64 bits stay in the cache.
    return torch.cat([some.norm(dim=1, dtype=torch.float64) for some in rows.split(ROWS_AT_ONCE)])


def gaussian_noise(like: Tensor, deviation: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Return Gaussian noise in 64-bit floating-point numbers, from the operating system's cryptographic generator.

    Each value is half the sum of four that Box and Muller's formula makes from words of 53 bits, so that nobody can
    list the words from which a value came (Holohan and Braghin). It is no exact Gaussian: values lie on a finite set of
    numbers, no value is further than 17.2 deviations from 0, and adding the noise to a sum rounds.

    Args:
        like: gives shape and device.
        deviation: of every value.
        generator: draws from this instead. For tests only: its numbers can be foretold.

    Returns:
        Noise of the same shape, float64.

    References:
        Box, Muller: A note on the generation of random normal deviates, Annals of Mathematical Statistics 29, 1958.
        Holohan, Braghin: Secure random sampling in differential privacy, ESORICS 2021.

    Example:
        >>> gaussian_noise(torch.zeros(2, 3), deviation=4.0).shape
        torch.Size([2, 3])
    """
    pairs = -(-like.numel() // 2)
    words = random_words(torch.empty(4, 0), 2 * pairs, generator)
    # The upper bits of a word, whose sign is one of them: uniform in (0, 1].
    uniform = ((words >> 11) + (2**52 + 1)).double() * 2.0**-53
    length = (-2 * uniform[:, :pairs].log()).sqrt()
    angle = 2 * math.pi * uniform[:, pairs:]
    values = torch.cat([length * angle.cos(), length * angle.sin()], dim=1).sum(0) / 2
    return (deviation * values[: like.numel()]).view(like.shape).to(like.device)
