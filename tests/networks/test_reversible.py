# SPDX-License-Identifier: Apache-2.0
"""Backpropagation that stores no activation has the gradients of the one that does, and memory that does not grow."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from monai_cadp.networks import ConditionalINN, fit_moments

SMALL = {"rank": 16, "width": 16, "detail_width": 8}
NETWORKS = {
    "rows": lambda depth: ConditionalINN((), 12, condition_size=2, num_couplings=depth, **SMALL),
    "2D": lambda depth: ConditionalINN(
        (8, 8), 2, num_classes=3, num_levels=1, num_couplings=2, num_detail_couplings=depth, **SMALL
    ),
    "3D": lambda depth: ConditionalINN(
        (8, 4, 8), 1, num_classes=3, num_levels=1, num_couplings=2, num_detail_couplings=depth, **SMALL
    ),
    "3D, one space": lambda depth: ConditionalINN(
        (8, 8, 8),
        1,
        num_classes=3,
        num_levels=1,
        num_couplings=2,
        num_detail_couplings=depth,
        num_maps=2,
        num_local_couplings=2,
        detail_depth=1,
        **SMALL,
    ),
}


def trained(name, depth):
    """A network whose couplings do something, images, and conditions."""
    torch.manual_seed(0)
    network = NETWORKS[name](depth)
    x = torch.randn(24, network.in_channels, *network.spatial_shape)
    condition = torch.randn(24, 2) if name == "rows" else torch.arange(24) % 3
    fit_moments(network, lambda: iter([(x, condition)]))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return network, x, condition


def gradients(network, x, condition, reversible):
    network.set_reversible(reversible)
    network.zero_grad()
    x = x.clone().requires_grad_()
    loss = -network.log_prob(x, condition).mean()
    loss.backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    return loss.detach(), {**found, "images": x.grad}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_stored_activations(name):
    network, *batch = trained(name, depth=8)
    loss, stored = gradients(network, *batch, reversible=False)
    again, recomputed = gradients(network, *batch, reversible=True)
    assert torch.equal(loss, again)
    for part, gradient in stored.items():
        error = (recomputed[part] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < 1e-5, part


def stored_numbers(network, x, condition, reversible):
    """How many numbers autograd keeps for the backward pass, besides the weights."""
    network.set_reversible(reversible)
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = -network.log_prob(x, condition).mean()
    assert loss.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("name", ["rows", "2D", "3D"])
def test_what_is_kept_does_not_grow_with_the_number_of_couplings(name):
    kept = {
        (depth, reversible): stored_numbers(*trained(name, depth), reversible)
        for depth in (2, 16)
        for reversible in (False, True)
    }
    assert kept[16, False] > 3 * kept[2, False]
    assert kept[16, True] == kept[2, True] < kept[2, False]


def test_weights_that_are_frozen_get_no_gradient_and_the_others_theirs():
    network, *batch = trained("2D", depth=4)
    frozen = {name for name, parameter in network.named_parameters() if "first" in name}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
    _, stored = gradients(network, *batch, reversible=False)
    _, recomputed = gradients(network, *batch, reversible=True)
    for part, gradient in stored.items():
        assert (recomputed[part] is None) == (gradient is None) == (part in frozen)
        if gradient is not None:
            torch.testing.assert_close(recomputed[part], gradient, rtol=1e-4, atol=1e-5)


def test_checkpoints_are_those_of_the_other_kind_of_training():
    network, x, condition = trained("2D", depth=4)
    network.set_reversible(True)
    other = NETWORKS["2D"](4)
    other.load_state_dict(network.state_dict())
    assert other.fingerprint() == network.fingerprint()
    assert torch.equal(other.log_prob(x, condition), network.log_prob(x, condition))
