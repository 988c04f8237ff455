# SPDX-License-Identifier: Apache-2.0
"""No row is longer than its bound, whatever it holds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_cadp.privacy.lattice import Lattice

floats32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
PROFILE = settings(derandomize=True, deadline=None, max_examples=200)


class MatrixNormLattice(Lattice):
    """A negative control: a matrix norm of the whole batch in place of the norm of each row."""

    def clip(self, latents):
        length = torch.linalg.matrix_norm(latents.double() / self.step, ord=self.norm)
        return (latents.double() / self.step * (self.bound / max(float(length), self.bound))).trunc().long()


def longest(steps: torch.Tensor, norm: int) -> int:
    """Return the largest sum of |q|^norm of a row, in Python's unbounded integers."""
    return max(sum(abs(entry) ** norm for entry in row) for row in steps.tolist())


def hostile_rows(size: int) -> torch.Tensor:
    rows = torch.zeros(9, size)
    rows[0] = 1e30
    rows[1] = -3.4e38
    rows[2, 0] = 3.4e38
    rows[3] = torch.linspace(-1e30, 1e-30, size)
    rows[4] = 1e-40
    rows[5] = 1 / math.sqrt(size)
    rows[6] = 1 / size
    rows[7, -1] = 1.0
    rows[8] = torch.randn(size, generator=torch.Generator().manual_seed(0)) * 100
    return rows


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("bound", [1e-3, 0.7, 1.0, 3.0, 64.0])
@pytest.mark.parametrize("size", [1, 2, 33, 5000])
def test_no_hostile_row_is_longer_than_the_bound_in_exact_integers(norm, bound, size):
    lattice = Lattice(bound, norm)
    assert longest(lattice.clip(hostile_rows(size)), norm) <= lattice.bound**norm


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("entry", [float("nan"), float("inf"), float("-inf")])
def test_even_rows_that_are_not_finite_are_within_the_bound(norm, entry):
    lattice = Lattice(1.0, norm)
    rows = torch.full((3, 7), entry)
    rows[1, 1:] = 0.0
    rows[2, 0] = 0.5
    assert longest(lattice.clip(rows), norm) <= lattice.bound**norm


@PROFILE
@given(st.lists(floats32, min_size=1, max_size=8), st.floats(1e-6, 1e6), st.sampled_from([1, 2]))
def test_no_row_is_longer_than_the_bound_in_exact_integers(row, bound, norm):
    lattice = Lattice(bound, norm)
    assert longest(lattice.clip(torch.tensor([row], dtype=torch.float32)), norm) <= lattice.bound**norm


def test_a_control_with_a_matrix_norm_lets_rows_through_that_are_too_long():
    row = torch.ones(1, 8)
    control = MatrixNormLattice(1.0, 1)
    assert longest(control.clip(row), 1) > 7 * control.bound
    assert longest(Lattice(1.0, 1).clip(row), 1) <= control.bound


def batch_mates_stay(lattice: Lattice, bad: float) -> bool:
    rows = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)) * 3
    changed = rows.clone()
    changed[2] = bad
    keep = [0, 1, 3, 4, 5]
    return torch.equal(lattice.clip(rows)[keep], lattice.clip(changed)[keep])


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("bad", [1e30, -3e38, 0.0])
def test_a_row_never_changes_its_batch_mates(norm, bad):
    assert batch_mates_stay(Lattice(1.0, norm), bad)


@pytest.mark.parametrize("norm", [1, 2])
def test_a_control_with_a_matrix_norm_lets_a_row_change_its_batch_mates(norm):
    assert not batch_mates_stay(MatrixNormLattice(1.0, norm), 1e30)


@PROFILE
@given(st.lists(st.floats(-0.375, 0.375, width=32), min_size=1, max_size=4))
def test_short_rows_are_rounded_toward_zero_and_otherwise_kept(row):
    lattice = Lattice(2.0, 1)
    rows = torch.tensor([row], dtype=torch.float32)
    back = lattice.clip(rows).double() * lattice.step
    assert bool((back.abs() <= rows.double().abs()).all())
    assert bool(((back - rows.double()).abs() < lattice.step).all())


@pytest.mark.parametrize("norm", [1, 2])
def test_long_rows_keep_their_direction_and_fill_the_bound(norm):
    lattice = Lattice(1.5, norm)
    rows = torch.randn(20, 16, generator=torch.Generator().manual_seed(2)) * 1e20
    steps = lattice.clip(rows).double()
    lengths = torch.linalg.vector_norm(steps, ord=norm, dim=1)
    assert bool((lengths > 0.9999 * lattice.bound).all())
    assert bool((torch.cosine_similarity(steps, rows.double()) > 0.999999).all())


@PROFILE
@given(st.floats(2.0**-100, 2.0**100))
def test_the_bound_is_about_a_million_steps_of_a_power_of_two(bound):
    lattice = Lattice(bound, 2)
    assert 2**19 <= lattice.bound <= 2**20
    assert math.frexp(lattice.step)[0] == 0.5
    assert lattice.bound * lattice.step <= bound


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf"), True, "1", 1e40, 1e-40])
def test_a_bound_out_of_range_is_refused_in_one_sentence(bound):
    with pytest.raises(ValueError, match=r"^clipping_bound is [^\n]*\.$"):
        Lattice(bound, 2)


def test_another_norm_is_refused():
    with pytest.raises(ValueError, match="norm is 3"):
        Lattice(1.0, 3)


def test_rows_beyond_the_overflow_analysis_are_refused():
    with pytest.raises(ValueError, match="4194305 directions"):
        Lattice(1.0, 2).clip(torch.zeros(1, 1).expand(1, 2**22 + 1))
