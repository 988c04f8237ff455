# SPDX-License-Identifier: Apache-2.0
"""Clipping onto a lattice, in exact integers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_cadp.privacy.checks import checked_positive
from monai_cadp.privacy.mechanism import width

__all__ = ["LATTICE_BITS", "MAX_DIRECTIONS", "Lattice"]

LATTICE_BITS = 20
MAX_DIRECTIONS = 2**22


@dataclass(frozen=True)
class Lattice:
    r"""The multiples of a power of two, fine enough that a clipping bound is about a million of them.

    The step is :math:`g = 2^{\lceil \log_2 C \rceil - 20}`, so that the bound in steps, :math:`\lfloor C / g
    \rfloor`, lies from :math:`2^{19}` to :math:`2^{20}`; dividing by g is exact in floating point.

    Args:
        clipping_bound: C, in units of the latents, from 2^-100 to 2^100.
        norm: 1 or 2, the norm that is bounded.

    Raises:
        ValueError: if the bound is out of its range, or the norm is another one.

    Example:
        >>> Lattice(clipping_bound=1.0, norm=2).bound
        1048576
    """

    clipping_bound: float
    norm: int

    def __post_init__(self) -> None:
        bound = checked_positive("clipping_bound", self.clipping_bound)
        object.__setattr__(self, "clipping_bound", bound)
        if not 2.0**-100 <= bound <= 2.0**100:
            raise ValueError(f"clipping_bound is {bound}; expected a number from 2^-100 to 2^100.")
        if self.norm not in (1, 2):
            raise ValueError(f"The norm is {self.norm}; expected 1 or 2.")

    @property
    def step(self) -> float:
        """g, in units of the latents."""
        mantissa, exponent = math.frexp(self.clipping_bound)
        return math.ldexp(1.0, exponent - (mantissa == 0.5) - LATTICE_BITS)

    @property
    def bound(self) -> int:
        """The clipping bound in steps, rounded down."""
        return math.floor(self.clipping_bound / self.step)

    def clip(self, latents: Tensor) -> Tensor:
        r"""Shrink every row to the bound and round it toward zero onto the lattice.

        Proof that no row q of the result is longer than the bound c (in steps). Floating-point arithmetic only
        proposes integers q (any at all, if a row is not finite); every entry is then clipped to :math:`|q_i| \le c \le
        2^{20}`. With :math:`k \le 2^{22}` entries the sums :math:`\sum |q_i|` and :math:`\sum q_i^2` are at most
        :math:`2^{62}` and exact in int64. A row whose sum passes c or :math:`c^2` is replaced by zeros in the last
        line, whatever has happened before. So :math:`\lVert q \rVert \le c`, and two rows differ by 2 c at most.
        Everything is done row by row, so that no row has an influence on another.

        (The proposal is good: it aims at c (1 - 2^-40) and rounds toward zero, so that the last line finds nothing to
        do.)

        Args:
            latents: (B, k), float32; a row that is not finite is still clipped to the bound.

        Returns:
            Integers (B, k), int64, in steps.

        Raises:
            ValueError: if k is above 2^22.
        """
        if width(latents) > MAX_DIRECTIONS:
            raise ValueError(f"The latents have {width(latents)} directions; expected {MAX_DIRECTIONS} at most.")
        in_steps = latents.double() / self.step
        length = torch.linalg.vector_norm(in_steps, ord=self.norm, dim=1, keepdim=True)
        target = self.bound * (1 - 2.0**-40)
        proposal = in_steps * (target / length.clamp(min=target))
        steps = proposal.trunc().long().clamp(-self.bound, self.bound)
        return torch.where(self.exact_length(steps) <= self.bound**self.norm, steps, torch.zeros_like(steps))

    def exact_length(self, steps: Tensor) -> Tensor:
        """Return sum |q| or sum q^2 of every row, (B, 1) int64; exact for entries up to 2^20 and rows up to 2^22."""
        return (steps.abs() if self.norm == 1 else steps * steps).sum(dim=1, keepdim=True)
