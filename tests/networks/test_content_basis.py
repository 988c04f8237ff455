# SPDX-License-Identifier: Apache-2.0
"""The content basis finds the directions along which images change most, and needs no image for it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from monai_cadp.networks import ConditionalINN, ContentBasis, PaperINN, fit_moments, new_event
from monai_cadp.privacy import TrainingData


def linear_network(num_classes=None, rank=8):
    """Whitening of data whose covariance has two large, two middle and four small eigenvalues."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    deviations = torch.tensor([10.0, 8.0, 1.0, 0.8, 0.1, 0.09, 0.08, 0.07])
    inn = ConditionalINN((), 8, num_classes=num_classes, num_couplings=0, rank=rank)
    x = torch.randn(4000, 8, generator=generator) * deviations @ axes.T
    labels = None if num_classes is None else torch.arange(4000) % num_classes
    fit_moments(inn, lambda: [(x, labels)])
    return inn


def exact_second_moment(inn):
    """E[J^T J]: the network is linear, so one Jacobian for each class is all there is."""
    classes = inn.condition_space.num_classes
    total = torch.zeros(inn.num_latents, inn.num_latents, dtype=torch.float64)
    for label in [None] if classes is None else torch.arange(classes).split(1):
        point = torch.zeros(1, inn.num_latents)
        jacobian = torch.autograd.functional.jacobian(lambda z, label=label: inn.decode(z, label).flatten(), point)
        jacobian = jacobian.reshape(-1, inn.num_latents).double()
        total += jacobian.T @ jacobian / (classes or 1)
    return total


@pytest.mark.parametrize("num_classes", [None, 2])
@pytest.mark.parametrize("k", [2, 4])
def test_the_directions_span_the_leading_eigenvectors_wherever_there_is_a_gap(num_classes, k):
    inn = linear_network(num_classes)
    exact = torch.linalg.eigh(exact_second_moment(inn)).eigenvectors[:, -k:]
    found = ContentBasis.fit(inn, k, num_samples=8192).directions.double()
    difference = exact @ exact.T - found @ found.T
    assert torch.linalg.matrix_norm(difference, 2) < 1e-2


def test_the_weights_are_the_eigenvalues_up_to_one_factor():
    inn = linear_network()
    values = torch.linalg.eigvalsh(exact_second_moment(inn)).flip(0)[:4].float()
    weights = ContentBasis.fit(inn, 4, num_samples=8192).weights
    assert weights.mean() == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(weights, values / values.mean(), rtol=0.1, atol=0)
    assert (weights[:-1] >= weights[1:]).all()


def test_weights_may_be_a_power_of_the_eigenvalues_for_the_same_directions():
    inn = linear_network()
    whole, root = (ContentBasis.fit(inn, 4, num_samples=512, weight_power=power) for power in (1.0, 0.5))
    assert torch.equal(whole.directions, root.directions)
    torch.testing.assert_close(root.weights / root.weights[0], (whole.weights / whole.weights[0]).sqrt())
    assert root.weights.mean() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("power", [-0.1, 1.5, float("nan")])
def test_a_power_that_turns_the_order_of_weights_or_overrates_the_first_is_refused(power):
    with pytest.raises(ValueError, match="weight_power"):
        ContentBasis.fit(linear_network(), 4, num_samples=512, weight_power=power)


@pytest.mark.parametrize("numbers", [{"num_directions": 0}, {"num_directions": -1}, {"num_samples": 0}])
def test_a_basis_without_directions_or_samples_is_refused(numbers, refused):
    with refused(ValueError, "expected 1 or more of each"):
        ContentBasis.fit(ConditionalINN((), 4), **numbers)


@pytest.mark.parametrize("condition", [{}, {"num_classes": 3}, {"condition_size": 2}])
def test_the_directions_are_orthonormal(condition):
    inn = ConditionalINN((4, 6), 1, **condition, num_levels=1, rank=4, width=8, num_couplings=2)
    directions = ContentBasis.fit(inn, 5, num_samples=128).directions
    assert (directions.T @ directions - torch.eye(5)).abs().max() < 1e-5


def test_a_basis_depends_on_the_network_and_the_seed_and_on_nothing_else():
    inn = linear_network()
    torch.manual_seed(1)
    first = ContentBasis.fit(inn, 3, num_samples=256, seed=5)
    torch.manual_seed(2)
    again = ContentBasis.fit(inn, 3, num_samples=256, seed=5)
    assert torch.equal(first.directions, again.directions) and torch.equal(first.weights, again.weights)
    assert not torch.equal(first.directions, ContentBasis.fit(inn, 3, num_samples=256, seed=6).directions)


@pytest.mark.parametrize("options", [{}, {"in_subspace": True}], ids=["all latents", "the subspace"])
def test_images_are_decoded_once_where_memory_allows_it_and_the_basis_is_the_same(monkeypatch, options):
    inn = ConditionalINN((4, 4), num_levels=1, num_couplings=0, rank=4)
    decode, calls = inn.decode, []
    monkeypatch.setattr(inn, "decode", lambda *inputs: calls.append(1) or decode(*inputs))
    kept = ContentBasis.fit(inn, 2, num_samples=64, batch_size=16, num_passes=3, **options)
    assert len(calls) == 4
    monkeypatch.setattr("monai_cadp.networks.content_basis.MOST_KEPT", 64 * 4 - 1)
    drawn = ContentBasis.fit(inn, 2, num_samples=64, batch_size=16, num_passes=3, **options)
    assert len(calls) == 4 + 16
    assert torch.equal(kept.directions, drawn.directions) and torch.equal(kept.weights, drawn.weights)


def test_fitting_leaves_the_network_and_the_global_generator_as_they_were():
    inn = ConditionalINN((), 6, num_couplings=2, width=8)
    inn.train()
    before, state = inn.fingerprint(), torch.random.get_rng_state()
    ContentBasis.fit(inn, 3, num_samples=128)
    assert inn.fingerprint() == before and inn.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in inn.parameters())


def test_no_more_directions_are_found_than_there_are():
    assert ContentBasis.fit(ConditionalINN((), 3), 64, num_samples=128).num_directions == 3


def test_completion_keeps_the_content_and_takes_all_else_from_the_rest():
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(12, 4, generator=generator)).Q
    basis = ContentBasis(directions, torch.ones(4))
    content, rest = torch.randn(5, 4, generator=generator), torch.randn(5, 12, generator=generator)
    completed = basis.complete(content, rest)
    torch.testing.assert_close(basis.project(completed), content, rtol=0, atol=1e-5)
    outside = torch.eye(12) - directions @ directions.T
    torch.testing.assert_close(completed @ outside, rest @ outside, rtol=0, atol=1e-5)


def test_completion_of_prior_content_is_a_sample_of_the_prior():
    generator = torch.Generator().manual_seed(0)
    basis = ContentBasis(torch.linalg.qr(torch.randn(6, 2, generator=generator)).Q, torch.ones(2))
    z = basis.complete(torch.randn(20000, 2, generator=generator), torch.randn(20000, 6, generator=generator))
    assert (z.T.cov() - torch.eye(6)).abs().max() < 0.05
    assert z.mean(0).abs().max() < 0.05


def test_content_may_be_looked_for_in_the_whitened_subspace_alone(refused):
    torch.manual_seed(0)
    inn = ConditionalINN((4, 6), num_levels=1, rank=4, width=8, num_couplings=2)
    basis = ContentBasis.fit(inn, 3, num_samples=128, in_subspace=True)
    z, content = torch.randn(5, 24), torch.randn(5, 3)
    completed = basis.complete(content, z)
    subspace = inn.whitening.basis
    assert basis.directions.shape == (6, 3) and basis.num_latents == 24
    assert torch.allclose(subspace @ (subspace.T @ basis.directions), basis.directions, atol=1e-6)
    assert torch.allclose(basis.project(completed), content, atol=1e-5)
    assert torch.equal(completed[:, 6:], z[:, 6:])
    place = ContentBasis.leading(inn, 3, in_subspace=True)
    place.load_state_dict(basis.state_dict())
    assert torch.equal(place.directions, basis.directions)
    without = PaperINN((4, 4), 1, depths=(1,), num_dense=1, dense_width=8)
    with refused(ValueError, "PaperINN"):
        ContentBasis.fit(without, 3, num_samples=128, in_subspace=True)


def test_the_subspace_holds_the_leading_eigenvectors_of_what_it_spans():
    inn = linear_network(rank=3)
    subspace = inn.whitening.basis.double()
    exact = subspace.T @ exact_second_moment(inn) @ subspace
    values = torch.linalg.eigvalsh(exact).flip(0)[:3].float()
    weights = ContentBasis.fit(inn, 3, num_samples=8192, in_subspace=True).weights
    torch.testing.assert_close(weights, values / values.mean(), rtol=0.1, atol=0)


def test_the_leading_directions_are_a_place_for_a_fitted_basis():
    inn = linear_network()
    fitted, place = ContentBasis.fit(inn, 3, num_samples=128), ContentBasis.leading(inn, 3)
    assert not torch.equal(place.directions, fitted.directions) and place.weights.tolist() == [1.0] * 3
    place.load_state_dict(fitted.state_dict())
    assert torch.equal(place.directions, fitted.directions) and torch.equal(place.weights, fitted.weights)
    assert ContentBasis.leading(inn, 100).num_directions == 8


def test_a_basis_is_no_longer_than_the_latents(refused):
    with refused(ValueError, "length 4 for 3 latents"):
        ContentBasis(torch.eye(4), torch.ones(4), num_latents=3)


@pytest.mark.parametrize(
    ("directions", "weights", "match"),
    [
        (torch.eye(4)[:, :2], torch.ones(3), "expected \\(R, k\\) and \\(k,\\)"),
        (torch.eye(4)[0], torch.ones(4), "expected \\(R, k\\) and \\(k,\\)"),
        (torch.zeros(4, 0), torch.ones(0), "expected \\(R, k\\) and \\(k,\\)"),
        (2 * torch.eye(4), torch.ones(4), "not orthonormal"),
        (torch.full((4, 2), float("nan")), torch.ones(2), "not orthonormal"),
        (torch.eye(4), torch.tensor([1.0, 1.0, 0.0, 1.0]), "not positive"),
        (torch.eye(4), torch.tensor([1.0, 1.0, float("nan"), 1.0]), "not positive"),
    ],
)
def test_what_is_no_basis_is_refused(refused, directions, weights, match):
    with refused(ValueError, match):
        ContentBasis(directions, weights)


# --- what directions have been learnt from ----------------------------------------------------------------------------


def protection(basis):
    return TrainingData.of(basis).protection


def test_directions_of_which_nobody_says_what_they_are_from_count_as_unprotected():
    people = torch.linalg.qr(torch.randn(6, 2, generator=torch.Generator().manual_seed(0))).Q
    assert protection(ContentBasis(people, torch.ones(2))) == "unprotected"
    assert protection(ContentBasis(torch.eye(6)[:, :2], torch.ones(2), training_events=())) == "public"


@pytest.mark.parametrize("change", ["copy_", "data", "numpy", "attribute", "part of a state dict"])
def test_directions_that_are_changed_by_hand_count_as_unprotected(change):
    basis = ContentBasis(torch.eye(6)[:, :2], torch.ones(2), training_events=())
    before, people = basis.training_events, torch.eye(6)[:, 4:].clone()
    if change == "copy_":
        basis.directions.copy_(people)
    elif change == "data":
        basis.directions.data[:] = people
    elif change == "numpy":
        basis.directions.numpy()[:] = people.numpy()
    elif change == "attribute":
        basis.directions = people
    else:
        basis.directions.copy_(people)
        basis.load_state_dict({"_extra_state": {"training_events": []}}, strict=False)
    assert before == () and protection(basis) == "unprotected"
    # It only grows.
    basis.load_state_dict(ContentBasis(torch.eye(6)[:, :2], torch.ones(2), training_events=()).state_dict())
    assert protection(basis) == "unprotected"


class TwoBases(torch.nn.Module):
    """Under another name than a privatizer's."""

    def __init__(self):
        super().__init__()
        self.second = ContentBasis(torch.eye(6)[:, :2], torch.ones(2), training_events=())


@pytest.mark.parametrize("way", ["tensors alone", "another record", "in half precision", "of the caller"])
def test_no_way_to_bring_other_directions_leaves_the_record_as_it_was(way):
    both, people = TwoBases(), torch.eye(6)[:, 4:].clone()
    if way == "tensors alone":
        both.load_state_dict({"second.directions": people}, strict=False)
    elif way == "another record":
        both.load_state_dict({**both.state_dict(), "second.directions": people})
    elif way == "in half precision":
        both.bfloat16().second.directions.copy_(people)
    else:
        given = torch.eye(6)[:, :2].contiguous()
        both.second = ContentBasis(given, torch.ones(2), training_events=())
        given.copy_(people)
        assert torch.equal(both.second.directions, torch.eye(6)[:, :2])
        return
    assert protection(both.second) == "unprotected"


def test_loading_a_part_of_something_larger_changes_no_record_of_what_is_not_loaded():
    both = TwoBases()
    both.load_state_dict({}, strict=False)
    assert protection(both.second) == "public"


@pytest.mark.parametrize("move", ["double", "copy", "pickle", "round"])
def test_a_basis_that_is_moved_copied_or_rounded_has_learnt_nothing_more(move):
    basis = ContentBasis(
        torch.linalg.qr(torch.randn(6, 2, generator=torch.Generator().manual_seed(0))).Q,
        torch.ones(2),
        training_events=[new_event("flow", "public")],
    )
    events = basis.training_events
    if move == "double":
        basis = basis.double().float()
    elif move == "copy":
        basis = copy.deepcopy(basis)
    elif move == "pickle":
        basis = pickle.loads(pickle.dumps(basis))
    else:
        basis.round_to_half()
    assert basis.training_events == events


def test_the_first_directions_keep_the_record_of_all(refused):
    basis = ContentBasis(torch.eye(6)[:, :3], torch.tensor([3.0, 2.0, 1.0]), 8, training_events=[new_event("flow")])
    two = basis.first(2)
    assert two.training_events == basis.training_events and two.num_latents == 8
    assert torch.equal(two.directions, basis.directions[:, :2]) and two.weights.tolist() == [3.0, 2.0]
    for count in (0, 4):
        with refused(ValueError, f"num_directions is {count}; expected 1 to 3"):
            basis.first(count)
