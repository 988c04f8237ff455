# SPDX-License-Identifier: Apache-2.0
"""Whether canaries can contradict what private training promises, seen from inside: every noisy sum is watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from monai_cadp.engines import PrivateFlowTrainer, PrivateMoments
from monai_cadp.networks import ConditionalINN, fit_moments
from monai_cadp.privacy.auditing import (
    gaussian_epsilon_lower_bound,
    one_run_epsilon_lower_bound,
    training_epsilon_lower_bound,
)
from monai_cadp.privacy.noisy_moments import noisy_second_moments
from monai_cadp.privacy.randomness import random_below
from monai_cadp.privacy.training_accounting import NoisySums, noise_scale_for

__all__ = ["CanaryMoments", "CanaryTrainer", "TrainingAudit", "audit_moments", "audit_training"]

# How far beyond the bound a canary's contribution reaches, so that it rests on the clipping.
BEYOND = 8.0
REAL_PEOPLE = 24
NUM_CHANNELS = 8
# Times as many people as contribute; epochs are as many steps.
SILENCE, EPOCHS = 5, 4
LARGEST_GRADIENT = 0.1
NUM_THRESHOLDS = 99
# Shares of the canaries on which the attacker of one run bets.
BETS = 1.0, 0.5, 0.25, 0.125, 0.0625


@dataclass(frozen=True)
class TrainingAudit:
    """What canaries have shown of a training.

    Args:
        name: what was trained.
        epsilon: claimed, for the replacement of one person.
        delta: claimed.
        measured: the bound from many canaries.
        one_run: the bound from the canaries of one run alone.
        canaries: how many were counted for ``measured``; a quarter as many were looked at to choose what is counted.
        true_positives: of the first kind, taken for it.
        positives: of the first kind.
        false_positives: of the second kind, taken for the first.
        negatives: of the second kind.
        failure_rate: probability at most with which ``measured`` exceeds a claim that is kept.
        one_run_failure_rate: the same of ``one_run``.
    """

    name: str
    epsilon: float
    delta: float
    measured: float
    one_run: float
    canaries: int
    true_positives: int
    positives: int
    false_positives: int
    negatives: int
    failure_rate: float
    one_run_failure_rate: float

    @property
    def is_contradicted(self) -> bool:
        """Whether a bound exceeds the claim."""
        return max(self.measured, self.one_run) > self.epsilon

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        bounds = {"measured": round(self.measured, 4), "one_run": round(self.one_run, 4)}
        return {**asdict(self), **bounds, "contradicted": self.is_contradicted}


class CanaryTrainer(PrivateFlowTrainer):
    r"""A private training in which some people contribute what is easiest to recognise, and every sum is watched.

    Canary i contributes a gradient along the i-th number of all parameters, up or down, eight times as long as the
    bound. Up and down could replace each other, and are as far apart as two contributions can be: after clipping they
    are the pair that :func:`~monai_cadp.privacy.training_accounting.sgd_epsilon` proves to be the worst. Four people in
    five contribute nothing, so that as many others fill a batch: whoever is in it must be secret.

    Args:
        signs: of the canaries (m,), 1 or -1.
        epsilon: as for :class:`PrivateFlowTrainer`.
        delta: as there.
        images: of every canary.

    Attributes:
        seen: the noisy sums (steps, m) along the canaries, in units of the bound.
    """

    def __init__(self, signs: Tensor, *, epsilon: float, delta: float, images: int = 1) -> None:
        self.signs, self.seen = signs, torch.empty(0, len(signs))
        network = _public_network(len(signs))
        first = REAL_PEOPLE + len(signs)
        people = [*range(REAL_PEOPLE), *(REAL_PEOPLE + i for i in range(len(signs)) for _ in range(images))]
        people += range(first, first * SILENCE)
        rows = torch.randn(len(people), NUM_CHANNELS)
        super().__init__(
            network,
            [{"image": row, "label": torch.tensor(0)} for row in rows],  # type: ignore[arg-type]
            people=people,
            epsilon=epsilon,
            delta=delta,
            max_epochs=EPOCHS,
            batch_size=first,
            largest_gradient=LARGEST_GRADIENT,
            learning_rate=1e-4,
        )

    def _gradients(self, x: Tensor, condition: Tensor | None, persons: Tensor, person: Tensor) -> list[Tensor]:
        shapes = [p.shape for p in self.network.parameters() if p.requires_grad]
        real = persons < REAL_PEOPLE
        canaries = persons[~real & (persons < REAL_PEOPLE + len(self.signs))] - REAL_PEOPLE
        rows = torch.zeros(len(canaries), sum(shape.numel() for shape in shapes))
        rows[torch.arange(len(canaries)), canaries] = BEYOND * LARGEST_GRADIENT * self.signs[canaries]
        if real.any():
            images = real[person]
            # The places of real persons among themselves.
            among = (real.cumsum(0) - 1)[person[images]]
            chosen = None if condition is None else condition[images]
            found = super()._gradients(x[images], chosen, persons[real], among)
            rows = torch.cat([torch.cat([part.flatten(1) for part in found], dim=1), rows])
        parts = rows.split([shape.numel() for shape in shapes], dim=1)
        return [part.reshape(len(rows), *shape) for part, shape in zip(parts, shapes, strict=True)]

    def _backward(self, batchdata: Any) -> dict[str, float]:
        logged = super()._backward(batchdata)
        gradient = torch.cat([p.grad.flatten() for p in self.network.parameters() if p.grad is not None])
        seen = gradient[: len(self.signs)] * (self.batch_size / self.largest_gradient)
        self.seen = torch.cat([self.seen, seen[None]])
        return logged

    def scores(self) -> Tensor:
        """Return what speaks for "up" (2, m): the likelihood ratio under the claim, and the plain sum of all steps."""
        rate, variance = self.state.sampling_rate, self.state.noise_multiplier**2
        up, down = (torch.log1p(rate * torch.expm1((2 * s * self.seen - 1) / (2 * variance))) for s in (1, -1))
        return torch.stack([(up - down).sum(0), self.seen.sum(0)]).double()


class CanaryMoments(PrivateMoments):
    r"""Private moments to which some people contribute what is easiest to recognise, and which are watched.

    Canary i contributes :math:`e_{2i} e_{2i}^T` or :math:`e_{2i + 1} e_{2i + 1}^T`, of a vector eight times as long as
    the bound: as far apart as two contributions can be.

    Args:
        signs: of the canaries (m,), 1 or -1.
        images: of every canary.

    Attributes:
        seen: the difference of the two diagonal numbers over the square of the multiplier, for each moment (2, m).
    """

    def __init__(self, signs: Tensor, images: int = 1) -> None:
        super().__init__(largest_norm=4.0)
        self.signs, self.images, self.seen = signs, images, torch.empty(0, len(signs))

    def second_moments(  # type: ignore[override]
        self,
        rows: Tensor,
        group: Tensor,
        num_groups: int,
        noise_multiplier: float,
        *,
        weights: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Add the canaries to the vectors, and watch what comes out."""
        canaries = torch.arange(len(self.signs)).repeat_interleave(self.images)
        extra = torch.zeros(len(canaries), rows.shape[1])
        extra[torch.arange(len(canaries)), 2 * canaries + (self.signs[canaries] < 0)] = BEYOND
        rows = torch.cat([rows, extra])
        group = torch.cat([group, torch.zeros(len(canaries), dtype=group.dtype)])
        weights = torch.cat([weights, torch.full((len(canaries),), 1 / self.images, dtype=weights.dtype)])
        moments = self.release(rows, group, num_groups, noise_multiplier, weights)
        diagonal = moments[0].diagonal()[: 2 * len(self.signs)].reshape(-1, 2)
        self.seen = torch.cat([self.seen, (diagonal[:, 0] - diagonal[:, 1])[None] / noise_multiplier**2])
        return moments

    def release(self, rows: Tensor, group: Tensor, num_groups: int, multiplier: float, weights: Tensor) -> Tensor:
        """Return the noisy moments; what a negative control does otherwise."""
        return noisy_second_moments(rows, group, num_groups, multiplier, weights=weights)


def audit_training(
    epsilon: float,
    *,
    delta: float = 1e-5,
    runs: int = 10,
    canaries: int = 2000,
    trainer: Callable[..., CanaryTrainer] = CanaryTrainer,
    failure_rate: float = 1e-6,
    name: str = "PrivateFlowTrainer",
    progress: bool = False,
) -> TrainingAudit:
    """Train with canaries, some times, and bound epsilon from how many are recognised.

    Args:
        epsilon: claimed by the training.
        delta: claimed.
        runs: number of trainings.
        canaries: in each.
        trainer: what is audited.
        failure_rate: of the bound from many canaries; that of one run's is 0.01.
        name: for people.
        progress: show a progress bar.

    Returns:
        The result.

    Raises:
        ValueError: if a number is out of its range.

    Example:
        >>> result = audit_training(4.0, runs=2, canaries=1500)
        >>> 0 < result.measured <= 4.0
        True
    """
    signs, scores = [], []
    for _ in tqdm(range(runs), desc=f"{name}, epsilon {epsilon:g}", leave=False, disable=not progress):
        drawn = _signs(canaries)
        training = trainer(drawn, epsilon=epsilon, delta=delta)
        training.run()
        parts = training.spent
        signs.append(drawn)
        scores.append(training.scores())
    return _result(name, epsilon, delta, parts, signs, scores, failure_rate)


def audit_moments(
    epsilon: float,
    *,
    delta: float = 1e-5,
    runs: int = 400,
    moments: Callable[..., CanaryMoments] = CanaryMoments,
    failure_rate: float = 1e-6,
    name: str = "PrivateMoments",
    progress: bool = False,
) -> TrainingAudit:
    """Fit private moments with 30 canaries, many times, and bound epsilon from how many are recognised.

    Args:
        epsilon: claimed by the two moments together.
        delta: claimed.
        runs: number of fits.
        moments: what is audited.
        failure_rate: of the bound from many canaries; that of one run's is 0.01.
        name: for people.
        progress: show a progress bar.

    Returns:
        The result.

    Raises:
        ValueError: if a number is out of its range.

    Example:
        >>> result = audit_moments(4.0, runs=100)
        >>> 0 < result.measured <= 4.0
        True
    """
    canaries, channels = 30, 64
    scale = noise_scale_for(epsilon, delta, PrivateMoments(largest_norm=1.0).sums(1.0))
    parts = PrivateMoments(largest_norm=1.0).sums(scale)
    x = torch.randn(8, channels, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 2
    signs, scores = [], []
    for _ in tqdm(range(runs), desc=f"{name}, epsilon {epsilon:g}", leave=False, disable=not progress):
        drawn = _signs(canaries)
        inn = ConditionalINN((), channels, num_classes=2, rank=channels - 2, num_couplings=0)
        fit = moments(drawn)
        fit(inn, [(x, labels)], torch.ones(8), scale)
        signs.append(drawn)
        scores.append(fit.seen.sum(0)[None].double())
    return _result(name, epsilon, delta, parts, signs, scores, failure_rate)


def _signs(count: int) -> Tensor:
    return 2.0 * random_below(torch.empty(count, 0), 2) - 1


def _public_network(canaries: int) -> ConditionalINN:
    """Return a network of tables, which has a parameter for every canary."""
    inn = ConditionalINN((), NUM_CHANNELS, num_classes=2, rank=6, num_couplings=2, width=32)
    size = sum(p.numel() for p in inn.parameters() if p.requires_grad)
    if size < canaries:
        raise ValueError(f"{canaries} canaries were asked for, but the network has {size} parameters; give fewer.")
    x = torch.randn(64, NUM_CHANNELS, generator=torch.Generator().manual_seed(0))
    fit_moments(inn, lambda: [(x, torch.arange(64) % 2)], training_data="public")
    return inn


def _result(
    name: str,
    epsilon: float,
    delta: float,
    parts: list[NoisySums],
    signs: list[Tensor],
    scores: list[Tensor],
    failure_rate: float,
) -> TrainingAudit:
    one_run_failure_rate = 0.01
    one_run = _one_run(signs[0], scores[0][0], delta, one_run_failure_rate)
    kinds, found = torch.cat(signs), torch.cat(scores, dim=1)
    # The first ones choose what is counted on the rest.
    few = len(kinds) // 5
    index, threshold = _chosen(kinds[:few], found[:, :few], delta, failure_rate)
    hits, kinds = found[index, few:] > threshold, kinds[few:]
    first, second = hits[kinds > 0], hits[kinds < 0]
    counts = int(first.sum()), len(first), int(second.sum()), len(second)
    measured = training_epsilon_lower_bound(*counts, parts, delta, failure_rate)
    rates = (failure_rate, one_run_failure_rate)
    return TrainingAudit(name, epsilon, delta, measured, one_run, len(kinds), *counts, *rates)


def _chosen(kinds: Tensor, found: Tensor, delta: float, failure_rate: float) -> tuple[int, float]:
    """Return the score and the threshold whose bound would be the largest if the training were one Gaussian."""
    best, choice = -1.0, (0, 0.0)
    for index, score in enumerate(found):
        first, second = score[kinds > 0], score[kinds < 0]
        for threshold in score.quantile(torch.linspace(0.01, 0.99, NUM_THRESHOLDS, dtype=score.dtype)).tolist():
            hits, wrong = int((first > threshold).sum()), int((second > threshold).sum())
            bound = gaussian_epsilon_lower_bound(hits, len(first), wrong, len(second), delta, failure_rate)
            if bound > best:
                best, choice = bound, (index, threshold)
    return choice


def _one_run(signs: Tensor, score: Tensor, delta: float, failure_rate: float) -> float:
    """Bet on the canaries of one run of which most is known; each number of bets has its share of the failure rate."""
    order = score.abs().argsort(descending=True)
    right = (score * signs > 0)[order]
    bounds = []
    for share in BETS:
        guesses = max(1, int(share * len(signs)))
        correct = int(right[:guesses].sum())
        bounds.append(one_run_epsilon_lower_bound(correct, guesses, len(signs), delta, failure_rate / len(BETS)))
    return max(bounds)
