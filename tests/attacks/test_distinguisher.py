# SPDX-License-Identifier: Apache-2.0
"""The attacker finds what tells two inputs apart, and is judged on trials that it has not seen before."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from monai_cadp.attacks.distinguisher import Counts, Distinguisher, Game, count, play
from monai_cadp.privacy.auditing import epsilon_lower_bound

BOUND = partial(epsilon_lower_bound, failure_rate=1e-3)


def game(release, first=(0.0,), second=(1.0,)):
    """A game whose release is given as function (index, trials, generator) -> (trials, 2, d), with a public seed."""
    generator = torch.Generator().manual_seed(0)
    return Game(
        "game",
        lambda index, trials: release(index, trials, generator),
        torch.tensor([first, second]),
        torch.ones(len(first)),
    )


def measured(played, trials=2000):
    return BOUND(*play(played, trials, 100, BOUND)[0])


def noise(trials, generator, size=1):
    return torch.randn(trials, 2, size, generator=generator)


def moved(index, trials, generator):
    return noise(trials, generator) + torch.tensor([[3.0 * index], [0.0]])


def reused(index, trials, generator):
    """The companion carries the same noise; the noise is far larger than the difference."""
    return 100 * noise(trials, generator)[:, :1].expand(-1, 2, -1) + torch.tensor([[1.0 * index], [0.0]])


def ring(index, trials, generator):
    """The first input gives outcomes near its target, the second outcomes all around it."""
    return noise(trials, generator, 2) * (1.0 if index == 0 else 10.0)


def hidden(index, trials, generator):
    """The difference lies across the line between the targets, beneath noise along it."""
    seen = noise(trials, generator, 2) * torch.tensor([1.0, 10.0])
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    seen[:, 0, 0] += 4.0 * index
    return seen @ turn


def missing(index, trials, generator):
    return noise(trials, generator) * (math.nan if index else 1.0)


def endless(index, trials, generator):
    return noise(trials, generator) * (math.inf if index else 1.0)


@pytest.mark.parametrize(
    ("release", "targets"),
    [
        (moved, ([0.0], [3.0])),
        (reused, ([0.0], [1.0])),
        (ring, ([0.0, 0.0], [1.0, 0.0])),
        (hidden, ([0.0, 0.0], [0.0, 1.0])),
        (missing, ([0.0], [1.0])),
        (endless, ([0.0], [1.0])),
    ],
    ids=["means", "reused noise", "distances", "another direction", "NaN", "infinity"],
)
def test_what_tells_inputs_apart_is_found(release, targets):
    assert measured(game(release, *targets)) > 1.5


@pytest.mark.parametrize("targets", [([0.0], [1.0]), ([0.0], [0.0]), ([3e38], [-3e38]), ([math.nan], [math.inf])])
def test_inputs_with_the_same_law_are_not_told_apart_whatever_was_expected_of_them(targets):
    played = game(lambda index, trials, generator: noise(trials, generator), *targets)
    # The bound is above 0 with probability 1e-3 at most, and the seed is fixed.
    assert measured(played) == 0.0


def test_constant_outcomes_are_not_told_apart():
    assert measured(game(lambda index, trials, generator: torch.zeros(trials, 2, 1))) == 0.0


def many_columns(index, trials, generator):
    return noise(trials, generator, 60)


def test_the_trials_on_which_a_choice_was_made_take_no_part_in_the_count():
    """Among 120 columns of noise some discriminant fits any 200 trials; counted on new ones, it proves nothing."""
    targets = [0.0] * 60, [1.0] + [0.0] * 59
    assert measured(game(many_columns, *targets), trials=400) == 0.0
    played = game(many_columns, *targets)
    seen = [played.release(index, 200) for index in (0, 1)]
    guess = Distinguisher(played, *seen, BOUND)
    control = Counts(guess.hits(seen[0]), 200, guess.hits(seen[1]), 200)
    assert BOUND(*control) > 0.5


def test_both_inputs_are_released_as_often_and_in_calls_as_large_as_was_asked_for():
    calls, updates = [], []

    def release(index, trials):
        calls.append((index, trials))
        return torch.randn(trials, 2, 1)

    counts, _ = play(Game("game", release, torch.eye(2)[:, :1], torch.ones(1)), 25, 10, BOUND, updates.append)
    assert calls == [(0, 10), (0, 10), (0, 5), (1, 10), (1, 10), (1, 5)]
    assert sum(updates) == 50
    assert (counts.positives, counts.negatives) == (13, 13)


def test_a_distinguisher_counts_on_as_often_as_it_is_asked():
    """Twelve thousand further trials of what it was chosen for: within six deviations of what it had shown."""
    game = Game("means", lambda index, n: torch.randn(n, 2, 1) + 2 * index, torch.tensor([[0.0], [2.0]]), torch.ones(1))
    counts, guess = play(game, 4000, 100, BOUND)
    updates = []
    more = count(guess, game, 12_000, 5000, updates.append)
    assert (more.positives, more.negatives, updates) == (12_000, 12_000, [5000, 5000, 2000] * 2)
    for number, of_more in zip(counts[::2], more[::2], strict=True):
        assert abs(number / 2000 - of_more / 12_000) < 6 * 0.5 * (1 / 2000 + 1 / 12_000) ** 0.5
