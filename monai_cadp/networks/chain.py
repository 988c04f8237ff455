# SPDX-License-Identifier: Apache-2.0
"""Several invertible modules, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from FrEIA.modules import InvertibleModule
from torch import Tensor, nn

from monai_cadp.networks.reversible import ReversibleModule, through_reversible

__all__ = ["Chain"]


class Chain(InvertibleModule):
    """Apply invertible modules in order; every module is given every condition (FrEIA's SequenceINN gives it one).

    Args:
        modules: modules in FrEIA's calling convention, each with one input and one output.

    Attributes:
        is_reversible: whether training recomputes what the modules were given, instead of storing it.
    """

    def __init__(self, modules: Iterable[ReversibleModule]) -> None:
        modules = list(modules)
        super().__init__(modules[0].dims_in)
        self.steps = nn.ModuleList(modules)
        self.is_reversible = False

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | None]:
        """Map x to z through all modules, or back with ``rev``; FrEIA's calling convention."""
        (x,) = x_or_z
        if self.is_reversible and torch.is_grad_enabled() and jac and not rev:
            y, log_det = through_reversible(cast("Iterable[ReversibleModule]", self.steps), x, c)
            return (y,), log_det
        total = x.new_zeros(x.shape[0]) if jac else None
        for step in reversed(self.steps) if rev else self.steps:
            (x,), log_det = step([x], c=c, rev=rev, jac=jac)
            if total is not None:
                total = total + log_det
        return (x,), total

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes as the modules give them."""
        for step in self.steps:
            input_dims = cast(InvertibleModule, step).output_dims(input_dims)
        return input_dims
