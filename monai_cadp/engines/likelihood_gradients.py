# SPDX-License-Identifier: Apache-2.0
"""The gradient of the likelihood, person by person."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from monai_cadp.networks import InvertibleNetwork

__all__ = ["likelihood_gradients"]


class _Loss(nn.Module):
    """Negative log-likelihood in bits per dimension of embedded conditions, where ``torch.func`` can call it."""

    def __init__(self, network: InvertibleNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, embedding: Tensor, group: Tensor) -> Tensor:
        return -self.network.embedded_log_prob(x, embedding, group) / (self.network.num_latents * math.log(2.0))


def likelihood_gradients(
    network: InvertibleNetwork, x: Tensor, condition: Tensor | None, person: Tensor, num_persons: int
) -> list[Tensor]:
    r"""Return for every person the mean gradient of bits per dimension over their images.

    Args:
        network: whose trained parameters are meant.
        x: images (B, C, \*spatial).
        condition: their conditions, or None.
        person: whose image it is (B,), from 0 to ``num_persons`` - 1.
        num_persons: number of persons, each with one image at least.

    Returns:
        For every parameter that requires a gradient, in order, gradients (num_persons, \*shape).

    Raises:
        ValueError: if a shape or a class does not fit the network.

    Example:
        >>> from monai_cadp.networks import ConditionalINN
        >>> inn = ConditionalINN(spatial_shape=(), in_channels=3, num_couplings=1, width=4)
        >>> gradients = likelihood_gradients(inn, torch.randn(5, 3), None, torch.tensor([0, 0, 1, 1, 1]), 2)
        >>> gradients[0].shape, next(inn.parameters()).shape
        (torch.Size([2, 4, 1]), torch.Size([4, 1]))
    """
    network.check_images(x)
    embedding, group = network.embed(condition, x)
    loss = _Loss(network)
    trained = {name: p.detach() for name, p in loss.named_parameters() if p.requires_grad}

    def of_one(parameters: dict[str, Tensor], x: Tensor, embedding: Tensor, group: Tensor) -> Tensor:
        return functional_call(loss, parameters, (x[None], embedding[None], group[None]))[0]

    by_image = vmap(grad(of_one), in_dims=(None, 0, 0, 0))(trained, x, embedding, group)
    # Sums of one image each would take more time than the gradients.
    if torch.equal(person, torch.arange(num_persons)):
        return list(by_image.values())
    count = torch.bincount(person, minlength=num_persons).to(x)
    gradients = []
    for part in by_image.values():
        total = part.new_zeros(num_persons, *part.shape[1:]).index_add_(0, person, part)
        gradients.append(total / count.reshape(-1, *(1 for _ in part.shape[1:])))
    return gradients
