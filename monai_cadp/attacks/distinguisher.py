# SPDX-License-Identifier: Apache-2.0
"""The attacker of an audit: two inputs, one of them released many times, and the guess which of them it was."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Bound", "Counts", "Distinguisher", "Game", "count", "play"]

# (true positives, positives, false positives, negatives) -> bound on epsilon.
Bound = Callable[[int, int, int, int], float]

NUM_THRESHOLDS, NUM_IN_TAILS = 64, 24
RIDGE = 1e-9
# Outcomes that are not numbers tell inputs apart too, so they become numbers that nothing else is.
NOT_A_NUMBER, INFINITE = 2.0**100, 2.0**101


class Game(NamedTuple):
    """Two inputs that a promise must not let anybody tell apart.

    Args:
        name: for people.
        release: called with 0 or 1 for the input and a number of trials; releases the input beside a companion, which
            is the same for both inputs, in one call for all these trials, and returns what the attacker sees of both,
            (trials, 2, d).
        targets: what they would see of the two inputs without any noise (2, d).
        weights: of the d numbers in the attacker's distances, 0 or more.
    """

    name: str
    release: Callable[[int, int], Tensor]
    targets: Tensor
    weights: Tensor


class Counts(NamedTuple):
    """How often a distinguisher said "the first input": in releases of the first, and in releases of the second."""

    true_positives: int
    positives: int
    false_positives: int
    negatives: int


class Distinguisher:
    """A set of outcomes, those for which a statistic passes a threshold, chosen so that its bound is largest.

    The statistics are

    1. the release along the line between the two targets: the likelihood ratio of Gaussian noise, and of Laplace noise
       along one direction;
    2. the same of the difference between the release and its companion, which noise that is used twice leaves bare;
    3. the closeness to the first target, which decides a subset selection;
    4. Fisher's linear discriminant of everything that is seen, learnt from the given trials.

    Args:
        game: gives targets and weights.
        first: what was seen in trials of the first input (n, 2, d).
        second: the same of the second.
        bound: what is made as large as possible on these trials.

    References:
        Fisher: The use of multiple measurements in taxonomic problems, Annals of Eugenics 7, 1936.

    Example:
        >>> game = Game("means", lambda index, n: torch.randn(n, 2, 1) + 3 * index, torch.tensor([[0.0], [3.0]]),
        ...             torch.ones(1))
        >>> guess = Distinguisher(game, game.release(0, 500), game.release(1, 500), lambda k, n, l, m: k - l)
        >>> guess.hits(game.release(0, 500)) > 400
        True
    """

    def __init__(self, game: Game, first: Tensor, second: Tensor, bound: Bound) -> None:
        self.target, other = _numbers(game.targets)
        self.weights = game.weights.double()
        line = self.weights * (self.target - other)
        self.line = line / line.norm().clamp(min=torch.finfo(torch.float64).tiny)
        first, second = _numbers(first), _numbers(second)
        both = torch.cat([first, second]).flatten(1)
        self.mean, scale = both.mean(0), both.std(0)
        self.scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        self.discriminant = _fisher(self._standardise(first), self._standardise(second))
        self.index, self.threshold, best = 0, 0.0, -1.0
        for index, (ours, theirs) in enumerate(zip(self._statistics(first), self._statistics(second), strict=True)):
            for threshold in _thresholds(torch.cat([ours, theirs])):
                hits = [int((scores > threshold).sum()) for scores in (ours, theirs)]
                value = bound(hits[0], len(ours), hits[1], len(theirs))
                if value > best:
                    self.index, self.threshold, best = index, threshold, value

    def hits(self, seen: Tensor) -> int:
        """Return in how many trials (n, 2, d) it says "the first input"."""
        return int((self._statistics(_numbers(seen))[self.index] > self.threshold).sum())

    def _statistics(self, seen: Tensor) -> Tensor:
        release, companion = seen.unbind(1)
        return torch.stack(
            [
                release @ self.line,
                (release - companion) @ self.line,
                -((release - self.target).square() @ self.weights),
                self._standardise(seen) @ self.discriminant,
            ]
        )

    def _standardise(self, seen: Tensor) -> Tensor:
        return (seen.flatten(1) - self.mean) / self.scale


def play(
    game: Game,
    trials: int,
    trials_per_call: int,
    bound: Bound,
    update: Callable[[int], object] = lambda count: None,
) -> tuple[Counts, Distinguisher]:
    """Release both inputs many times, choose a distinguisher on the first half of trials, and count on the second.

    The counted half takes no part in the choice, so its counts are binomial, and ``epsilon_lower_bound`` holds for
    them. For that the trials must be independent: those of one call are, if no row of a batch has an influence on
    another. With one trial in each call nothing is presumed.

    Args:
        game: what is played.
        trials: of each input; half of them, rounded up, are counted.
        trials_per_call: how many are released at once.
        bound: what the choice makes as large as possible.
        update: is told how many trials were made.

    Returns:
        The counts, and the distinguisher that was chosen.
    """
    seen = []
    for index in (0, 1):
        calls = []
        for start in range(0, trials, trials_per_call):
            count = min(trials_per_call, trials - start)
            calls.append(game.release(index, count))
            update(count)
        seen.append(torch.cat(calls))
    half = trials // 2
    guess = Distinguisher(game, seen[0][:half], seen[1][:half], bound)
    return Counts(guess.hits(seen[0][half:]), trials - half, guess.hits(seen[1][half:]), trials - half), guess


def count(
    guess: Distinguisher,
    game: Game,
    trials: int,
    trials_per_call: int,
    update: Callable[[int], object] = lambda count: None,
) -> Counts:
    """Release both inputs many times more, and count what a distinguisher says that was chosen before.

    Args:
        guess: chosen on other trials.
        game: what is played.
        trials: of each input, all of them counted; none is kept in memory.
        trials_per_call: how many are released at once.
        update: is told how many trials were made.

    Returns:
        The counts.
    """
    hits = [0, 0]
    for index in (0, 1):
        for start in range(0, trials, trials_per_call):
            size = min(trials_per_call, trials - start)
            hits[index] += guess.hits(game.release(index, size))
            update(size)
    return Counts(hits[0], trials, hits[1], trials)


def _numbers(seen: Tensor) -> Tensor:
    return torch.nan_to_num(seen.detach().cpu().double(), nan=NOT_A_NUMBER, posinf=INFINITE, neginf=-INFINITE)


def _fisher(first: Tensor, second: Tensor) -> Tensor:
    """Return the discriminant (2d,) of standardised trials; it grows toward the first."""
    within = (torch.cov(first.T) + torch.cov(second.T)).reshape(first.shape[1], first.shape[1]) / 2
    within += RIDGE * torch.eye(len(within), dtype=within.dtype)
    return torch.linalg.solve(within, first.mean(0) - second.mean(0))


def _thresholds(scores: Tensor) -> list[float]:
    """Return numbers between the quantiles of these scores, which are closer to each other towards both ends."""
    ordered = scores.sort().values
    last = len(ordered) - 1
    tail = torch.logspace(0, math.log10(max(last / 4, 1)), NUM_IN_TAILS).long().clamp(max=last)
    positions = torch.cat([torch.linspace(0, last, NUM_THRESHOLDS).long(), tail, last - tail])
    levels = ordered[positions].unique()
    return ((levels[1:] + levels[:-1]) / 2).tolist()
