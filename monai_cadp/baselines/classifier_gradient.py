# SPDX-License-Identifier: Apache-2.0
"""The clipped gradients of a classifier, image by image."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from monai_cadp.metrics.classifier import classifier_loss
from monai_cadp.privacy.noisy_sum import SumLattice

if TYPE_CHECKING:
    from opacus import GradSampleModule

__all__ = ["clipped_gradient_sum"]

# Pixels, over all images, whose gradients are held in memory together.
CHUNK_PIXELS = 256 * 28 * 28


def clipped_gradient_sum(
    network: GradSampleModule, images: Tensor, labels: Tensor, lattice: SumLattice
) -> list[Tensor]:
    r"""Return the sum of each image's gradient of the cross-entropy, clipped to a norm over all parameters.

    An image whose gradient is not finite counts as 0, as an image does that is not in the batch.

    Args:
        network: images to logits, in training mode, with ``loss_reduction="sum"``; no layer mixes images.
        images: (n, C, \*spatial), perhaps none.
        labels: classes (n,), or several labels (n, K), whose cross-entropies are added.
        lattice: has the norm to which gradients are clipped, and the step in which their sum is counted.

    Returns:
        For every parameter a tensor of its shape: integers, in steps of the lattice, as float64.

    Example:
        >>> from opacus import GradSampleModule
        >>> from torch import nn
        >>> network = GradSampleModule(nn.Linear(5, 2), loss_reduction="sum")
        >>> lattice = SumLattice(largest_norm=1.0, noise_multiplier=2.0)
        >>> weight, bias = clipped_gradient_sum(network, torch.randn(7, 5), torch.zeros(7).long(), lattice)
        >>> weight.shape, bool(weight.norm() * lattice.step <= 7)
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
            classifier_loss(network(x), y, reduction="sum").backward()
        summed = lattice.clipped_sum([parameter.grad_sample for parameter in parameters])
        for part, gradient in zip(total, summed, strict=True):
            part += gradient
    network.zero_grad(set_to_none=True)
    return total
