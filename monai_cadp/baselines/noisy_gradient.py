# SPDX-License-Identifier: Apache-2.0
"""One step's gradient with differential privacy: a random batch, clipped gradients, Gaussian noise."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from monai_cadp.privacy.randomness import random_words

if TYPE_CHECKING:
    from opacus import GradSampleModule

__all__ = ["clipped_gradient_sum", "gaussian_noise", "poisson_batch"]

# Gradients are clipped to this share of the bound; norms in 32 bits are wrong by less than the rest.
SHARE = 1 - 2.0**-10
# Pixels, over all images, whose gradients are held in memory together.
CHUNK_PIXELS = 256 * 28 * 28


def poisson_batch(num_images: int, sampling_rate: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Return the places of a random batch, which each image enters by an independent coin.

    The coins are 64-bit words of the operating system's cryptographic generator, compared to an integer: an image is in
    with the probability ``sampling_rate``, rounded down to a multiple of :math:`2^{-64}`.

    Args:
        num_images: number of images, public.
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
    words = random_words(torch.empty(num_images, 0), 1, generator)
    return (words[:, 0] <= last).nonzero()[:, 0]


def clipped_gradient_sum(
    network: GradSampleModule, images: Tensor, labels: Tensor, largest_norm: float
) -> list[Tensor]:
    r"""Return the sum of each image's gradient of the cross-entropy, clipped to a norm over all parameters.

    An image whose gradient is not finite counts as 0, as an image does that is not in the batch.

    Args:
        network: images to logits, in training mode, with ``loss_reduction="sum"``; no layer mixes images.
        images: (n, C, \*spatial), perhaps none.
        labels: classes (n,).
        largest_norm: to which gradients are clipped.

    Returns:
        For every parameter a tensor of its shape, float64.

    Example:
        >>> from opacus import GradSampleModule
        >>> network = GradSampleModule(nn.Linear(5, 2), loss_reduction="sum")
        >>> weight, bias = clipped_gradient_sum(network, torch.randn(7, 5), torch.zeros(7).long(), largest_norm=1.0)
        >>> weight.shape, bool(weight.norm() <= 7)
        (torch.Size([2, 5]), True)
    """
    parameters = list(network.parameters())
    total = [torch.zeros(parameter.shape, dtype=torch.float64, device=parameter.device) for parameter in parameters]
    chunk = max(1, CHUNK_PIXELS // math.prod(images.shape[2:]))
    # None for an empty batch, of which `split` would make one empty chunk.
    for x, y in zip(images.split(chunk), labels.split(chunk), strict=True) if len(images) else ():
        network.zero_grad(set_to_none=True)
        with warnings.catch_warnings():
            # Of hooks on the first layer, whose input needs no gradient.
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            nn.functional.cross_entropy(network(x), y, reduction="sum").backward()
        gradients = [parameter.grad_sample.flatten(1) for parameter in parameters]
        norms = torch.stack([gradient.norm(dim=1) for gradient in gradients]).norm(dim=0)
        factors = (SHARE * largest_norm / norms).clamp(max=1.0)
        finite = norms.isfinite()
        if not finite.all():
            factors, gradients = factors[finite], [gradient[finite] for gradient in gradients]
        for part, gradient in zip(total, gradients, strict=True):
            part += (factors @ gradient).view_as(part)
    network.zero_grad(set_to_none=True)
    return total


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
