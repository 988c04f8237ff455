# SPDX-License-Identifier: Apache-2.0
"""Mechanisms that break their promise, each by a mistake that is easily made: audits must catch them.

Never release anything with one of them.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor

from monai_cadp.privacy import GaussianMechanism, LaplaceMechanism, Mechanism, SubsetSelection
from monai_cadp.privacy.auditing import gaussian_epsilon
from monai_cadp.privacy.lattice import Lattice
from monai_cadp.privacy.randomness import lattice_laplace, random_below, random_words

__all__ = [
    "BatchNormClip",
    "DataDependentSubset",
    "NaNStopsClipping",
    "ReusedNoise",
    "NegativeControl",
    "all_controls",
    "with_noise",
]

LARGEST_STEP = 2.0**40


class _BatchNormLattice(Lattice):
    def clip(self, latents: Tensor) -> Tensor:
        norm = torch.linalg.matrix_norm(latents.double() / self.step, ord=1)
        return (latents.double() / self.step * (self.bound / norm.clamp(min=self.bound))).trunc().long()


class BatchNormClip(LaplaceMechanism):
    r"""Laplace noise after a clip by the norm of the whole batch, as in the reference code of the paper.

    What is wrong: the norm for ord = 1 of a matrix (B, k) is its largest column sum. One row alone can keep the L1 norm
    k C, and what it keeps depends on the other rows. True epsilon: k times the claimed one, from a row with C in every
    column against its negative.
    """

    def __init__(self, epsilon: float, clipping_bound: float) -> None:
        super().__init__(epsilon, clipping_bound)
        vars(self)["lattice"] = _BatchNormLattice(clipping_bound, norm=1)


class _TrustingLattice(Lattice):
    def clip(self, latents: Tensor) -> Tensor:
        in_steps = latents.double() / self.step
        length = torch.linalg.vector_norm(in_steps, ord=self.norm, dim=1, keepdim=True)
        if length.max() > self.bound:
            in_steps = in_steps * (self.bound / length.clamp(min=self.bound))
        return torch.nan_to_num(in_steps).clamp(-LARGEST_STEP, LARGEST_STEP).trunc().long()


class NaNStopsClipping(LaplaceMechanism):
    """Laplace noise after a clip that is skipped when no row of the batch is longer than the bound.

    What is wrong: the largest of several lengths is NaN if one of them is, and NaN is not greater than the bound: one
    NaN in the batch, and no row is clipped. True epsilon: unlimited (here 2^19 times the claimed one or more, where
    integers end).
    """

    def __init__(self, epsilon: float, clipping_bound: float) -> None:
        super().__init__(epsilon, clipping_bound)
        vars(self)["lattice"] = _TrustingLattice(clipping_bound, norm=1)

    def _prepare(self, latents: Tensor) -> Tensor:
        return latents.detach().float()


class ReusedNoise(LaplaceMechanism):
    """Laplace noise that is drawn once and added to every row of a batch.

    What is wrong: the difference of two releases is the difference of the clipped rows, without any noise. True
    epsilon: infinite.
    """

    def _randomize(self, latents: Tensor, generator: torch.Generator | None) -> Tensor:
        steps = self.lattice.clip(latents)
        noisy = steps + lattice_laplace(torch.zeros_like(steps[:1]), self.scale, generator)
        return (noisy.double() * (self.lattice.step / math.sqrt(1 + self.noise_deviation**2))).float()


class DataDependentSubset(SubsetSelection):
    r"""Subset selection that marks every candidate within a fixed distance of the content, one at least.

    What is wrong: m depends on the image, and the probability of a candidate with it. With :math:`p_m = m e^\epsilon /
    (m e^\epsilon + N - m)` for the m of each image, a candidate has the probability :math:`e^\epsilon / (m e^\epsilon +
    N - m)` if it is marked, and :math:`1 / (m' e^\epsilon + N - m')` for another image that does not mark it. True
    epsilon: the logarithm of their ratio for m = 1 and m' = N - 1, nearly twice the claimed one, less where no image
    marks so few or so many. The distance is such that the origin marks nine candidates in ten.
    """

    def _release(self, latents: Tensor, generator: torch.Generator | None) -> Tensor:
        (block,) = self._blocks
        candidates, weights = block.candidates, block.weights
        distances = ((latents[:, None] - candidates) ** 2) @ weights
        near = torch.quantile((candidates**2) @ weights, 0.9)
        sizes = (distances <= near).sum(1, keepdim=True).clamp(1, len(candidates) - 1)
        chance = sizes * math.exp(self.epsilon) / (sizes * math.exp(self.epsilon) + len(candidates) - sizes)
        uniform = random_words(latents, 1, generator).double() / 2.0**64 + 0.5
        order = distances.argsort(dim=1)
        rank = random_below(latents, 2**62, generator)[:, None]
        place = torch.where(uniform < chance, rank % sizes, sizes + rank % (len(candidates) - sizes))
        return candidates[order.gather(1, place)[:, 0]]


def with_noise(mechanism: LaplaceMechanism | GaussianMechanism, factor: float) -> Mechanism:
    """Return a copy that claims the same and adds noise of so many times the scale.

    What is wrong with a factor of 1/2: it takes C for the sensitivity, which is 2 C. True epsilon of Laplace noise: the
    claimed one divided by the factor; of Gaussian noise: that of ``gaussian_epsilon`` for the smaller deviation.

    Example:
        >>> with_noise(LaplaceMechanism(epsilon=1.0, clipping_bound=1.0), 0.5).epsilon
        1.0
    """
    control = copy.copy(mechanism)
    vars(control)["scale"] = mechanism.scale * factor
    return control


class NegativeControl(NamedTuple):
    """A broken mechanism beside the right one whose promise it claims.

    Args:
        name: what is wrong.
        broken: the mechanism to be caught.
        honest: the mechanism that it pretends to be.
        true_epsilon: what ``broken`` really keeps, at the delta of ``honest`` and not below this; infinite if nothing.
        reaches_images: whether the mistake shows behind a privatizer, which lets no NaN through.
    """

    name: str
    broken: Mechanism
    honest: Mechanism
    true_epsilon: float
    reaches_images: bool = True


def all_controls() -> list[NegativeControl]:
    """Return all negative controls, with budgets at which few trials tell them from their honest versions.

    Returns:
        The controls, configured for numbers of directions at which what is wrong shows.

    Example:
        >>> all(control.broken.epsilon == control.honest.epsilon < control.true_epsilon for control in all_controls())
        True
    """
    small, laplace = (LaplaceMechanism(epsilon, clipping_bound=1.0) for epsilon in (1.0, 2.0))
    gaussian = GaussianMechanism(epsilon=8.0, delta=1e-5, clipping_bound=1.0)
    subset = SubsetSelection(epsilon=2.0, num_candidates=64)
    mu = 2 * gaussian.lattice.bound / gaussian.scale
    # Of 64 candidates the origin marks 57, and an image far beyond the outermost one marks that alone.
    marked, others = 57, 64 - 57
    varying = math.log(math.exp(2.0) * (marked * math.exp(2.0) + others) / (math.exp(2.0) + 63))
    controls = [
        (1, NegativeControl("C for 2 C, Laplace", with_noise(laplace, 0.5), laplace, 4.0)),
        (
            1,
            NegativeControl("C for 2 C, Gaussian", with_noise(gaussian, 0.5), gaussian, gaussian_epsilon(2 * mu, 1e-5)),
        ),
        (1, NegativeControl("noise x 0.8, Laplace", with_noise(laplace, 0.8), laplace, 2.5)),
        (
            1,
            NegativeControl(
                "noise x 0.8, Gaussian", with_noise(gaussian, 0.8), gaussian, gaussian_epsilon(mu / 0.8, 1e-5)
            ),
        ),
        (1, NegativeControl("m depends on the image", DataDependentSubset(2.0, num_candidates=64), subset, varying)),
        (2, NegativeControl("noise reused across images", ReusedNoise(1.0, 1.0), small, math.inf)),
        (2, NegativeControl("one NaN in the batch", NaNStopsClipping(1.0, 1.0), small, math.inf, False)),
        (16, NegativeControl("clip by the norm of the batch", BatchNormClip(2.0, 1.0), laplace, 32.0)),
    ]
    return [
        control._replace(broken=control.broken.configured(size), honest=control.honest.configured(size))
        for size, control in controls
    ]
