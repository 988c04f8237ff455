# SPDX-License-Identifier: Apache-2.0
"""The default mechanism: choose one of many public candidates."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monai_cadp.privacy.checks import checked_epsilon
from monai_cadp.privacy.mechanism import Mechanism, width
from monai_cadp.privacy.randomness import random_below, random_words
from monai_cadp.privacy.set_calibration import fit_to_set
from monai_cadp.privacy.threshold import acceptance_threshold, equal_share

__all__ = ["SubsetSelection", "choose_subset_size", "mark_best", "select_candidates"]

EPSILON_PER_BLOCK = 10
NUM_TARGETS = 128
# About 32 bytes of working memory for each score.
SCORES_AT_ONCE = 2**21


def mark_best(scores: Tensor, subset_size: int) -> Tensor:
    """Mark the ``subset_size`` candidates of smallest (score, index) in each row: never one more or less.

    Scores that are not finite take the largest or smallest finite value, NaN the largest. With t the m-th smallest
    score of a row, fewer than m scores are below t, and m or more are at most t; so all below t and the first of
    those equal to t make up exactly m.

    Args:
        scores: (B, N), floating point.
        subset_size: m, from 1 to N.

    Returns:
        Marks (B, N), bool.

    Example:
        >>> mark_best(torch.tensor([[2.0, 1.0, 1.0, float("nan")]]), 1)
        tensor([[False,  True, False, False]])
    """
    largest = torch.finfo(scores.dtype).max
    scores = torch.nan_to_num(scores, nan=largest, posinf=largest, neginf=-largest)
    last = scores.kthvalue(subset_size, dim=1, keepdim=True).values
    below = scores < last
    equal = scores == last
    return below | (equal & (_count(equal) <= subset_size - below.sum(1, keepdim=True)))


def select_candidates(
    scores: Tensor, subset_size: int, threshold: int, generator: torch.Generator | None = None
) -> Tensor:
    r"""Choose one candidate for each row: one of the best with probability threshold / 2^64, or one of the others.

    Proof. Whatever the scores of a row are, exactly m of its N candidates are marked (``mark_best``). A uniform word
    of 64 bits is below T with probability :math:`T / 2^{64}`; then the r-th marked candidate is released, r exactly
    uniform in [0, m), otherwise the r-th of the others, r exactly uniform in [0, N - m). So :math:`\Pr[j] = T /
    (2^{64} m)` if j is marked, and :math:`(2^{64} - T) / (2^{64} (N - m))` if not: ``acceptance_threshold`` makes
    their ratio :math:`e^\epsilon` at most. All of it is done in integers. Words are signed, so both sides of the
    comparison are moved by :math:`-2^{63}`. The proof never looks at how scores were made: they may depend on the
    input in any way, the candidates and m may not.

    Args:
        scores: (B, N), floating point; small is good.
        subset_size: m, from 1 to N - 1.
        threshold: T, from ``acceptance_threshold(epsilon, N, m)``.
        generator: source of the random draws. For tests only.

    Returns:
        Indices (B,), int64.

    References:
        Ye, Barg: Optimal schemes for discrete distribution estimation under locally differential privacy, IEEE
        Transactions on Information Theory 64, 2018.

    Example:
        >>> threshold = acceptance_threshold(40.0, num_candidates=3, subset_size=1)
        >>> select_candidates(torch.tensor([[2.0, 0.5, 1.0]]), 1, threshold)
        tensor([1])
    """
    best = mark_best(scores, subset_size)
    inside = random_words(scores, 1, generator)[:, 0] < threshold - 2**63
    rank_inside = random_below(scores, subset_size, generator)
    rank_outside = random_below(scores, width(scores) - subset_size, generator)
    allowed = best == inside[:, None]
    rank = torch.where(inside, rank_inside, rank_outside)
    # The r-th allowed candidate, counted from 0, is the first with r + 1 allowed ones up to it.
    return torch.searchsorted(_count(allowed), (rank[:, None] + 1).int())[:, 0]


def choose_subset_size(targets: Tensor, candidates: Tensor, weights: Tensor, epsilon: float) -> int:
    r"""Return the subset size m with the largest expected fidelity on public targets.

    Fidelity is the weighted inner product :math:`\sum_i w_i u_i v_i` of target and release. Sort candidates by their
    score; let :math:`G_m` be the mean fidelity of the m best, averaged over targets. For every m from 1 to N - 1 the
    expected fidelity is

    .. math:: p_m G_m + (1 - p_m) \frac{N G_N - m G_m}{N - m}, \qquad p_m = \frac{m e^\epsilon}{m e^\epsilon + N - m}.

    Args:
        targets: samples (T, k) from the prior; never images.
        candidates: (N, k).
        weights: (k,), 0 or more.
        epsilon: above 0.

    Returns:
        m, from 1 to N - 1.

    Example:
        >>> points = torch.tensor([[-1.0], [-0.9], [0.9], [1.0]])
        >>> choose_subset_size(points, points, torch.ones(1), epsilon=1.0)
        2
    """
    epsilon = checked_epsilon(epsilon)
    num = len(candidates)
    total = torch.zeros(num, dtype=torch.float64)
    for part in targets.split(max(1, SCORES_AT_ONCE // num)):
        fidelity = (part * weights) @ candidates.T
        order = _scores(part, candidates, weights).argsort(dim=1)
        total += fidelity.gather(1, order).double().mean(0) * (len(part) / len(targets))
    best = total.cumsum(0)
    size = torch.arange(1, num, dtype=torch.float64)
    chance = torch.sigmoid(epsilon + torch.log(size) - torch.log(num - size))
    expected = chance * best[:-1] / size + (1 - chance) * (best[-1] - best[:-1]) / (num - size)
    return int(expected.argmax()) + 1


class _Block(NamedTuple):
    """Directions that share one choice."""

    candidates: Tensor
    weights: Tensor
    subset_size: int
    threshold: int


class SubsetSelection(Mechanism):
    r"""Release one of N public standard-normal candidates, most likely one that is near the content.

    The candidates :math:`v_1, \ldots, v_N \sim N(0, I)` come from a public seed. They are ranked by :math:`s_j =
    \sum_i w_i (v_{ji} - u_i)^2`; with probability about :math:`m e^\epsilon / (m e^\epsilon + N - m)` one of the m
    best is released, otherwise one of the rest. A candidate is a sample of the prior, so the result looks like one.

    Proof of pure epsilon. For one block see ``select_candidates`` and ``acceptance_threshold``. Directions may be
    dealt into B blocks, each with a share of epsilon of its own: the random draws of the blocks are independent, so
    probabilities, and the ratios :math:`e^{\epsilon_b}`, multiply. The shares are rounded down until :math:`B
    \epsilon_b \le \epsilon` holds exactly. N, m, B, the seed and the weights are public and chosen without data.

    A mechanism that was not configured takes any number of directions, with equal weights.

    Args:
        epsilon: above 0.
        num_candidates: N for each block.
        num_blocks: B, at most one for each direction; None for one for each 10 of epsilon, beyond which single
            choices waste it.
        seed: of the candidates; public.
        subset_size: m; None to maximise the expected fidelity on samples of the prior.

    Raises:
        ValueError: if a number is out of its range.

    References:
        Ye, Barg: Optimal schemes for discrete distribution estimation under locally differential privacy, IEEE
        Transactions on Information Theory 64, 2018. Asi, Feldman, Talwar: Optimal algorithms for mean estimation
        under local differential privacy, ICML 2022 (the limit of many candidates).

    Example:
        >>> SubsetSelection(epsilon=4.0)(torch.randn(5, 8)).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        epsilon: float,
        num_candidates: int = 2**14,
        num_blocks: int | None = None,
        seed: int = 0,
        subset_size: int | None = None,
    ) -> None:
        self.epsilon = checked_epsilon(epsilon)
        self.num_candidates = _integer("num_candidates", num_candidates, 2, 2**24)
        wanted = min(math.ceil(self.epsilon / EPSILON_PER_BLOCK), 2**22)
        self.num_blocks = wanted if num_blocks is None else _integer("num_blocks", num_blocks, 1, 2**22)
        self.seed = _integer("seed", seed, 0, 2**63 - 1)
        self.subset_size = None if subset_size is None else _integer("subset_size", subset_size, 1, num_candidates - 1)
        acceptance_threshold(self.epsilon_per_block, self.num_candidates, self.subset_size or 1)
        self._blocks: tuple[_Block, ...] = ()
        self._order = torch.zeros(0, dtype=torch.int64)
        self._latest: SubsetSelection | None = None

    @classmethod
    def for_set(
        cls, set_epsilon: float, num_releases: int, delta: float, num_candidates: int = 2**14, seed: int = 0
    ) -> SubsetSelection:
        """Return the mechanism whose releases, shuffled, are together (``set_epsilon``, ``delta``) private.

        Local epsilon and subset size are those of :func:`~monai_cadp.privacy.set_calibration.fit_to_set`. The promise
        of the set holds for those who see nothing but the shuffled set; its own guarantee states it
        (:meth:`~monai_cadp.privacy.PrivacyGuarantee.shuffled`).

        Args:
            set_epsilon: of the whole set, above 0.
            num_releases: how many people the set has, one release each; where facts such as the class are public, the
                smallest part of it that shares them.
            delta: of the set, between 0 and 1.
            num_candidates: N.
            seed: of the candidates; public.

        Raises:
            ValueError: if a number is out of its range.

        Example:
            >>> mechanism = SubsetSelection.for_set(set_epsilon=1.0, num_releases=1000, delta=1e-6)
            >>> 3 < mechanism.epsilon < 5
            True
            >>> mechanism.guarantee().shuffled(1000, delta=1e-6).epsilon <= 1
            True
        """
        num_candidates = _integer("num_candidates", num_candidates, 2, 2**24)
        epsilon, subset_size = fit_to_set(set_epsilon, num_releases, delta, num_candidates)
        return cls(epsilon, num_candidates, num_blocks=1, seed=seed, subset_size=subset_size)

    @classmethod
    def stated(
        cls,
        epsilon: float | None = None,
        set_epsilon: float | None = None,
        num_releases: int | None = None,
        set_delta: float | None = None,
    ) -> SubsetSelection:
        """Return the mechanism of a single release's epsilon, or that of a whole set's (:meth:`for_set`).

        Args:
            epsilon: of a single release; None where that of the set is given.
            set_epsilon: of the set.
            num_releases: of the set.
            set_delta: of the set.

        Raises:
            ValueError: if both epsilons were given, or none, or the set's without its size and delta.

        Example:
            >>> SubsetSelection.stated(epsilon=4.0).epsilon
            4.0
        """
        if set_epsilon is None:
            return cls(epsilon)  # type: ignore[arg-type]  # None is refused there
        if epsilon is not None:
            raise ValueError("Both epsilon and set_epsilon were given; give one, for the other follows from it.")
        if num_releases is None or set_delta is None:
            raise ValueError("set_epsilon was given alone; give the number of patients and set_delta with it.")
        return cls.for_set(set_epsilon, num_releases, set_delta)

    def configured(self, num_directions: int, weights: Tensor | None = None) -> SubsetSelection:
        """Return a copy fitted to a content basis: candidates drawn, subset sizes chosen. Sees no data.

        Args:
            num_directions: k.
            weights: importance (k,) of each direction; public. None for equal weights.

        Returns:
            A mechanism that takes latents (B, k) only; self is not changed.

        Raises:
            ValueError: if k is not a positive integer, the weights do not fit, or k is too small for the number of
            blocks that epsilon needs.
        """
        num_blocks = min(self.num_blocks, num_directions)
        fitted = super().configured(num_directions, weights)._copied(num_blocks=num_blocks)
        assert isinstance(fitted, SubsetSelection)
        shares = torch.ones(num_directions) if weights is None else weights.detach().cpu().double()
        shares = (shares / shares.max()).float()
        share = fitted.epsilon_per_block
        generator = torch.Generator().manual_seed(self.seed)
        blocks = []
        for index in range(fitted.num_blocks):
            # Dealt in turn, so that every block has its part of the important directions.
            part = shares[index :: fitted.num_blocks].clone()
            candidates = torch.randn(self.num_candidates, len(part), generator=generator)
            targets = torch.randn(NUM_TARGETS, len(part), generator=generator)
            size = self.subset_size or choose_subset_size(targets, candidates, part, share)
            blocks.append(_Block(candidates, part, size, acceptance_threshold(share, self.num_candidates, size)))
        fitted._blocks = tuple(blocks)
        dealt = torch.arange(num_directions)
        fitted._order = torch.cat([dealt[index :: fitted.num_blocks] for index in range(fitted.num_blocks)]).argsort()
        fitted._latest = None
        return fitted

    @property
    def epsilon_per_block(self) -> float:
        """The share of epsilon that each block spends, rounded down."""
        return equal_share(self.epsilon, self.num_blocks)

    def parameters(self) -> dict[str, Any]:
        """Return candidates, blocks, subset sizes, and the integers by which words are compared (threshold.py)."""
        sizes = [block.subset_size for block in self._blocks] or self.subset_size
        return {
            "num_candidates": self.num_candidates,
            "num_blocks": self.num_blocks,
            "seed": self.seed,
            "subset_size": sizes,
            "num_directions": self.num_directions,
            # As text: a batch of cards becomes tensors, which hold 63 bits.
            "thresholds": [str(block.threshold) for block in self._blocks],
        }

    def _randomize(self, latents: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self._blocks:
            if self._latest is None or self._latest.num_directions != width(latents):
                if torch.jit.is_tracing():
                    raise ValueError("The mechanism was not configured before it was traced; use configured(k) first.")
                self._latest = self.configured(width(latents))
            return self._latest._randomize(latents, generator)
        num = self.num_candidates
        # A loop over batches would be recorded with the number of its steps.
        parts = [latents] if torch.jit.is_tracing() else latents.split(max(1, SCORES_AT_ONCE // num))
        return torch.cat([self._release(part, generator) for part in parts])

    def _release(self, latents: Tensor, generator: torch.Generator | None) -> Tensor:
        count = len(self._blocks)
        released = []
        for index, block in enumerate(self._blocks):
            candidates = block.candidates.to(latents.device)
            scores = _scores(latents[:, index::count], candidates, block.weights.to(latents.device))
            released.append(candidates[select_candidates(scores, block.subset_size, block.threshold, generator)])
        return torch.cat(released, dim=1)[:, self._order.to(latents.device)]


def _scores(content: Tensor, candidates: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted squared distances (B, N), up to a constant of each row, which does not change the ranking."""
    return (candidates**2 @ weights)[None] - 2 * (content * weights) @ candidates.T


def _count(marks: Tensor) -> Tensor:
    """Return how many are marked up to each candidate, exactly: there are fewer than 2^31, and int32 is much faster."""
    return marks.cumsum(1, dtype=torch.int32)


def _integer(name: str, value: int, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; expected an integer from {low} to {high}.")
    return value
