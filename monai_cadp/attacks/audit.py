# SPDX-License-Identifier: Apache-2.0
"""Whether attacks can contradict a promise: of a mechanism at the latent, and of a privatizer from image to image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from torch import Tensor
from tqdm import tqdm

from monai_cadp.attacks.distinguisher import Bound, Counts, Game, count, play
from monai_cadp.attacks.image_games import image_games
from monai_cadp.attacks.latent_games import latent_games
from monai_cadp.privacy import GaussianMechanism, Mechanism
from monai_cadp.privacy.auditing import epsilon_lower_bound, gaussian_epsilon_lower_bound
from monai_cadp.release import Releaser, as_releaser

__all__ = ["MIN_TRIALS", "TRIALS_ALONE", "AuditResult", "GameResult", "audit_mechanism", "audit_releaser"]

LATENT_TRIALS_PER_CALL = 1000
PIXELS_PER_CALL = 2**18
MIN_TRIALS = 20
USUAL_TRIALS = 20_000
TRIALS_ALONE = 500
# Of the promise, with so many deviations more wrong answers than are expected: luck leaves nine tenths of it.
AIM, BAD_LUCK, MOST_TRIALS = 0.93, 3.0, 4_000_000
# Of each game, to see which one promises most: so many that its rarest event is seen some eighty times at epsilon 8.
MOST_PILOT_TRIALS = 250_000


@dataclass(frozen=True)
class GameResult:
    """What one game has shown.

    Args:
        game: which inputs were to be told apart.
        trials_per_call: how many trials shared a call.
        counts: of the distinguisher.
        epsilon: the bound that follows.
    """

    game: str
    trials_per_call: int
    counts: Counts
    epsilon: float

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "game": self.game,
            "trials_per_call": self.trials_per_call,
            **self.counts._asdict(),
            "epsilon": round(self.epsilon, 4),
        }


@dataclass(frozen=True)
class AuditResult:
    """What an audit has shown of one promise.

    Args:
        name: of what was audited.
        level: "latent" or "image".
        epsilon: promised.
        delta: promised.
        ceiling: the largest bound that so many trials can give; below the promise, they could never contradict it.
        failure_rate: probability at most with which a promise that is kept is contradicted.
        games: the result of every game.
    """

    name: str
    level: str
    epsilon: float
    delta: float
    ceiling: float
    failure_rate: float
    games: tuple[GameResult, ...]

    @property
    def measured(self) -> float:
        """The largest bound of all games; true epsilon is below it with probability ``failure_rate`` at most."""
        return max(result.epsilon for result in self.games)

    @property
    def is_contradicted(self) -> bool:
        """Whether the measured bound exceeds the promise."""
        return self.measured > self.epsilon

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "name": self.name,
            "level": self.level,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "measured": round(self.measured, 4),
            "ceiling": round(self.ceiling, 4),
            "contradicted": self.is_contradicted,
            "failure_rate": self.failure_rate,
            "games": [result.to_dict() for result in self.games],
        }


def audit_mechanism(
    mechanism: Mechanism,
    trials: int | None = None,
    trials_alone: int = TRIALS_ALONE,
    *,
    num_directions: int = 2,
    weights: Tensor | None = None,
    failure_rate: float = 1e-6,
    name: str | None = None,
    progress: bool = False,
) -> AuditResult:
    """Attack a mechanism at the latent; see ``latent_games`` for the attacks.

    Every game is played twice: with many trials in each call, which says much about each row, and with one trial in
    each call, an input and its companion and nothing else, where rows that influence each other show most. Where
    ``trials`` are not given, every game is then played on, to choose its distinguisher anew and to see what that can
    do, and the best one as often as it takes to measure nine tenths of the promise.

    Args:
        mechanism: what is attacked.
        trials: of each input in every game, many in each call; None for 20,000, and as many in the best one as nine
            tenths of the promise need.
        trials_alone: of each input in every game, one in each call.
        num_directions: k, for a mechanism that was not configured.
        weights: of the directions (k,).
        failure_rate: of the whole audit; shared evenly by all games.
        name: for people; None for the class of the mechanism.
        progress: show a progress bar.

    Returns:
        The result.

    Raises:
        ValueError: if there are fewer than 20 trials of a kind.

    Example:
        >>> from monai_cadp.privacy import RandomizedResponse
        >>> result = audit_mechanism(RandomizedResponse(epsilon=1.0, num_classes=2), trials=4000, trials_alone=100)
        >>> 0 < result.measured <= result.epsilon
        True
    """
    promise = _Promise(
        name or type(mechanism).__name__,
        "latent",
        mechanism.epsilon,
        mechanism.delta,
        is_gaussian=isinstance(mechanism, GaussianMechanism),
    )
    games = latent_games(mechanism, num_directions, weights)
    return _audit(promise, games, trials, LATENT_TRIALS_PER_CALL, trials_alone, failure_rate, progress)


def audit_releaser(
    releaser: Releaser,
    trials: int | None = None,
    trials_alone: int = TRIALS_ALONE,
    *,
    failure_rate: float = 1e-6,
    name: str | None = None,
    progress: bool = False,
) -> AuditResult:
    """Attack a releaser from image to image; see ``image_games`` for the attacks.

    Every game is played twice, as by ``audit_mechanism``.

    Args:
        releaser: what is attacked; a ledger in it is left out.
        trials: of each input in every game, many in each call; None for 20,000, and as many in the best one as nine
            tenths of the promise need.
        trials_alone: of each input in every game, one in each call.
        failure_rate: of the whole audit; shared evenly by all games.
        name: for people; None for the class of the mechanism.
        progress: show a progress bar.

    Returns:
        The result.

    Raises:
        ValueError: if there are fewer than 20 trials of a kind.

    Example:
        >>> from monai_cadp.networks import ConditionalINN, ContentBasis
        >>> from monai_cadp.privacy import PriorOnly
        >>> from monai_cadp.release import Privatizer
        >>> inn = ConditionalINN(spatial_shape=(), in_channels=3, num_couplings=1, width=4)
        >>> privatizer = Privatizer(inn, PriorOnly(), ContentBasis.leading(inn, 2))
        >>> audit_releaser(privatizer, trials=500, trials_alone=20).is_contradicted
        False
    """
    whole = as_releaser(releaser).unrecorded
    guarantee, core = whole.guarantee, whole.core
    promise = _Promise(
        name or guarantee.mechanism,
        "image",
        guarantee.epsilon,
        guarantee.delta,
        is_gaussian=core is whole and isinstance(core.mechanism, GaussianMechanism) and core.label_mechanism is None,
    )
    per_call = min(max(PIXELS_PER_CALL // (2 * math.prod(whole.image_shape)), 1), LATENT_TRIALS_PER_CALL)
    return _audit(promise, image_games(whole), trials, per_call, trials_alone, failure_rate, progress)


class _Promise(NamedTuple):
    """What is to be contradicted."""

    name: str
    level: str
    epsilon: float
    delta: float
    is_gaussian: bool

    def bound(self, failure_rate: float) -> Bound:
        """Return the bound that is right for the mechanism."""
        kind = gaussian_epsilon_lower_bound if self.is_gaussian else epsilon_lower_bound
        return partial(kind, delta=self.delta, failure_rate=failure_rate)


def _audit(
    promise: _Promise,
    games: Sequence[Game],
    trials: int | None,
    trials_per_call: int,
    trials_alone: int,
    failure_rate: float,
    progress: bool,
) -> AuditResult:
    """Play every game with many trials in each call and with one; all bounds hold together."""
    share = failure_rate / (2 * len(games) + 1)
    goes_on = trials is None and promise.epsilon > 0
    trials = USUAL_TRIALS if trials is None else trials
    if min(trials, trials_alone) < MIN_TRIALS:
        fewest = min(trials, trials_alone)
        raise ValueError(f"{fewest} trials were asked for; expected {MIN_TRIALS} or more of each kind.")
    bound = promise.bound(share)
    results = []
    candidates: list[tuple[int, Game]] = []
    total = 2 * len(games) * (trials + trials_alone)
    title = f"{promise.name}, {promise.level}, epsilon {promise.epsilon:g}"
    with tqdm(total=total, desc=title, unit=" trials", leave=False, disable=not progress) as bar:
        for game in games:
            for number, per_call in ((trials, trials_per_call), (trials_alone, 1)):
                counts, _ = play(game, number, per_call, bound, bar.update)
                results.append(GameResult(game.name, per_call, counts, bound(*counts)))
                if goes_on and per_call > 1:
                    candidates.append((_trials_for(promise.epsilon, counts, bound), game))
        if candidates:
            # The best of all games have had luck, too: what they can do is seen in trials that count for nothing else.
            pilots = []
            for needed, game in candidates:
                number = min(needed, MOST_PILOT_TRIALS)
                bar.total += 2 * number
                counts, guess = play(game, number, trials_per_call, bound, bar.update)
                pilots.append((_trials_for(promise.epsilon, counts, bound), -bound(*counts), game, guess))
            number, _, game, guess = min(pilots, key=itemgetter(0, 1))
            bar.total += 2 * number
            counts = count(guess, game, number, trials_per_call, bar.update)
            results.append(GameResult(game.name, trials_per_call, counts, bound(*counts)))
    counted = max(result.counts.positives for result in results)
    ceiling = bound(counted, counted, 0, counted)
    return AuditResult(
        promise.name, promise.level, promise.epsilon, promise.delta, ceiling, failure_rate, tuple(results)
    )


def _trials_for(epsilon: float, counts: Counts, bound: Bound) -> int:
    """Return in how many trials a distinguisher like this one would show what is aimed at, even with bad luck."""
    hits = counts.true_positives / counts.positives
    # Few were counted in the tail; a promise that is kept has no fewer.
    wrong = max(counts.false_positives / counts.negatives, hits * math.exp(-epsilon))
    trials = USUAL_TRIALS
    while trials < MOST_TRIALS:
        expected = wrong * trials
        unlucky = min(math.ceil(expected + BAD_LUCK * math.sqrt(expected)), trials)
        if bound(int(hits * trials), trials, unlucky, trials) >= AIM * epsilon:
            break
        trials = min(int(1.25 * trials), MOST_TRIALS)
    return trials
