# SPDX-License-Identifier: Apache-2.0
"""The mechanism of the CADP paper as its code has it, with the epsilon that it really spends."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_cadp.networks import InvertibleNetwork
from monai_cadp.privacy.checks import checked_epsilon

__all__ = ["PublishedLaplace"]

LARGEST_BOUND = 4.0


class PublishedLaplace(nn.Module):
    r"""Clip all latents of a batch together, add Laplace noise whose scale never changes, and decode.

    As published: the bound is C = min(epsilon / 2, 4), taken for the sensitivity too; the batch (B, D) is divided by
    what its matrix norm, the largest column sum, exceeds C; the noise of every latent has the scale C / epsilon, which
    is 1/2 up to epsilon 8. What is called epsilon is not what is spent. One latent of one image is at most C in size,
    and two differ by at most 2C; of D latents each costs 2 epsilon, and an image 2 D epsilon, as long as the others of
    the batch are taken for public. It is here for comparison: never release patients with it.

    Args:
        inn: the network; put in evaluation mode.
        epsilon: what the paper calls epsilon.

    Raises:
        ValueError: if epsilon is not positive and finite.

    References:
        Toelle, Koethe, Andre, Meder, Engelhardt: Content-aware differential privacy with conditional invertible neural
        networks, MICCAI DeCaF 2022, and its published code.

    Example:
        >>> from monai_cadp.networks import ConditionalINN
        >>> inn = ConditionalINN((8, 8))
        >>> published = PublishedLaplace(inn, epsilon=1.0)
        >>> published(torch.rand(4, 1, 8, 8)).shape, published.true_epsilon
        (torch.Size([4, 1, 8, 8]), 128.0)
    """

    guarantee = None

    def __init__(self, inn: InvertibleNetwork, epsilon: float) -> None:
        super().__init__()
        self.inn = inn.eval()
        self.epsilon = checked_epsilon(epsilon)

    @property
    def true_epsilon(self) -> float:
        """What one image really spends."""
        return 2 * self.inn.num_latents * self.epsilon

    @torch.no_grad()
    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        r"""Map images (B, C, \*spatial) of a batch to images; each depends on all."""
        z, _ = self.inn.encode(x, condition)
        bound = min(self.epsilon / 2, LARGEST_BOUND)
        z = z / (torch.linalg.matrix_norm(z, ord=1) / bound).clamp(min=1.0)
        noise = torch.distributions.Laplace(torch.zeros_like(z), bound / self.epsilon).sample()
        return self.inn.decode(z + noise, condition)
