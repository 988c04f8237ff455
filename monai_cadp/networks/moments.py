# SPDX-License-Identifier: Apache-2.0
"""Fitting the linear parts of a network: a few passes over the data, linear in their size, nothing but sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor

from monai_cadp.networks.detail import ChannelScale, DetailFlow
from monai_cadp.networks.inn import ConditionalINN

__all__ = ["fit_moments"]

Batches = Callable[[], Iterable[tuple[Tensor, Tensor | None]]]
OVERSAMPLING = 16
# Smallest variance beside the largest one: bounds the error that float32 makes in the inverse.
SMALLEST_RATIO = 1e-5


@torch.no_grad()
def fit_moments(inn: ConditionalINN, batches: Batches, *, num_passes: int = 2) -> None:
    r"""Fit the scales of the detail levels and the whitening layer of a network to data.

    The subspace is found by randomised subspace iteration on the covariance, which is never formed: every pass
    computes :math:`Y = \sum_i x_i (x_i^T Q)`. One more pass gathers the moments inside the subspace and the scale
    outside. Class covariances are shrunk towards the pooled one by K / (n_g + K), so that a class with few samples
    does not get a singular factor, and no variance is taken below 1e-5 of the largest, which would cost the inverse
    its precision.

    Args:
        inn: the network, changed in place.
        batches: called once a pass; yields (images (B, C, \*spatial), condition) in any order.
        num_passes: passes of subspace iteration.

    Raises:
        ValueError: if the data are empty or not finite.

    References:
        Halko, Martinsson, Tropp: Finding structure with randomness, SIAM Review 53, 2011, algorithm 4.4.

    Example:
        >>> inn = ConditionalINN(spatial_shape=(), in_channels=3)
        >>> x = torch.randn(500, 3) * torch.tensor([1.0, 5.0, 0.2])
        >>> fit_moments(inn, lambda: [(x, None)])
        >>> z, _ = inn.encode(x)
        >>> bool((z.std(0) - 1).abs().max() < 0.05)
        True
    """
    _fit_channel_scale(inn.input_scale, lambda: (x for x, _ in batches()))
    _fit_mean_and_scales(inn, batches)
    layer = inn.whitening
    size, rank = layer.size, layer.rank
    width = min(size, rank + OVERSAMPLING)
    directions = torch.randn(size, width, generator=torch.Generator().manual_seed(0))
    for _ in range(num_passes if width < size else 0):
        directions, _ = torch.linalg.qr(directions)
        product = torch.zeros_like(directions)
        for coarse, _ in _coarse(inn, batches):
            centred = coarse - layer.mean
            product += centred.T @ (centred @ directions)
        directions = product
    directions = torch.linalg.qr(directions).Q if width < size else torch.eye(size)
    _fit_subspace(inn, batches, directions)


def _coarse(inn: ConditionalINN, batches: Batches) -> Iterable[tuple[Tensor, Tensor | None]]:
    for x, condition in batches():
        yield inn.split(x)[0].flatten(1), condition


def _fit_channel_scale(scale: ChannelScale, batches: Callable[[], Iterable[Tensor]]) -> None:
    channels = scale.mean.shape[0]
    count, first, second = 0, torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    for x in batches():
        values = x.double().transpose(0, 1).flatten(1)
        count += values.shape[1]
        first += values.sum(1)
        second += values.square().sum(1)
    if count == 0:
        raise ValueError("No data came to fit the moments of the network; expected at least one batch.")
    if not bool(torch.isfinite(first).all()):
        raise ValueError("The data hold NaN or infinity; expected finite pixels to fit the moments of the network.")
    mean = first / count
    deviation = (second / count - mean.square()).clamp(min=0).sqrt()
    deviation = torch.where(deviation > 0, deviation, torch.ones(())).clamp(min=SMALLEST_RATIO**0.5 * deviation.max())
    scale.mean.copy_(mean.reshape(scale.mean.shape))
    scale.scale.copy_(deviation.reshape(scale.scale.shape))


def _fit_mean_and_scales(inn: ConditionalINN, batches: Batches) -> None:
    count, total = 0, torch.zeros(inn.whitening.size, dtype=torch.float64)
    for coarse, _ in _coarse(inn, batches):
        count += coarse.shape[0]
        total += coarse.double().sum(0)
    inn.whitening.mean.copy_(total / count)
    for level, flow in enumerate(inn.detail_flows):

        def details(level: int = level) -> Iterable[Tensor]:
            return (inn.split(x)[1][level] for x, _ in batches())

        _fit_channel_scale(cast(DetailFlow, flow).scale, details)


def _fit_subspace(inn: ConditionalINN, batches: Batches, directions: Tensor) -> None:
    layer, space = inn.whitening, inn.condition_space
    width, embedding_size = directions.shape[1], layer.slope.shape[1]
    regress = space.num_classes is None and embedding_size > 0
    groups = layer.group_mean.shape[0]
    count = torch.zeros(groups, dtype=torch.float64)
    first = torch.zeros(groups, width, dtype=torch.float64)
    second = torch.zeros(groups, width, width, dtype=torch.float64)
    total = 0.0
    cross = torch.zeros(width, embedding_size + 1, dtype=torch.float64)
    gram = torch.zeros(embedding_size + 1, embedding_size + 1, dtype=torch.float64)
    for coarse, condition in _coarse(inn, batches):
        centred = coarse - layer.mean
        inside = (centred @ directions).double()
        total += float(centred.double().square().sum())
        group = space.groups(condition, len(inside))
        for g in group.unique().tolist():
            members = inside[group == g]
            count[g] += len(members)
            first[g] += members.sum(0)
            second[g] += members.T @ members
        if regress:
            design = torch.cat([torch.ones(len(inside), 1), space.embed(condition, len(inside))], 1).double()
            cross += inside.T @ design
            gram += design.T @ design
    # The leading eigenvectors of the pooled second moment, inside the sketch.
    values, vectors = torch.linalg.eigh(second.sum(0))
    vectors = vectors[:, -layer.rank :].flip(1)
    outside = max(total - float(values[-layer.rank :].sum()), 0.0)
    rest = count.sum() * max(layer.size - layer.rank, 1)
    layer.basis.copy_((directions.double() @ vectors).float())
    smallest = _smallest(float(values[-1]) / float(count.sum()))
    # A full subspace leaves rounding errors only, which a small scale would blow up.
    residual = max(outside / float(rest), smallest) if layer.rank < layer.size else 1.0
    layer.residual_scale.copy_(torch.tensor(residual).sqrt())
    first = first @ vectors
    second = vectors.T @ second @ vectors
    if regress:
        ridge = 1e-3 * count.sum() * torch.eye(embedding_size + 1, dtype=torch.float64)
        ridge[0, 0] = 0.0
        coefficients = torch.linalg.solve(gram + ridge, (vectors.T @ cross).T).T
        layer.group_mean.copy_(coefficients[:, :1].T)
        layer.slope.copy_(coefficients[:, 1:])
        covariance = second[0] - coefficients @ (vectors.T @ cross).T
        covariance = (covariance + covariance.T) / 2
        covariances = (covariance - coefficients @ ridge @ coefficients.T)[None] / count.sum()
    else:
        mean = first / count.clamp(min=1)[:, None]
        layer.group_mean.copy_(mean)
        scatter = second - count[:, None, None] * mean[:, :, None] * mean[:, None, :]
        pooled = scatter.sum(0) / count.sum()
        weight = (count / (count + layer.rank))[:, None, None]
        covariances = weight * scatter / count.clamp(min=1)[:, None, None] + (1 - weight) * pooled
    values, vectors = torch.linalg.eigh(covariances)
    scale = values.clamp(min=_smallest(float(values.max()))).sqrt()[:, None, :]
    layer.factor.copy_((vectors * scale) @ vectors.transpose(1, 2))
    layer.inverse_factor.copy_((vectors / scale) @ vectors.transpose(1, 2))


def _smallest(largest_variance: float) -> float:
    """Return the smallest variance beside the largest one; data that do not vary still leave a network to invert."""
    return SMALLEST_RATIO * (largest_variance if largest_variance > 0 else 1.0)
