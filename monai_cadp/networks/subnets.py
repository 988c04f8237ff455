# SPDX-License-Identifier: Apache-2.0
"""The ordinary networks inside a coupling; their last layer starts at zero: every coupling starts as the identity."""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

__all__ = ["ConvSubnet", "DenseSubnet", "bounded"]


def bounded(x: Tensor, largest: float) -> Tensor:
    """Return x where it is small, and nothing beyond ``largest``."""
    return largest * torch.tanh(x / largest)


class DenseSubnet(nn.Module):
    """Perceptron with two hidden layers whose first layer is shifted by the embedded condition.

    Args:
        in_features: length of the input.
        out_features: length of the output.
        width: length of the hidden layers.
        embedding_size: length of the condition vector; 0 for none.
        dropout: share of hidden features that are left out where weights learn: in training mode, with gradients. What
            encodes or decodes without gradients leaves out none, in whichever mode, or no image would come back.
        largest_input: bound of what the perceptron sees; None for no bound.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        width: int,
        embedding_size: int,
        dropout: float = 0.0,
        largest_input: float | None = None,
    ) -> None:
        super().__init__()
        self.largest_input = largest_input
        self.dropout = dropout
        self.first = nn.Linear(in_features, width)
        self.embed = nn.Linear(embedding_size, width, bias=False) if embedding_size else None
        self.hidden = nn.Linear(width, width)
        self.last = _zero(nn.Linear(width, out_features))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map (B, in_features), (B, embedding_size) to (B, out_features)."""
        h = self.first(x if self.largest_input is None else bounded(x, self.largest_input))
        if self.embed is not None:
            h = h + self.embed(condition)
        return self.last(self._thinned(torch.relu(self.hidden(self._thinned(torch.relu(h))))))

    def _thinned(self, features: Tensor) -> Tensor:
        learns = self.training and torch.is_grad_enabled()
        return nn.functional.dropout(features, self.dropout) if learns and self.dropout else features


class ConvSubnet(nn.Module):
    """Convolutions of size 3, 1 and 3 over the passive channels and the coarser image, shifted by the condition.

    Args:
        in_channels: number of passive channels; may be 0.
        out_channels: number of output channels.
        context_channels: number of channels of the coarser image.
        spatial_dims: 2 or 3.
        width: number of hidden channels.
        embedding_size: length of the condition vector; 0 for none.
        depth: residual convolutions of size 3 before the last one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        context_channels: int,
        spatial_dims: int,
        width: int,
        embedding_size: int,
        depth: int = 0,
    ) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.first = conv(in_channels + context_channels, width, kernel_size=3, padding=1)
        self.embed = nn.Linear(embedding_size, width, bias=False) if embedding_size else None
        self.hidden = conv(width, width, kernel_size=1)
        self.further = nn.ModuleList(conv(width, width, kernel_size=3, padding=1) for _ in range(depth))
        self.last = _zero(conv(width, out_channels, kernel_size=3, padding=1))
        # Up to a third less time on CPUs.
        layout = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
        self.to(memory_format=layout)  # type: ignore[call-overload]

    def forward(self, x: Tensor, context: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map (B, in, *spatial), (B, context, *spatial), (B, embedding_size) to (B, out, *spatial)."""
        h = self.first(torch.cat([x, context], dim=1))
        if self.embed is not None:
            bias = self.embed(condition)
            h = h + bias.reshape(*bias.shape, *(1 for _ in h.shape[2:]))
        h = torch.relu(self.hidden(torch.relu(h)))
        for layer in self.further:
            h = h + torch.relu(layer(h))
        return self.last(h)


def _zero(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
