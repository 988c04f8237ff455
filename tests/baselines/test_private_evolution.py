# SPDX-License-Identifier: Apache-2.0
"""A table of Private Evolution resembles the originals, keeps its promise, and says what it is."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from scipy.stats import kstest, norm

from monai_cadp.baselines import evolve_table
from monai_cadp.data import TableRows, TableSchema
from monai_cadp.privacy import PrivacyGuarantee, TrainingData
from monai_cadp.privacy.noisy_sum import SumLattice

COLUMNS = [
    {"name": "age", "kind": "continuous", "lowest": 20, "highest": 100},
    {"name": "grade", "kind": "ordinal", "values": [1, 2, 3]},
    {"name": "side", "kind": "categorical", "values": ["left", "right"]},
    {"name": "diagnosis", "kind": "categorical", "values": ["benign", "malignant"]},
]
SCHEMA = TableSchema(COLUMNS, ["diagnosis"])
BENIGN = {"age": 30.0, "grade": 1, "side": "left", "diagnosis": "benign"}
MALIGNANT = {"age": 80.0, "grade": 3, "side": "right", "diagnosis": "malignant"}
ROWS = 60 * [BENIGN] + 20 * [MALIGNANT]

evolve = partial(evolve_table, epsilon=4.0, delta=1e-3, num_rows=8, iterations=2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def rounds(monkeypatch):
    """What the promise covers, of every round: the votes, and what became of them."""
    found, noisy = [], SumLattice.noisy

    def recorded(self, total, generator=None):
        result = noisy(self, total, generator)
        found.append((total[0] / self.bound, result[0]))
        return result

    monkeypatch.setattr(SumLattice, "noisy", recorded)
    return found


def test_the_noise_of_the_guarantee_is_that_of_the_gaussian_mechanism_for_two_votes_in_every_round():
    """By the formula of Balle and Wang, which is exact, and not by the accountant."""
    guarantee = evolve(TableRows(ROWS, SCHEMA), iterations=7).guarantee
    parts = guarantee.parameters
    assert (guarantee.epsilon, guarantee.delta, guarantee.unit, guarantee.relation) == (4.0, 1e-3, "row", "replace-one")

    def delta(epsilon, moved):
        mu = moved * math.sqrt(7) / parts["noise_multiplier"]
        return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)

    assert delta(4.0, math.sqrt(2)) <= 1e-3 < delta(3.98, math.sqrt(2))
    other = parts["add_or_remove_one_epsilon"]
    assert other < 4.0 and delta(other, 1.0) <= 1e-3 < delta(0.99 * other, 1.0)


def test_a_guarantee_says_what_is_public_and_comes_back_from_json():
    made_up = evolve(TableRows(ROWS, SCHEMA))
    guarantee = made_up.guarantee
    assert guarantee.public == ("the number of rows", "diagnosis") and "diagnosis" in guarantee.explain()
    assert guarantee.training_data == TrainingData()
    assert PrivacyGuarantee.from_json(guarantee.to_json()) == guarantee
    assert made_up.add_or_remove_one_epsilon == guarantee.parameters["add_or_remove_one_epsilon"]


def test_everybody_has_one_vote_in_a_round_for_a_candidate_of_their_condition(rounds):
    evolve(TableRows(ROWS, SCHEMA), iterations=7)
    assert [int(votes.sum()) for votes, _ in rounds] == 7 * [80]
    # Six candidates for three quarters of the rows, two for one; after five rounds each has three variations.
    assert [len(votes) for votes, _ in rounds] == 6 * [8] + [32]
    assert all(int(votes[:6].sum()) == 60 for votes, _ in rounds[:6])


@pytest.mark.parametrize("age", [20.0, 55.0, 100.0])
def test_another_row_in_one_place_moves_one_vote_by_the_root_of_two_at_most(rounds, age):
    changed = {"age": age, "grade": 3, "side": "right", "diagnosis": "benign"}
    for rows in (ROWS, [changed, *ROWS[1:]]):
        evolve(TableRows(rows, SCHEMA), num_rows=40, iterations=1)
    (first, _), (second, _) = rounds
    assert 0 < float((first - second).norm()) <= math.sqrt(2) + 1e-12
    assert float((first - second).abs().max()) == 1.0


def gaussian(noise, deviation):
    """Whether noise may come from a normal distribution of this deviation; wrong with a probability of 1e-6."""
    spread = float(noise.std()) / deviation
    return kstest(noise / deviation, "norm").pvalue > 5e-7 and abs(spread - 1) < 5.1 / math.sqrt(2 * len(noise))


def test_votes_have_the_noise_of_the_guarantee_and_a_control_with_half_of_it_is_rejected(rounds, monkeypatch):
    run = partial(evolve, TableRows(ROWS, SCHEMA), num_rows=4000, iterations=2)
    deviation = run().guarantee.parameters["noise_multiplier"]
    whole = torch.cat([noisy - votes for votes, noisy in rounds])
    assert len(whole) == 8000 and gaussian(whole, deviation)
    rounds.clear()
    begin = SumLattice.__init__
    monkeypatch.setattr(SumLattice, "__init__", lambda self, norm, multiplier: begin(self, norm, multiplier / 2))
    run()
    assert not gaussian(torch.cat([noisy - votes for votes, noisy in rounds]), deviation)


def test_noise_of_two_rounds_and_of_two_candidates_is_independent(rounds):
    """A correlation of 4000 pairs deviates by 0.016 from 0: six times that is rarer than 1e-6."""
    evolve(TableRows(ROWS, SCHEMA), num_rows=4000, iterations=2)
    first, second = ((noisy - votes) for votes, noisy in rounds)
    for one, other in ((first, second), (first[1:], first[:-1])):
        assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 6 / math.sqrt(4000 - 1)


def test_noise_is_fresh_unless_a_test_brings_its_generator_and_the_seed_of_torch_is_left_alone():
    table = TableRows(ROWS, SCHEMA)
    state = torch.get_rng_state()
    first, again, other = (evolve(table, num_rows=40, generator=seeded(seed)).rows for seed in (0, 0, 1))
    assert evolve(table, num_rows=40).guarantee is not None
    foretold = evolve(table, num_rows=40, generator=seeded())
    assert foretold.guarantee is foretold.add_or_remove_one_epsilon is None
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(*(evolve(table, num_rows=40).rows for _ in range(2)))
    assert torch.equal(torch.get_rng_state(), state)


def spread_rows(count=1200):
    """Three quarters are benign, under 60 and on the left; the others are malignant, over 60 and on the right."""
    age = (40 * torch.rand(count, generator=seeded())).tolist()
    return [
        {**MALIGNANT, "age": 60 + years} if place % 4 == 0 else {**BENIGN, "age": 20 + years}
        for place, years in enumerate(age)
    ]


def share_in_place(rows):
    return sum((row["age"] < 60) == (row["side"] == "left") == (row["diagnosis"] == "benign") for row in rows) / len(
        rows
    )


def test_rows_of_a_generous_budget_resemble_the_originals_of_their_condition_and_those_of_hardly_any_do_not():
    run = partial(evolve, TableRows(spread_rows(), SCHEMA), num_rows=40, iterations=10, generator=seeded())
    learnt = run(epsilon=20.0)
    # A quarter are in place by chance, and few candidates drift.
    assert share_in_place(learnt.decoded()) > 0.95 and share_in_place(run(epsilon=0.01).decoded()) < 0.9
    assert learnt.labels.bincount().tolist() == [30, 10]


def test_without_a_condition_every_column_is_made_up():
    table = TableRows(spread_rows(), TableSchema(COLUMNS))
    made_up = evolve(table, epsilon=20.0, num_rows=40, iterations=10, generator=seeded())
    assert made_up.labels is None
    assert evolve(table, epsilon=20.0, num_rows=40).guarantee.public == ("the number of rows",)
    assert share_in_place(made_up.decoded()) > 0.95


def test_a_class_without_originals_gets_no_rows():
    made_up = evolve(TableRows(30 * [MALIGNANT], SCHEMA))
    assert made_up.labels.tolist() == 8 * [1]


BAD = {
    "epsilon": [0.0, -1.0, math.nan, math.inf],
    "delta": [0.0, 1.0, 1e-15],
    "num_rows": [0, 1.5, True],
    "iterations": [0, 2.0],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_numbers_out_of_range_are_refused(name, value, refused):
    with refused(ValueError, "expected"):
        evolve(TableRows(ROWS, SCHEMA), **{name: value})


def test_tables_without_a_class_for_every_row_are_refused(refused):
    with refused(ValueError, "conditions age, diagnosis"):
        evolve(TableRows(ROWS, TableSchema(COLUMNS, ["age", "diagnosis"])))
    rows = [{name: value for name, value in BENIGN.items() if name != "diagnosis"}]
    with refused(ValueError, "lack the condition 'diagnosis'"):
        evolve(TableRows(rows, SCHEMA))
