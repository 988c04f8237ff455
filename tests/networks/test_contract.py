# SPDX-License-Identifier: Apache-2.0
"""The contract that every invertible network keeps, whatever its kind, its sizes and its condition."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field

import pytest
import torch

from monai_cadp.networks import ConditionalINN, InvertibleNetwork, PaperINN, fit_moments

SMALL = {"rank": 16, "num_couplings": 3, "width": 16, "num_detail_couplings": 3, "detail_width": 8}
# For images that share a space.
SMALL_ALIGNED = {**SMALL, "num_levels": 1, "rank": 3, "num_maps": 2, "detail_depth": 1}
SMALL_LOCAL = {**SMALL_ALIGNED, "num_local_couplings": 2}
# Levels that see the whole coarser image.
SMALL_WHOLE = {
    "dropout": 0.0,
    "rank": 16,
    "num_couplings": 3,
    "width": 16,
    "context_width": 16,
    "num_detail_couplings": 3,
}
SMALL_WHOLE |= {"detail_width": 8}
SMALL_PAPER = {"depths": (1,), "num_dense": 1, "dense_width": 16}


@dataclass(frozen=True)
class Case:
    shape: tuple[int, ...]
    channels: int = 1
    kind: type[InvertibleNetwork] = ConditionalINN
    options: dict = field(default_factory=dict)
    condition: str = "none"

    def __str__(self):
        sizes = "x".join(map(str, self.shape)) or "row"
        levels = f"-levels{self.options['num_levels']}" if "num_levels" in self.options else ""
        maps = "-maps" if "num_maps" in self.options else ""
        maps = "-whole" if "context_width" in self.options else maps
        local = "-local" if "num_local_couplings" in self.options else ""
        return f"{self.kind.__name__}-{sizes}-channels{self.channels}-{self.condition}{levels}{maps}{local}"

    def build(self):
        condition = {"none": {}, "class": {"num_classes": 3}, "vector": {"condition_size": 2}}[self.condition]
        return self.kind(self.shape, self.channels, **condition, **self.options)

    def batch(self, size, seed=0):
        """Images whose pixels are correlated, and conditions that say something about them."""
        generator = torch.Generator().manual_seed(seed)
        num = self.channels
        for length in self.shape:
            num *= length
        mixing = torch.randn(num, num, generator=torch.Generator().manual_seed(99)) / num**0.5
        mixing += 0.5 * torch.eye(num)
        x = torch.randn(size, num, generator=generator) @ mixing + 0.3
        condition = None
        if self.condition == "class":
            condition = torch.arange(size) % 3
            x = x + 0.5 * condition[:, None]
        elif self.condition == "vector":
            condition = torch.randn(size, 2, generator=generator)
            x = x + 0.5 * condition.sum(1, keepdim=True)
        return x.reshape(size, self.channels, *self.shape), condition


def conditional(shape, channels=1, condition="none", num_levels=0):
    return Case(shape, channels, ConditionalINN, {**SMALL, "num_levels": num_levels}, condition)


CASES = [
    conditional((), 5),
    conditional((), 4, "class"),
    conditional((), 3, "vector"),
    conditional((), 1, "class"),
    conditional((5, 7)),
    conditional((5, 3), 3, "class"),
    conditional((6, 10), 1, "vector", 1),
    conditional((6, 4), 3, "none", 1),
    conditional((8, 8), 1, "class", 2),
    conditional((8, 4), 3, "vector", 2),
    conditional((3, 5, 4), 1, "class"),
    conditional((3, 3, 2), 3, "vector"),
    conditional((4, 2, 6), 1, "none", 1),
    conditional((2, 4, 2), 3, "class", 1),
    conditional((4, 4, 4), 1, "vector", 2),
    Case((4, 4, 2), 1, ConditionalINN, SMALL_ALIGNED, "class"),
    Case((4, 6), 3, ConditionalINN, SMALL_ALIGNED, "vector"),
    Case((4, 4, 8), 1, ConditionalINN, SMALL_LOCAL, "class"),
    Case((4, 8), 3, ConditionalINN, SMALL_LOCAL, "vector"),
    Case((8, 4), 1, ConditionalINN, SMALL_LOCAL, "none"),
    Case((8, 8), 1, ConditionalINN, {**SMALL_WHOLE, "num_levels": 1}, "class"),
    Case((8, 12), 1, ConditionalINN, {**SMALL_WHOLE, "num_levels": 2}, "vector"),
    Case((8, 12), 3, ConditionalINN, {**SMALL_WHOLE, "num_levels": 2, "refiner_width": 0}, "class"),
    Case((8, 4), 3, ConditionalINN, {**SMALL_WHOLE, "num_levels": 1}, "none"),
    Case((6, 10), 1, ConditionalINN, {**SMALL_WHOLE, "num_levels": 1}, "class"),
    Case((4, 8, 4), 1, ConditionalINN, {**SMALL_WHOLE, "num_levels": 1}, "class"),
    Case((4, 4, 4), 2, ConditionalINN, {**SMALL_WHOLE, "num_levels": 1}, "vector"),
    Case((4, 6), 1, PaperINN, SMALL_PAPER, "class"),
    Case((4, 4), 3, PaperINN, SMALL_PAPER, "none"),
    Case((8, 4), 1, PaperINN, {**SMALL_PAPER, "depths": (1, 1)}, "vector"),
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def network(case):
    """Fitted to data, then moved a little in every parameter: no coupling is the identity."""
    torch.manual_seed(0)
    network = case.build()
    if isinstance(network, ConditionalINN):
        fit_moments(network, lambda: [case.batch(300, seed) for seed in (1, 2)])
    with torch.no_grad():
        for parameter in trained(network).values():
            parameter += 0.05 * torch.randn_like(parameter)
    return network.eval()


def trained(network):
    """FrEIA keeps permutations as parameters, which nobody trains."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def same(first, second):
    return torch.equal(first.detach(), second.detach())


# --- what it computes -------------------------------------------------------------------------------------------------


def test_shapes_are_those_of_the_contract(network, case):
    x, condition = case.batch(4)
    z, log_det = network.encode(x, condition)
    assert z.shape == (4, network.num_latents) and log_det.shape == (4,)
    assert network.decode(z, condition).shape == x.shape
    assert network.num_latents == x[0].numel()
    assert network.log_prob(x, condition).shape == (4,)


def test_the_likelihoods_of_flows_add_up_and_parts_share_no_parameter(network, case):
    x, condition = case.batch(3)
    parts = network.part_log_probs(x, condition)
    assert len(parts) == network.num_parts
    assert torch.allclose(sum(parts[: network.num_flows]), network.log_prob(x, condition), rtol=1e-4, atol=1e-3)
    for part, log_prob in enumerate(parts):
        if not log_prob.requires_grad:
            continue
        gradients = torch.autograd.grad(log_prob.sum(), trained(network).values(), allow_unused=True, retain_graph=True)
        for name, gradient in zip(trained(network), gradients, strict=True):
            assert gradient is None or network.part_of(name) == part


def test_a_part_may_see_some_of_the_images_only(network, case):
    x, condition = case.batch(4)
    all_of_them = network.part_log_probs(x, condition)
    some = network.part_log_probs(x, condition, num_samples=[3] * network.num_parts)
    for whole, part in zip(all_of_them, some, strict=True):
        assert torch.allclose(whole[:3], part, rtol=1e-4, atol=1e-3)


def test_decode_is_the_inverse_of_encode(network, case):
    x, condition = case.batch(16)
    z, _ = network.encode(x, condition)
    assert (network.decode(z, condition) - x).abs().max() < 1e-4


def test_encode_is_the_inverse_of_decode(network, case):
    _, condition = case.batch(16)
    z = torch.randn(16, network.num_latents, generator=torch.Generator().manual_seed(3))
    assert (network.encode(network.decode(z, condition), condition)[0] - z).abs().max() < 1e-3


@pytest.mark.slow
def test_the_log_determinant_is_that_of_the_jacobian(network, case):
    x, condition = case.batch(2, seed=4)

    def total(batch):
        return network.encode(batch, condition)[0].sum(0)

    # Samples do not mix, so the Jacobian of the sum over the batch holds the Jacobian of every sample.
    jacobian = torch.autograd.functional.jacobian(total, x).transpose(0, 1).flatten(2)
    log_det = network.encode(x, condition)[1].double()
    assert (torch.linalg.slogdet(jacobian.double()).logabsdet - log_det).abs().max() < 1e-3 * network.num_latents


def test_no_coupling_is_the_identity_in_these_tests(network, case):
    x, condition = case.batch(4)
    moved = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in trained(moved).values():
            parameter.zero_()
    if trained(network):
        assert (moved.encode(x, condition)[0] - network.encode(x, condition)[0]).abs().max() > 1e-3


def test_log_prob_is_the_density_of_the_change_of_variables(network, case):
    x, condition = case.batch(4)
    z, log_det = network.encode(x, condition)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(network.log_prob(x, condition), prior + log_det, rtol=1e-4, atol=1e-3)


def test_every_parameter_gets_a_gradient(network, case):
    network.zero_grad(set_to_none=True)
    if not trained(network):  # one column has nothing to couple
        return
    sum(part.mean() for part in network.part_log_probs(*case.batch(16))).backward()
    for name, parameter in trained(network).items():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0, name
    network.zero_grad(set_to_none=True)


def test_calling_it_is_encoding(network, case):
    x, condition = case.batch(3)
    for called, encoded in zip(network(x, condition), network.encode(x, condition), strict=True):
        assert same(called, encoded)


def test_training_and_evaluation_mode_agree_to_the_bit(network, case):
    x, condition = case.batch(4)
    latents = network.encode(x, condition)[0]
    images = network.decode(latents, condition)
    network.train()
    try:
        assert same(network.encode(x, condition)[0], latents)
        assert same(network.decode(latents, condition), images)
    finally:
        network.eval()


def test_decoding_the_same_latents_twice_gives_the_same_images(network, case):
    x, condition = case.batch(4)
    latents = network.encode(x, condition)[0].detach()
    before = latents.clone()
    assert same(network.decode(latents, condition), network.decode(latents, condition))
    assert same(latents, before)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_a_sample_does_not_depend_on_its_batch_mates(network, case, poison):
    x, condition = case.batch(4)
    z = torch.randn(4, network.num_latents, generator=torch.Generator().manual_seed(5))
    poisoned_x, poisoned_z = x.clone(), z.clone()
    poisoned_x[[0, 1, 3]] = poison
    poisoned_z[[0, 1, 3]] = poison
    clean, hostile = network.encode(x, condition), network.encode(poisoned_x, condition)
    assert same(clean[0][2], hostile[0][2]) and same(clean[1][2], hostile[1][2])
    assert same(network.decode(z, condition)[2], network.decode(poisoned_z, condition)[2])


# --- how it is kept ---------------------------------------------------------------------------------------------------


def through_a_file(network, case, tmp_path):
    torch.save(network.state_dict(), tmp_path / "network.pt")
    other = case.build()
    other.load_state_dict(torch.load(tmp_path / "network.pt", weights_only=True))
    return other


COPIES = {
    "state_dict": through_a_file,
    "pickle": lambda network, case, tmp_path: pickle.loads(pickle.dumps(network)),
    "deepcopy": lambda network, case, tmp_path: copy.deepcopy(network),
}


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_gives_the_same_bits(network, case, tmp_path, way):
    x, condition = case.batch(4)
    other = COPIES[way](network, case, tmp_path)
    for kept, expected in zip(other.encode(x, condition), network.encode(x, condition), strict=True):
        assert same(kept, expected)
    z = network.encode(x, condition)[0]
    assert same(other.decode(z, condition), network.decode(z, condition))
    assert other.fingerprint() == network.fingerprint()


def test_a_changed_weight_changes_the_fingerprint(network):
    other = copy.deepcopy(network)
    with torch.no_grad():
        tensor = next(iter([*trained(other).values(), *other.buffers()]))
        tensor.view(-1)[0] += 1.0
    assert other.fingerprint() != network.fingerprint()


def test_repr_names_the_network(network, case):
    assert case.kind.__name__ in repr(network)


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_images_that_do_not_fit_are_refused(network, case, refused):
    x, condition = case.batch(2)
    wrong = {
        "one axis too few": x[0],
        "one axis too many": x[..., None],
        "one channel too many": torch.cat([x, x[:, :1]], 1),
        "no sample": x[:0],
        "no axis": torch.zeros(()),
    }
    if case.shape:
        wrong["a size too large"] = torch.cat([x, x[..., :1]], -1)
    for images in wrong.values():
        with refused(ValueError, "images have shape .*expected"):
            network.encode(images, condition)
    for images in (x.int(), x.long(), x.bool(), x + 1j, x.numpy()):
        with refused(TypeError, "images are .*expected a float tensor"):
            network.encode(images, condition)


def test_latents_that_do_not_fit_are_refused(network, case, refused):
    _, condition = case.batch(2)
    for shape in [(2, network.num_latents + 1), (network.num_latents,), (0, network.num_latents), (2, 1, 1)]:
        with refused(ValueError, "latents have shape .*expected"):
            network.decode(torch.zeros(shape), condition)
    with refused(TypeError, "latents are .*expected a float tensor"):
        network.decode(torch.zeros(2, network.num_latents, dtype=torch.long), condition)


def test_conditions_that_do_not_fit_are_refused(network, case, refused):
    x, condition = case.batch(2)
    z = torch.zeros(2, network.num_latents)
    wrong = {
        "none": [(ValueError, torch.tensor([0, 1])), (ValueError, torch.zeros(2, 2))],
        "class": [
            (ValueError, None),
            (ValueError, torch.tensor([0, 3])),
            (ValueError, torch.tensor([-1, 0])),
            (ValueError, torch.tensor([0])),
            (ValueError, torch.tensor([[0], [1]])),
            (TypeError, torch.tensor([0.0, 1.0])),
            (TypeError, torch.tensor([True, False])),
            (TypeError, [0, 1]),
        ],
        "vector": [
            (ValueError, None),
            (ValueError, torch.zeros(2, 3)),
            (ValueError, torch.zeros(2)),
            (ValueError, torch.zeros(1, 2)),
            (ValueError, torch.tensor([[0.0, float("nan")], [0.0, 0.0]])),
            (ValueError, torch.tensor([[0.0, float("inf")], [0.0, 0.0]])),
            (TypeError, torch.zeros(2, 2, dtype=torch.long)),
            (TypeError, [[0.0, 0.0], [0.0, 0.0]]),
        ],
    }[case.condition]
    for kind, bad in wrong:
        match = "without one" if case.condition == "none" else "expected|pass"
        with refused(kind, match):
            network.encode(x, bad)
        with refused(kind, match):
            network.decode(z, bad)


def test_a_checkpoint_of_another_architecture_is_refused_by_the_name_of_the_difference(network, case, refused):
    for name, value in {
        ConditionalINN: {"num_couplings": 1, "width": 8, "detail_width": 16},
        PaperINN: {"num_dense": 0, "dense_width": 8},
    }[case.kind].items():
        other = Case(case.shape, case.channels, case.kind, {**case.options, name: value}, case.condition).build()
        with refused(ValueError, f"{name} = {network.config[name]}, but .* {value}; build"):
            other.load_state_dict(network.state_dict())


def test_a_checkpoint_of_another_kind_of_network_is_refused(network, case, refused):
    other = Case((8, 4), 1, PaperINN, {**SMALL_PAPER}, "none")
    if case.kind is PaperINN:
        other = conditional((), 2)
    with refused(ValueError, f"holds a {case.kind.__name__}, but the network is a {other.kind.__name__}; build"):
        other.build().load_state_dict(network.state_dict())
