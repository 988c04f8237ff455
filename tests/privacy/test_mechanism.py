# SPDX-License-Identifier: Apache-2.0
"""What every mechanism does alike."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch

from monai_cadp.privacy import (
    GaussianMechanism,
    LaplaceMechanism,
    Mechanism,
    PriorOnly,
    PrivacyGuarantee,
    SubsetSelection,
)

MECHANISMS = {
    "subset": lambda: SubsetSelection(12.0, num_candidates=64),
    "subset, configured": lambda: SubsetSelection(12.0, num_candidates=64).configured(5),
    "gaussian": lambda: GaussianMechanism(2.0, 1e-5, 1.5),
    "laplace": lambda: LaplaceMechanism(2.0, 1.5),
    "prior only": PriorOnly,
}
WITH_EPSILON = {
    "subset": lambda epsilon: SubsetSelection(epsilon),
    "gaussian": lambda epsilon: GaussianMechanism(epsilon, 1e-5, 1.0),
    "laplace": lambda epsilon: LaplaceMechanism(epsilon, 1.0),
}


class Recorder(Mechanism):
    """Returns what reaches it, to see what the base class has done."""

    epsilon = 1.0

    def _randomize(self, latents, generator):
        return latents


class Tagged(torch.Tensor):
    """A tensor that carries more than numbers."""


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("make", MECHANISMS.values(), ids=MECHANISMS)
class TestEveryMechanism:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_returns_finite_float32_of_the_same_shape(self, make, dtype):
        released = make()(torch.randn(3, 5).to(dtype))
        assert released.dtype == torch.float32
        assert released.shape == (3, 5)
        assert bool(torch.isfinite(released).all())

    def test_nothing_of_it_can_be_changed_once_it_is_made(self, make):
        """Noise for one epsilon would be stated with another."""
        mechanism = make()
        before = mechanism.guarantee().to_json()
        for name in [name for name in vars(mechanism) if not name.startswith("_")]:
            with pytest.raises(AttributeError, match=f"{name} of a {type(mechanism).__name__} was to be changed"):
                setattr(mechanism, name, 0.5)
            with pytest.raises(AttributeError, match="make a new mechanism"):
                delattr(mechanism, name)
        assert mechanism.guarantee().to_json() == before

    def test_takes_an_empty_batch(self, make):
        assert make()(torch.zeros(0, 5)).shape == (0, 5)

    def test_draws_afresh_at_every_call_whatever_the_global_seed_is(self, make):
        mechanism = make()
        latents = torch.randn(20, 5)
        torch.manual_seed(0)
        first = mechanism(latents)
        torch.manual_seed(0)
        assert not torch.equal(first, mechanism(latents))

    def test_repeats_itself_with_an_explicit_generator(self, make):
        mechanism = make()
        latents = torch.randn(4, 5)
        assert torch.equal(mechanism(latents, seeded()), mechanism(latents, generator=seeded()))

    def test_treats_nan_and_infinity_as_zero(self, make):
        mechanism = make()
        zeros = torch.zeros(2, 5)
        broken = zeros.clone()
        broken[0, :3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
        assert torch.equal(mechanism(broken, seeded()), mechanism(zeros, seeded()))

    def test_never_changes_its_input(self, make):
        latents = torch.full((2, 5), float("nan"))
        make()(latents)
        assert bool(latents.isnan().all())

    def test_lets_no_gradient_through(self, make):
        assert not make()(torch.randn(2, 5, requires_grad=True)).requires_grad

    def test_drops_what_a_tensor_subclass_carries(self, make):
        assert type(make()(torch.randn(2, 5).as_subclass(Tagged))) is torch.Tensor

    @pytest.mark.parametrize("again", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy, copy.copy])
    def test_survives_pickling_and_copying(self, make, again):
        mechanism = make()
        copied = again(mechanism)
        latents = torch.randn(4, 5)
        assert torch.equal(mechanism(latents, seeded()), copied(latents, seeded()))
        assert copied.parameters() == mechanism.parameters()

    def test_is_written_on_one_line(self, make):
        text = repr(make())
        assert "\n" not in text
        assert text.startswith(type(make()).__name__ + "(epsilon=")

    def test_draws_afresh_at_every_run_of_a_traced_module(self, make):
        mechanism = make().configured(5)
        traced = torch.jit.trace(lambda x: mechanism(x), torch.zeros(2, 5), check_trace=False)
        latents = torch.randn(20, 5)
        runs = [traced(latents) for _ in range(4)]
        assert all(run.shape == (20, 5) for run in runs)
        assert not any(torch.equal(runs[i], runs[j]) for i in range(4) for j in range(i))

    @pytest.mark.parametrize("shape", [(5,), (2, 5, 1), (2, 0), ()])
    def test_refuses_another_shape(self, make, shape):
        with pytest.raises(ValueError, match=r"^The latents have shape .*; expected \(B, k\) with k of 1 or more\.$"):
            make()(torch.zeros(shape))

    @pytest.mark.parametrize("latents", [torch.zeros(2, 5).long(), torch.zeros(2, 5).cfloat(), [[1.0]]])
    def test_refuses_another_type(self, make, latents):
        with pytest.raises(TypeError, match=r"^The latents are of type .*; expected a floating-point tensor"):
            make()(latents)

    def test_once_configured_refuses_another_number_of_directions(self, make):
        mechanism = make()
        fitted = mechanism.configured(5, torch.ones(5))
        assert fitted is not mechanism
        assert type(fitted) is type(mechanism)
        with pytest.raises(ValueError, match="The latents have 6 directions"):
            fitted(torch.zeros(2, 6))

    @pytest.mark.parametrize("count", [0, -1, 2.0, True])
    def test_cannot_be_configured_for_no_directions(self, make, count):
        with pytest.raises(ValueError, match="num_directions is"):
            make().configured(count)

    @pytest.mark.parametrize(
        "weights", [torch.ones(4), -torch.ones(5), torch.zeros(5), torch.full((5,), float("nan")), torch.ones(5, 1)]
    )
    def test_cannot_be_configured_with_weights_that_do_not_fit(self, make, weights):
        with pytest.raises(ValueError, match="The weights"):
            make().configured(5, weights)


@pytest.mark.parametrize("make", WITH_EPSILON.values(), ids=WITH_EPSILON)
@pytest.mark.parametrize("epsilon", [0, 0.0, -1.0, float("nan"), float("inf"), True, "1", None, 10**400])
def test_an_epsilon_that_is_not_a_finite_number_above_zero_is_refused_in_one_sentence(make, epsilon):
    with pytest.raises(ValueError, match=r"^epsilon is [^\n]*; expected a finite number above 0\.$"):
        make(epsilon)


@pytest.mark.parametrize(("epsilon", "said"), [(None, "None"), (True, "True"), ("8", "'8'"), ([8.0], "a list")])
def test_an_epsilon_that_is_no_number_is_said_as_it_came(epsilon, said):
    with pytest.raises(ValueError, match=f"^epsilon is {said};"):
        SubsetSelection(epsilon)
    with pytest.raises(ValueError, match=f"^The epsilon of a guarantee is {said};"):
        PrivacyGuarantee(epsilon=epsilon, mechanism="SubsetSelection")


@pytest.mark.parametrize("make", [SubsetSelection, GaussianMechanism, LaplaceMechanism])
def test_there_is_no_default_epsilon(make):
    with pytest.raises(TypeError):
        make()


def test_finite_entries_reach_the_mechanism_as_they_are():
    latents = torch.tensor([[1.0, float("nan"), -2.5, 1e30]])
    assert torch.equal(Recorder()(latents), torch.tensor([[1.0, 0.0, -2.5, 1e30]]))


def test_a_double_that_float32_cannot_hold_counts_as_infinite():
    assert torch.equal(Recorder()(torch.tensor([[1e300, 1.0]], dtype=torch.float64)), torch.tensor([[0.0, 1.0]]))


@pytest.mark.slow
def test_importing_the_package_imports_no_heavy_library_and_no_other_package_of_this_project():
    code = (
        "import sys, monai_cadp.privacy\n"
        "heavy = {'opendp', 'scipy', 'monai', 'FrEIA', 'monai_cadp.networks', 'monai_cadp.data'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
