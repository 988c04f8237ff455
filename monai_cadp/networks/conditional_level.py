# SPDX-License-Identifier: Apache-2.0
"""The flow of one level of details, given the whole coarser image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from FrEIA.modules import InvertibleModule
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from monai_cadp.networks.chain import Chain
from monai_cadp.networks.context import ContextNetwork
from monai_cadp.networks.coupling import AffineCoupling
from monai_cadp.networks.detail import ChannelScale
from monai_cadp.networks.folding import fold, unfold
from monai_cadp.networks.reversible import ReversibleModule
from monai_cadp.networks.rotation import ChannelRotation
from monai_cadp.networks.subnets import bounded

__all__ = ["LARGEST_INPUT", "LARGEST_LOG_SCALE", "ConditionalLevel"]

# Bounds of the logarithm of scale: of what the coarser image predicts, and of every coupling.
LARGEST_PREDICTED_LOG_SCALE = 2.5
LARGEST_LOG_SCALE = 0.8
# Couplings see nothing larger, in standard deviations: what lies outside of all data has no wild effect.
LARGEST_INPUT = 4.0


class ConditionalLevel(InvertibleModule):
    r"""Model the details d of an image, given its coarser image x and the condition c.

    A U-Net sees the whole coarser image and gives every place features h(x, c). Details are folded, cells of 2 x 2
    (x 2) neighbours becoming channels, and then

    .. math:: y = (d - \mu(h)) \, e^{-s(h)}, \qquad |s| < 2.5,

    passes couplings that see h, with fixed orthogonal mixing of the channels between them. All scales are bounded, and
    so are the inputs that couplings see: a draw from the prior stays near the data.

    Args:
        channels: number of detail channels.
        context_channels: number of channels of the coarser image.
        spatial_shape: size of the details, that of the coarser image; not folded where one is odd.
        num_couplings: number of couplings.
        width: hidden channels of the couplings.
        context_widths: hidden channels of the U-Net at full, half ... size.
        embedding_size: length of the embedded condition; 0 for none.
        may_fold: whether details are folded, where sizes are even.

    References:
        Yu, Derpanis, Brubaker: Wavelet Flow, NeurIPS 2020 (a flow for the details of every level).

    Example:
        >>> level = ConditionalLevel(3, 1, (4, 6), num_couplings=2, width=8, context_widths=(8, 8), embedding_size=2)
        >>> details, coarser, embedding = torch.randn(2, 3, 4, 6), torch.randn(2, 1, 4, 6), torch.eye(2)
        >>> (z,), log_det = level([details], c=[coarser, embedding])
        >>> (back,), _ = level([z], c=[coarser, embedding], rev=True)
        >>> torch.allclose(back, details, atol=1e-5), log_det.shape
        (True, torch.Size([2]))
    """

    def __init__(
        self,
        channels: int,
        context_channels: int,
        spatial_shape: Sequence[int],
        *,
        num_couplings: int,
        width: int,
        context_widths: Sequence[int],
        embedding_size: int,
        may_fold: bool = True,
    ) -> None:
        dims = [(channels, *spatial_shape)]
        conditions = [(context_channels, *spatial_shape), (embedding_size,)]
        super().__init__(dims, conditions)
        spatial_dims = len(spatial_shape)
        self.is_folded = may_fold and all(size % 2 == 0 for size in spatial_shape)
        cells = 2**spatial_dims if self.is_folded else 1
        size = channels * cells
        conv = Conv[Conv.CONV, spatial_dims]
        self.scale = ChannelScale(dims)
        self.context_scale = ChannelScale([conditions[0]])
        self.context = ContextNetwork(
            context_channels * cells, context_widths, spatial_dims=spatial_dims, embedding_size=embedding_size
        )
        self.predicted = conv(context_widths[0], 2 * size, kernel_size=1)
        nn.init.zeros_(self.predicted.weight)
        nn.init.zeros_(self.predicted.bias)
        features = [(context_widths[0], *(length // 2 if self.is_folded else length for length in spatial_shape))]
        folded = [(size, *features[0][1:])]

        def subnet(inputs: int, outputs: int) -> nn.Module:
            return _Subnet(inputs, outputs, context_widths[0], width, spatial_dims)

        steps: list[ReversibleModule] = [ChannelRotation(folded, seed=0)]
        for index in range(num_couplings):
            passive = range(size // 2)
            steps.append(
                AffineCoupling(folded, features, passive=passive, subnet=subnet, largest_log_scale=LARGEST_LOG_SCALE)
            )
            steps.append(ChannelRotation(folded, seed=1 + index))
        self.couplings = Chain(steps)
        # Up to a third less time on CPUs.
        layout = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
        for part in (self.context, self.predicted, self.couplings):
            part.to(memory_format=layout)  # type: ignore[call-overload]

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | None]:
        """Map details to latents, or back with ``rev``; the conditions are (coarser image, embedding)."""
        (x,) = x_or_z
        context = self._context(*c)
        y, log_det = self._inverse(x, *context, jac) if rev else self._forward(x, *context, jac)
        return (y,), log_det

    @torch.no_grad()
    def denoised(self, latent: Tensor, coarser: Tensor, embedding: Tensor, deviation: Tensor) -> Tensor:
        r"""Draw details, and take from them the noise with which they were learnt.

        Of details d with normal noise of deviation sigma, whose density is p(d | x), the expected details without it
        are :math:`d + \sigma^2 \nabla_d \log p(d \mid x)`.

        Args:
            latent: (B, C, \*spatial).
            coarser: the coarser image (B, context channels, \*spatial).
            embedding: the embedded condition (B, E).
            deviation: sigma, for every channel of the image (context channels, 1, ...).

        Returns:
            Details (B, C, \*spatial).

        References:
            Efron: Tweedie's formula and selection bias, JASA 106, 2011, equation 1.4.
        """
        context = self._context(coarser, embedding)
        details, _ = self._inverse(latent, *context, jac=False)
        # Tensors that were made in inference mode have no gradients, whatever is enabled afterwards.
        with torch.inference_mode(False), torch.enable_grad():
            features, shift, log_scale = (part.clone() if part.is_inference() else part for part in context)
            details = details.clone().requires_grad_()
            again, log_det = self._forward(details, features, shift, log_scale, jac=True)
            assert log_det is not None
            log_prob = log_det - 0.5 * again.flatten(1).square().sum(1)
            (score,) = torch.autograd.grad(log_prob.sum(), details)
        # Haar's details are ordered by kind, then by the channel of the image.
        variance = deviation.square().repeat(details.shape[1] // len(deviation), *(1 for _ in details.shape[2:]))
        return details.detach() + variance * score

    def _forward(
        self, x: Tensor, features: Tensor, shift: Tensor, log_scale: Tensor, jac: bool
    ) -> tuple[Tensor, Tensor | None]:
        (scaled,), _ = self.scale([x], jac=False)
        y = (self._fold(scaled) - shift) * torch.exp(-log_scale)
        (y,), log_det = self.couplings([y], c=[features], jac=jac)
        if log_det is not None:
            log_det = log_det + self.scale.log_det(x) - log_scale.flatten(1).sum(1)
        return self._unfold(y), log_det

    def _inverse(
        self, z: Tensor, features: Tensor, shift: Tensor, log_scale: Tensor, jac: bool
    ) -> tuple[Tensor, Tensor | None]:
        (y,), log_det = self.couplings([self._fold(z)], c=[features], rev=True, jac=jac)
        (x,), _ = self.scale([self._unfold(y * torch.exp(log_scale) + shift)], rev=True, jac=False)
        if log_det is not None:
            log_det = log_det - self.scale.log_det(x) + log_scale.flatten(1).sum(1)
        return x, log_det

    def _context(self, coarser: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (coarser,), _ = self.context_scale([coarser], jac=False)
        features = self.context(self._fold(coarser), embedding)
        shift, log_scale = self.predicted(features).chunk(2, dim=1)
        return features, shift, bounded(log_scale, LARGEST_PREDICTED_LOG_SCALE)

    def _fold(self, x: Tensor) -> Tensor:
        return fold(x) if self.is_folded else x

    def _unfold(self, x: Tensor) -> Tensor:
        return unfold(x) if self.is_folded else x

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes are kept."""
        return input_dims


class _Subnet(nn.Module):
    """Convolutions of size 3, 1 and 3 over the passive channels, shifted by the features of the coarser image."""

    def __init__(self, inputs: int, outputs: int, features: int, width: int, spatial_dims: int) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.first = conv(inputs, width, kernel_size=3, padding=1)
        self.of_context = conv(features, width, kernel_size=1, bias=False)
        self.hidden = conv(width, width, kernel_size=1)
        self.last = conv(width, outputs, kernel_size=3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        h = nn.functional.silu(self.first(bounded(x, LARGEST_INPUT)) + self.of_context(features))
        return self.last(nn.functional.silu(self.hidden(h)))
