# SPDX-License-Identifier: Apache-2.0
"""Backpropagation that recomputes what invertible modules were given, and stores none of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from FrEIA.modules import InvertibleModule
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["ReversibleModule", "through_reversible"]


class ReversibleModule(InvertibleModule):
    """An invertible module with one input and one output, whose input can be had again from its output."""

    def backpropagate(
        self, y: Tensor, y_gradient: Tensor, log_det_gradient: Tensor, c: Sequence[Tensor], learnt: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Sequence[Tensor | None]]:
        r"""Return the input that led to an output, and gradients by the input and by what is learnt.

        Args:
            y: output (B, C, \*spatial).
            y_gradient: gradient by it.
            log_det_gradient: gradient by the log-determinant (B,).
            c: conditions.
            learnt: the conditions and parameters whose gradients are wanted.

        Returns:
            The input, its gradient, and a gradient or None for each of ``learnt``.
        """
        with torch.no_grad():
            (x,), _ = self([y], c=c, rev=True, jac=False)
        x.requires_grad_()
        with torch.enable_grad():
            (again,), log_det = self([x], c=c)
        outputs, gradients = [again], [y_gradient]
        if log_det.requires_grad:
            outputs.append(log_det)
            gradients.append(log_det_gradient)
        x_gradient, *found = torch.autograd.grad(outputs, [x, *learnt], gradients, allow_unused=True)
        return x.detach(), x_gradient, found


def through_reversible(modules: Iterable[ReversibleModule], x: Tensor, c: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    r"""Map x through modules in order, with the memory of one of them, however many there are.

    Only the last output is kept. Backpropagation goes from the last module to the first, gets the input of each from
    its output, and computes it once more with the graph of this one module: a third more arithmetic for a coupling,
    which evaluates its subnetwork once more. Inputs come back up to rounding, and so do gradients.

    Args:
        modules: modules in FrEIA's calling convention.
        x: input (B, C, \*spatial).
        c: conditions, given to all modules.

    Returns:
        The output and the sum of log-determinants (B,).

    References:
        Gomez, Ren, Urtasun, Grosse: The reversible residual network: backpropagation without storing activations,
        NeurIPS 2017.

    Example:
        >>> from monai_cadp.networks.detail import ChannelScale
        >>> x = torch.rand(2, 3, 4, 4, requires_grad=True)
        >>> y, log_det = through_reversible([ChannelScale([(3, 4, 4)])], x, [])
        >>> y.sum().backward()
        >>> x.grad.unique().tolist()
        [1.0]
    """
    modules = list(modules)
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return cast("tuple[Tensor, Tensor]", _Through.apply(modules, x, len(c), *c, *parameters))


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, modules: list[ReversibleModule], x: Tensor, num_conditions: int, *tensors: Tensor) -> Any:
        conditions = tensors[:num_conditions]
        total = x.new_zeros(x.shape[0])
        for module in modules:
            (x,), log_det = module([x], c=conditions)
            total = total + log_det
        ctx.modules = modules
        ctx.save_for_backward(x, *conditions)
        return x, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y_gradient: Tensor, log_det_gradient: Tensor) -> Any:
        y, *conditions = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3 : 3 + len(conditions)]
        conditions = [c.detach().requires_grad_(want) for c, want in zip(conditions, wanted, strict=True)]
        learnt = [c for c in conditions if c.requires_grad]
        # Made before anything large: small tensors that stay, in between large ones that go, would leave gaps in which
        # the next large one finds no place.
        sums = [torch.zeros_like(c) for c in learnt]
        of_parameters = [
            [torch.zeros_like(p) if p.requires_grad else None for p in module.parameters()] for module in ctx.modules
        ]
        for module, totals in zip(reversed(ctx.modules), reversed(of_parameters), strict=True):
            trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
            y, y_gradient, found = module.backpropagate(
                y, y_gradient, log_det_gradient, conditions, [*learnt, *trained]
            )
            for total, new in zip([*sums, *(t for t in totals if t is not None)], found, strict=True):
                if new is not None:
                    total += new
        of_learnt = iter(sums)
        of_conditions = [next(of_learnt) if c.requires_grad else None for c in conditions]
        return None, y_gradient, None, *of_conditions, *(total for totals in of_parameters for total in totals)
