# SPDX-License-Identifier: Apache-2.0
"""Gradients of single people are those of batches of one, for every kind of network."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.engines import bits_per_dimension, likelihood_gradients
from monai_cadp.networks import ConditionalINN, PaperINN, fit_moments

SMALL = {"rank": 8, "num_couplings": 2, "width": 8, "num_detail_couplings": 2, "detail_width": 8}
ALIGNED = {**SMALL, "num_levels": 1, "num_maps": 2, "detail_depth": 1}
NETWORKS = {
    "rows": lambda: ConditionalINN((), 6, **SMALL),
    "rows, conditions": lambda: ConditionalINN((), 6, condition_size=3, **SMALL),
    "2D": lambda: ConditionalINN((8, 8), 2, num_classes=3, num_levels=1, **SMALL),
    "3D": lambda: ConditionalINN((4, 8, 4), 1, num_classes=3, num_levels=1, **SMALL),
    "3D, one space": lambda: ConditionalINN((8, 8, 8), 1, num_classes=3, **ALIGNED),
    "3D, local flow": lambda: ConditionalINN((8, 8, 8), 1, num_classes=3, num_local_couplings=2, **ALIGNED),
    "the paper's": lambda: PaperINN((8, 8), 1, num_classes=3, depths=(1, 1), num_dense=1, dense_width=8),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_persons_gradient_is_the_mean_of_those_of_their_images_in_batches_of_one(name):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    x = torch.randn(6, network.in_channels, *network.spatial_shape)
    space = network.condition_space
    condition = torch.arange(6) % 3 if space.num_classes else torch.randn(6, 3) if space.condition_size else None
    if isinstance(network, ConditionalINN):
        fit_moments(network, lambda: iter([(x, condition)]))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.is_floating_point() and parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape))
    person = torch.tensor([0, 0, 0, 1, 2, 2])
    found = likelihood_gradients(network, x, condition, person, 3)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    expected = [torch.zeros(3, *parameter.shape) for parameter in trained]
    for index in range(6):
        network.zero_grad()
        chosen = None if condition is None else condition[index : index + 1]
        bits_per_dimension(network, x[index : index + 1], chosen).sum().backward()
        for part, parameter in zip(expected, trained, strict=True):
            if parameter.grad is not None:
                part[person[index]] += parameter.grad / int((person == person[index]).sum())
    scale = max(float(part.abs().max()) for part in expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= 1e-5 * scale
