# SPDX-License-Identifier: Apache-2.0
"""The invertible block in which the network learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from monai_cadp.networks.reversible import ReversibleModule

__all__ = ["CLAMP", "AffineCoupling"]

CLAMP = 2.0


class AffineCoupling(ReversibleModule):
    r"""Affine coupling that transforms some channels, given the others and the condition.

    With the channels split into passive :math:`x_p` and active :math:`x_a`,

    .. math:: y_a = x_a \, e^{s} + t, \qquad y_p = x_p, \qquad (s', t) = f(x_p; c), \qquad s = b \tanh(s' / b).

    Unlike FrEIA's own blocks it conditions its subnetwork by an embedded bias and not by extra input channels, keeps
    the order of the channels, and is the identity when the subnetwork returns zeros, so that a new network is exactly
    its whitening.

    Args:
        dims_in: one shape (C, \*spatial) or (K,), as FrEIA passes it.
        dims_c: shapes of the conditions.
        passive: indices of the channels that stay as they are.
        subnet: called with (number of input channels, number of output channels), returns a module that maps
            (x_p, \*conditions) to (B, 2 \* active channels, \*spatial).
        largest_log_scale: b, the bound of the logarithm of the scale.

    References:
        Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP, ICLR 2017, equations 7 and 8.
    """

    def __init__(
        self,
        dims_in: Sequence[Sequence[int]],
        dims_c: Sequence[Sequence[int]] | None = None,
        *,
        passive: Sequence[int],
        subnet: Callable[[int, int], nn.Module],
        largest_log_scale: float = CLAMP,
    ) -> None:
        super().__init__(dims_in, dims_c)
        channels = dims_in[0][0]
        active = [i for i in range(channels) if i not in set(passive)]
        self.register_buffer("passive", torch.tensor(list(passive), dtype=torch.long), persistent=False)
        self.register_buffer("active", torch.tensor(active, dtype=torch.long), persistent=False)
        self.register_buffer("order", torch.tensor([*passive, *active]).argsort(), persistent=False)
        self.largest_log_scale = largest_log_scale
        self.subnet = subnet(len(passive), 2 * len(active))

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | None]:
        """Map x to z, or back with ``rev``; FrEIA's calling convention."""
        (x,) = x_or_z
        passive, active = x.index_select(1, self.passive), x.index_select(1, self.active)
        log_scale, shift = self._scale_and_shift(passive, c)
        active = (active - shift) * torch.exp(-log_scale) if rev else active * torch.exp(log_scale) + shift
        y = torch.cat([passive, active], dim=1).index_select(1, self.order)
        log_det = log_scale.flatten(1).sum(1) if jac else None
        return (y,), (-log_det if rev and log_det is not None else log_det)

    def backpropagate(
        self, y: Tensor, y_gradient: Tensor, log_det_gradient: Tensor, c: Sequence[Tensor], learnt: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Sequence[Tensor | None]]:
        """Return what the base class does, with one evaluation of the subnetwork, and a graph of nothing else."""
        passive = y.index_select(1, self.passive).requires_grad_()
        with torch.enable_grad():
            log_scale, shift = self._scale_and_shift(passive, c)
        with torch.no_grad():
            scaled = y.index_select(1, self.active) - shift
            x = y.index_copy(1, self.active, scaled * torch.exp(-log_scale))
            active_gradient = y_gradient.index_select(1, self.active)
            by_log_scale = active_gradient * scaled + log_det_gradient.reshape(-1, *(1 for _ in y.shape[1:]))
            x_gradient = y_gradient.index_copy(1, self.active, active_gradient * torch.exp(log_scale))
        by_passive, *found = torch.autograd.grad(
            [log_scale, shift], [passive, *learnt], [by_log_scale, active_gradient], allow_unused=True
        )
        x_gradient.index_add_(1, self.passive, by_passive)
        return x, x_gradient, found

    def _scale_and_shift(self, passive: Tensor, c: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        raw_scale, shift = self.subnet(passive, *c).chunk(2, dim=1)
        return self.largest_log_scale * torch.tanh(raw_scale / self.largest_log_scale), shift

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes are kept."""
        return input_dims
