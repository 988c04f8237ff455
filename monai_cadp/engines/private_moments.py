# SPDX-License-Identifier: Apache-2.0
"""Fitting the linear parts of a network with differential privacy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_cadp.networks import ConditionalINN
from monai_cadp.networks.spectrum import orthonormal_cosines
from monai_cadp.networks.whitening import SMALLEST_RATIO
from monai_cadp.privacy.checks import checked_positive
from monai_cadp.privacy.noisy_moments import REPLACEMENT, noisy_second_moments
from monai_cadp.privacy.training_accounting import NoisySums

__all__ = ["PrivateMoments"]

# Of the constant in a vector, beside its norm of at most 1.
CONSTANT = 0.3
# A standard normal vector is longer than the root of its dimension and this with a probability of 0.02 at most.
BEYOND = 2.0
# In units of the pooled variance: noise leaves directions of a class without any, which nothing may be divided by.
SMALLEST_VARIANCE = 0.05


class PrivateMoments:
    r"""Fit mean, subspace and class moments of a network's whitening layer by two Gaussian mechanisms.

    The first noisy second moment gives mean, subspace and the scale outside. It is that of the lowest cosines of the
    coarse image x, of the length of what they leave of it, and of a constant. Fewer cosines drown in less noise: its
    largest eigenvalue grows with the root of their number, and that images are smooth is known without looking at them.
    The second, of the coordinates in the subspace, a constant and the embedded condition, gives every class
    its mean and covariance, or a regression on the condition and one covariance. Class covariances are shrunk towards
    the pooled one by as much as noise makes them uncertain, and no variance is taken below a twentieth of the pooled
    one. Everything after the two mechanisms is post-processing.

    The scales of the image and of detail levels stay as they are: intensities are 0 to 1. The promise holds for those
    who replace one person's images and labels by others, as many in number.

    Args:
        largest_norm: of a coarse image; larger ones are scaled down to it. Public, chosen without looking at the data.
        share: of the noise's inverse variance that goes into the first moment, between 0 and 1.
        num_frequencies: cosines along each axis of the coarse image, of which its subspace is made; None for all.

    Raises:
        ValueError: if a number is out of its range.

    References:
        Dwork, Talwar, Thakurta, Zhang: Analyze Gauss, STOC 2014.

    Example:
        >>> inn = ConditionalINN(spatial_shape=(4, 4), num_classes=2, rank=3, num_couplings=0)
        >>> x, y = torch.rand(4000, 1, 4, 4), torch.arange(4000) % 2
        >>> PrivateMoments(largest_norm=4.0)(inn, [(x, y)], torch.ones(4000), noise_multiplier=2.0)
        >>> z, _ = inn.encode(x, y)
        >>> bool(((z @ inn.whitening.basis).std(0) - 1).abs().max() < 0.3)
        True
    """

    def __init__(self, largest_norm: float, share: float = 0.5, num_frequencies: int | None = None) -> None:
        self.largest_norm = checked_positive("largest_norm", largest_norm)
        if not 0 < share < 1:
            raise ValueError(f"share is {share}; expected a number between 0 and 1.")
        if num_frequencies is not None and num_frequencies < 1:
            raise ValueError(f"num_frequencies is {num_frequencies}; expected 1 or more, or None.")
        self.share, self.num_frequencies = share, num_frequencies

    # What an audit replaces.
    second_moments = staticmethod(noisy_second_moments)

    def sums(self, noise_multiplier: float) -> list[NoisySums]:
        """Return what the fit spends, for the accountant.

        Args:
            noise_multiplier: that one moment of all the budget would have.
        """
        shares = (self.share, 1 - self.share)
        return [NoisySums(noise_multiplier / math.sqrt(share), replacement=REPLACEMENT) for share in shares]

    @torch.no_grad()
    def __call__(
        self,
        inn: ConditionalINN,
        batches: Iterable[tuple[Tensor, Tensor | None]],
        weights: Tensor,
        noise_multiplier: float,
        generator: torch.Generator | None = None,
        training_data: str | Mapping[str, Any] = "unprotected",
    ) -> None:
        r"""Fit the network, in place.

        Args:
            inn: the network, without learned maps, whose scales of a voxel need moments of their own.
            batches: all images (B, C, \*spatial) and conditions, once.
            weights: of every image (n,), in this order; each person's add up to 1.
            noise_multiplier: that one moment of all the budget would have.
            generator: draws the noise. For tests only: its numbers can be foretold, and no guarantee is recorded.
            training_data: the record of the training of which this is a part, with its guarantee, for the noise alone
                promises nothing that could be stated; or "public" or "unprotected".

        Raises:
            ValueError: if the network has learned maps, or more dimensions of its subspace than there are cosines, or
                there are no images; nothing is spent then.
        """
        if inn.coarse_scale is not None:
            raise ValueError("The network has learned maps; fit its moments on public images, and train the rest.")
        cosines = _cosines(inn.coarse_shape, self.num_frequencies)
        layer, size = inn.whitening, cosines.shape[1]
        if layer.rank > size:
            raise ValueError(
                f"num_frequencies is {self.num_frequencies}, which makes {size} cosines, for a subspace of the "
                f"dimension {layer.rank}; give more, or a network of smaller rank."
            )
        if generator is not None and training_data != "public":
            training_data = "unprotected"
        with inn.learning(training_data, "moments"):
            self._fit(inn, batches, weights, noise_multiplier, cosines, generator)

    def _fit(
        self,
        inn: ConditionalINN,
        batches: Iterable[tuple[Tensor, Tensor | None]],
        weights: Tensor,
        noise_multiplier: float,
        cosines: Tensor,
        generator: torch.Generator | None,
    ) -> None:
        layer, size = inn.whitening, cosines.shape[1]
        coarse, conditions = [], []
        for x, condition in batches:
            coarse.append(inn.split(x)[0][0].flatten(1))
            conditions.append(condition)
        if not coarse:
            raise ValueError("No data came to fit the moments of the network; expected at least one batch.")
        vectors = torch.cat(coarse)
        labels = None if conditions[0] is None else torch.cat([c for c in conditions if c is not None])
        first, second = (part.noise_multiplier for part in self.sums(noise_multiplier))
        total = float(weights.sum())
        smooth = vectors @ cosines
        left = (vectors - smooth @ cosines.T).norm(dim=1, keepdim=True)
        moments = _moments(
            self.second_moments,
            _clipped(torch.cat([smooth, left], dim=1) / self.largest_norm),
            None,
            None,
            1,
            first,
            weights=weights,
            generator=generator,
        )[0]
        # Norms are 1 at most: so are the mean and every variance, whatever noise makes of them.
        mean = _shortened(moments[:size, -1] / total)
        values, basis = torch.linalg.eigh(moments[:size, :size] / total - torch.outer(mean, mean))
        values, basis = values.flip(0).clamp(max=1.0), basis.flip(1)
        smallest = SMALLEST_RATIO * max(float(values[0]), SMALLEST_RATIO)
        layer.mean.copy_(self.largest_norm * cosines @ mean.float())
        layer.basis.copy_(cosines @ basis[:, : layer.rank].float())
        scale = self.largest_norm * values[: layer.rank].clamp(min=smallest).sqrt()
        if layer.rank < layer.size:
            # What noise took away below nothing, it has added elsewhere.
            outside = values[layer.rank :].sum() + moments[size, size] / total
            variance = (outside / (layer.size - layer.rank)).clamp(min=smallest)
            layer.residual_scale.copy_(self.largest_norm * variance.sqrt())
        inside = ((vectors - layer.mean) @ layer.basis) / scale.float()
        _fit_inside(self.second_moments, inn, inside, labels, scale, second, weights, generator)


def _fit_inside(
    second_moments: Callable[..., Tensor],
    inn: ConditionalINN,
    inside: Tensor,
    labels: Tensor | None,
    scale: Tensor,
    noise_multiplier: float,
    weights: Tensor,
    generator: torch.Generator | None,
) -> None:
    space, layer, rank = inn.condition_space, inn.whitening.inside, inn.whitening.rank
    by_class = space.num_classes is not None
    embedding = None if by_class or space.embedding_size == 0 else space.embed(labels, len(inside))
    unit, condition_unit = (math.sqrt(size) + BEYOND for size in (rank, space.embedding_size))
    moments = _moments(
        second_moments,
        _clipped(inside / unit),
        None if embedding is None else embedding / condition_unit,
        space.groups(labels, len(inside)) if by_class else None,
        space.num_groups if by_class else 1,
        noise_multiplier,
        weights=weights,
        generator=generator,
    )
    design = moments[:, rank:, rank:]
    count = design[:, 0, 0].clamp(min=1.0)
    ridge = 1e-3 * count[:, None, None] * torch.eye(design.shape[1], dtype=torch.float64)
    ridge[:, 0, 0] = 0.0
    design = design.clone()
    design[:, 0, 0] = count
    coefficients = torch.linalg.solve(design + ridge, moments[:, rank:, :rank]).transpose(1, 2)
    scatter = moments[:, :rank, :rank] - coefficients @ (design + 2 * ridge) @ coefficients.transpose(1, 2)
    pooled = scatter.sum(0) / count.sum()
    variance = float(pooled.diagonal().mean().clamp(min=SMALLEST_RATIO, max=1.0))
    # The largest eigenvalue of the noise, which knows nothing of the data, beside a pooled variance.
    spread = _noise_norm(noise_multiplier, rank) / count / variance
    trust = (1 / (1 + spread.square()))[:, None, None]
    covariances = trust * scatter / count[:, None, None] + (1 - trust) * pooled
    values, vectors = torch.linalg.eigh(covariances)
    values = values.clamp(min=SMALLEST_VARIANCE * variance, max=1.0)
    covariances = (vectors * values[:, None, :]) @ vectors.transpose(1, 2)
    units = scale * unit
    layer.mean.copy_(_shortened(coefficients[:, :, 0]) * units)
    if embedding is not None:
        layer.slope.copy_(coefficients[0, :, 1:] * units[:, None] / condition_unit)
    covariances = covariances * units[:, None] * units
    layer.set_covariances(covariances)


def _moments(
    second_moments: Callable[..., Tensor],
    vectors: Tensor,
    embedding: Tensor | None,
    group: Tensor | None,
    num_groups: int,
    noise_multiplier: float,
    *,
    weights: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """Return noisy second moments of vectors of norm 1 at most, of 1, and of embeddings, in this order."""
    count = len(vectors)
    parts = [vectors, torch.full((count, 1), CONSTANT)]
    if embedding is not None:
        parts.append(CONSTANT * _clipped(embedding))
    length = math.sqrt(1 + CONSTANT**2 * (len(parts) - 1))
    group = torch.zeros(count, dtype=torch.long) if group is None else group
    rows = torch.cat(parts, dim=1) / length
    moments = second_moments(rows, group, num_groups, noise_multiplier, weights=weights, generator=generator)
    units = torch.full((rows.shape[1],), length, dtype=torch.float64)
    units[vectors.shape[1] :] /= CONSTANT
    return moments * units[:, None] * units


def _cosines(shape: Sequence[int], num_frequencies: int | None) -> Tensor:
    """Return the lowest orthonormal cosines of every channel (C, *sizes) as columns; a table's columns as they are."""
    channels, *sizes = shape
    columns = torch.eye(channels)
    for size in sizes:
        columns = torch.kron(columns, orthonormal_cosines(size, min(num_frequencies or size, size)).float())
    return columns


def _clipped(rows: Tensor) -> Tensor:
    """Scale rows down to a norm of 1, so that none takes anything from its constant."""
    return _shortened(torch.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0))


def _shortened(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True).clamp(min=1.0)


def _noise_norm(noise_multiplier: float, rank: int) -> float:
    """Return how long the largest eigenvector of the noise of a moment is expected to be."""
    return noise_multiplier * (1 + CONSTANT**2) * math.sqrt(2 * rank)
