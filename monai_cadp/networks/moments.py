# SPDX-License-Identifier: Apache-2.0
"""Fitting the linear parts of a network: a few passes over the data, linear in their size, nothing but sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from tqdm import tqdm

from monai_cadp.networks.condition import ConditionSpace
from monai_cadp.networks.detail import ChannelScale, DetailFlow
from monai_cadp.networks.inn import ConditionalINN
from monai_cadp.networks.whitening import SMALLEST_RATIO, GroupWhitening, smallest_variance

__all__ = ["Batches", "fit_moments", "refit_moments", "refit_subspace"]

Batches = Callable[[], Iterable[tuple[Tensor, Tensor | None]]]
OVERSAMPLING = 16
# Up to this size of the coarse image its covariance is formed.
LARGEST_FORMED = 4096
SECONDS_WITHOUT_BAR = 5.0


@torch.no_grad()
def fit_moments(
    inn: ConditionalINN,
    batches: Batches,
    *,
    training_data: str | Mapping[str, Any] = "unprotected",
    num_passes: int = 2,
    progress: bool = False,
) -> None:
    r"""Fit the scales of the detail levels and the whitening layer of a network to data.

    The subspace of a large coarse image is found by randomised subspace iteration on the covariance, which is never
    formed: every pass computes :math:`Y = \sum_i x_i (x_i^T Q)`. One more pass gathers the moments inside the subspace
    and the scale outside. Class covariances are shrunk towards the pooled one by K / (n_g + K), so that a class with
    few samples does not get a singular factor, and no variance is taken below 1e-5 of the largest, which would cost the
    inverse its precision. Where images share a space, a first subspace tells how far every voxel lies outside of it;
    voxels are divided by that, and the subspace is found again.

    Args:
        inn: the network, changed in place.
        batches: called once a pass; yields (images (B, C, \*spatial), condition) in any order.
        training_data: how these data are protected, "public" or "unprotected", or the record of the training of which
            this is a part; as for :meth:`~InvertibleNetwork.learning`.
        num_passes: passes of subspace iteration.
        progress: show a progress bar, if it takes more than a moment.

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
    with inn.learning(training_data, "moments"), progress_bar(progress) as bar:

        def counted() -> Iterator[tuple[Tensor, Tensor | None]]:
            for batch in on_device_of(inn, batches)():
                yield batch
                bar.update()

        _fit(inn, counted, num_passes)


@torch.no_grad()
def refit_moments(
    inn: ConditionalINN,
    batches: Batches,
    *,
    training_data: str | Mapping[str, Any] = "unprotected",
    progress: bool = False,
) -> None:
    r"""Give the coarse image of a trained network the class means and covariances of other data, in its own subspace.

    Augmented images vary more than images do, and so does what a network draws that has learnt from them. The means
    and covariances of the images as they are put that right: what couplings have learnt is the shape around them. A
    covariance in K dimensions of fewer images says of most directions that nothing varies along them: the covariance
    that the network has counts as K further images, brought to the size (the trace) of that of the images.

    Args:
        inn: the network, changed in place.
        batches: called once; yields (images (B, C, \*spatial), condition) in any order.
        training_data: how these data are protected, "public" or "unprotected", or the record of the training of which
            this is a part; as for :meth:`~InvertibleNetwork.learning`.
        progress: show a progress bar, if it takes more than a moment.

    Raises:
        ValueError: if the data are empty or not finite.

    References:
        Chen: Bayesian inference for a normal dispersion matrix, Journal of the Royal Statistical Society B 41, 1979
        (a covariance that is known beforehand counts as further observations).

    Example:
        >>> inn = ConditionalINN(spatial_shape=(), in_channels=3)
        >>> fit_moments(inn, lambda: [(5 * torch.randn(500, 3), None)])
        >>> refit_moments(inn, lambda: [(torch.randn(500, 3), None)])
        >>> bool((inn.decode(torch.randn(500, 3)).std(0) - 1).abs().max() < 0.2)
        True
    """
    layer = inn.whitening
    coarse = _coarse(inn, on_device_of(inn, batches))
    inside = (((image - layer.mean) @ layer.basis, condition) for image, condition in coarse)
    with inn.learning(training_data, "moments"):
        _refit(_GroupSums(inn.condition_space, layer.rank), inside, layer.inside, progress, keeps_covariance=True)


@torch.no_grad()
def refit_subspace(
    inn: ConditionalINN,
    batches: Batches,
    *,
    training_data: str | Mapping[str, Any] = "unprotected",
    progress: bool = False,
) -> None:
    r"""Whiten the subspace of a trained network once more, behind its local flow; without one, do nothing.

    The local flow sees the subspace through voxels, of whose variance it is a small share: training leaves it narrower
    or wider than the prior, and samples that are all of about one size. Its moments put that right: the mean by a
    regression on the embedded condition, and one covariance for all classes.

    Args:
        inn: the network, changed in place.
        batches: called once; yields (images (B, C, \*spatial), condition) in any order.
        training_data: how these data are protected, "public" or "unprotected", or the record of the training of which
            this is a part; as for :meth:`~InvertibleNetwork.learning`.
        progress: show a progress bar, if it takes more than a moment.

    Raises:
        ValueError: if the data are empty or not finite.

    Example:
        >>> inn = ConditionalINN((8, 8), num_levels=0, rank=4, num_couplings=0, num_maps=1, num_local_couplings=2)
        >>> x = torch.randn(500, 1, 1, 1) + 0.1 * torch.randn(500, 1, 8, 8)
        >>> refit_subspace(inn, lambda: [(x, None)])
        >>> inside = inn.encode(x)[0] @ inn.whitening.basis
        >>> bool((inside.std(0) - 1).abs().max() < 0.05)
        True
    """
    if inn.rewhitening is None:
        return
    inside = ((inn.before_rewhitening(x, condition), condition) for x, condition in on_device_of(inn, batches)())
    sums = _GroupSums(inn.condition_space, inn.whitening.rank, by_class=False)
    with inn.learning(training_data, "moments"):
        _refit(sums, inside, inn.rewhitening, progress)


def _refit(
    sums: _GroupSums,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    layer: GroupWhitening,
    progress: bool,
    keeps_covariance: bool = False,
) -> None:
    """Give a layer the moments of vectors (B, K) and their conditions, beside the covariance that it has if asked."""
    with progress_bar(progress) as bar:
        for vectors, condition in batches:
            sums.add(vectors, condition)
            bar.update()
    if not bool(sums.count.any()):
        raise ValueError("No data came to fit the moments of the network; expected at least one batch.")
    if not bool(sums.second.isfinite().all()):
        raise ValueError("The data hold NaN or infinity; expected finite pixels to fit the moments of the network.")
    factor = layer.factor.cpu().double()
    sums.fit(layer, (factor @ factor.mT).mean(0) if keeps_covariance else None)


def on_device_of(inn: ConditionalINN, batches: Batches) -> Batches:
    """Return batches where the network is."""

    def moved() -> Iterator[tuple[Tensor, Tensor | None]]:
        for x, condition in batches():
            yield x.to(inn.device), condition.to(inn.device) if isinstance(condition, Tensor) else condition

    return moved


def progress_bar(progress: bool, name: str = "moments") -> tqdm[Any]:
    """Return a bar that counts batches, and shows itself after a moment."""
    return tqdm(desc=name, unit="batch", delay=SECONDS_WITHOUT_BAR, disable=not progress)


def _fit(inn: ConditionalINN, batches: Batches, num_passes: int) -> None:
    _fit_scales([inn.input_scale], ([x] for x, _ in batches()))
    layer = inn.whitening
    mean = ChannelScale([(layer.size,)], per_voxel=True).to(inn.device)
    flows = [cast(DetailFlow, flow) for flow in inn.detail_flows]
    fitted = [(mean, 0, False)] + [(flow.scale, level, True) for level, flow in enumerate(flows)]
    fitted += [(flow.context_scale, level, False) for level, flow in enumerate(flows) if flow.context_scale is not None]
    if inn.refiner is not None:
        fitted.append((inn.refiner.scale, inn.refined_level, False))

    def parts() -> Iterator[list[Tensor]]:
        for x, _ in batches():
            coarser, details = inn.split(x)
            yield [(details if detail else coarser)[level] for _, level, detail in fitted]

    _fit_scales([scale for scale, _, _ in fitted], parts())
    layer.mean.copy_(mean.mean)
    start, rank = None, layer.rank
    if inn.coarse_scale is not None:
        inn.coarse_scale.mean.copy_(mean.mean.reshape(inn.coarse_shape))
        layer.mean.zero_()
        deviation = mean.scale
        if rank < layer.size:
            start = _iterated(inn, batches, _random(inn, rank), num_passes)
            deviation = _residual_deviation(inn, batches, start)
            start, num_passes = start / deviation[:, None], 1
        inn.coarse_scale.scale.copy_(deviation.reshape(inn.coarse_shape))
    width = min(layer.size, rank + OVERSAMPLING)
    if width == layer.size or layer.size <= LARGEST_FORMED:
        directions = torch.eye(layer.size, device=inn.device)
    else:
        more = _random(inn, width - (0 if start is None else rank))
        directions = _iterated(inn, batches, more if start is None else torch.cat([start, more], 1), num_passes)
    _fit_subspace(inn, batches, directions)


def _random(inn: ConditionalINN, width: int) -> Tensor:
    """Return random directions of the coarse image, always the same."""
    return torch.randn(inn.whitening.size, width, generator=torch.Generator().manual_seed(0)).to(inn.device)


def _coarse(inn: ConditionalINN, batches: Batches) -> Iterable[tuple[Tensor, Tensor | None]]:
    for x, condition in batches():
        yield inn.scaled(inn.split(x)[0][0])[0].flatten(1), condition


def _iterated(inn: ConditionalINN, batches: Batches, directions: Tensor, num_passes: int) -> Tensor:
    """Turn directions (D, k) towards those in which the coarse image varies most; returns them orthonormal."""
    for _ in range(num_passes):
        directions = torch.linalg.qr(directions).Q
        product = torch.zeros_like(directions)
        for coarse, _ in _coarse(inn, batches):
            centred = coarse - inn.whitening.mean
            product += centred.T @ (centred @ directions)
        directions = product
    return torch.linalg.qr(directions).Q


def _residual_deviation(inn: ConditionalINN, batches: Batches, directions: Tensor) -> Tensor:
    """Return how far every voxel of the coarse image lies from the subspace (D,), for scales that are 1."""
    count, squares = 0, torch.zeros(inn.whitening.size, dtype=torch.float64, device=inn.device)
    for coarse, _ in _coarse(inn, batches):
        centred = coarse - inn.whitening.mean
        count += len(centred)
        squares += (centred - (centred @ directions) @ directions.T).double().square().sum(0)
    deviation = (squares / count).sqrt().float()
    return deviation.clamp(min=SMALLEST_RATIO**0.5 * deviation.max())


def _fit_scales(scales: Sequence[ChannelScale], batches: Iterable[Sequence[Tensor]]) -> None:
    """Fit several scales in one pass over the data, to one tensor (B, ...) for each of them in every batch."""
    counts = [0] * len(scales)
    first = [torch.zeros_like(scale.mean, dtype=torch.float64) for scale in scales]
    second = [torch.zeros_like(scale.mean, dtype=torch.float64) for scale in scales]
    for tensors in batches:
        for index, (scale, tensor) in enumerate(zip(scales, tensors, strict=True)):
            values = tensor.reshape(len(tensor), len(scale.mean), -1, *scale.mean[0].shape).double()
            counts[index] += len(values) * values.shape[2]
            first[index] += values.sum((0, 2))
            second[index] += values.square().sum((0, 2))
    if not all(counts):
        raise ValueError("No data came to fit the moments of the network; expected at least one batch.")
    for scale, count, total, squares in zip(scales, counts, first, second, strict=True):
        if not bool(torch.isfinite(total).all()):
            raise ValueError("The data hold NaN or infinity; expected finite pixels to fit the moments of the network.")
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        deviation = torch.where(deviation > 0, deviation, torch.ones(()))
        scale.mean.copy_(mean)
        scale.scale.copy_(deviation.clamp(min=SMALLEST_RATIO**0.5 * deviation.max()))


def _fit_subspace(inn: ConditionalINN, batches: Batches, directions: Tensor) -> None:
    layer = inn.whitening
    sums = _GroupSums(inn.condition_space, directions.shape[1])
    total = 0.0
    for coarse, condition in _coarse(inn, batches):
        centred = coarse - layer.mean
        total += float(centred.double().square().sum())
        sums.add(centred @ directions, condition)
    # The leading eigenvectors of the pooled second moment, inside the sketch.
    values, vectors = torch.linalg.eigh(sums.second.sum(0))
    vectors = vectors[:, -layer.rank :].flip(1)
    outside = max(total - float(values[-layer.rank :].sum()), 0.0)
    rest = sums.count.sum() * max(layer.size - layer.rank, 1)
    layer.basis.copy_((directions.double().cpu() @ vectors).float())
    smallest = smallest_variance(float(values[-1]) / float(sums.count.sum()))
    # A full subspace leaves rounding errors only, which a small scale would blow up.
    residual = max(outside / float(rest), smallest) if layer.rank < layer.size else 1.0
    layer.residual_scale.copy_(torch.tensor(residual).sqrt())
    sums.turn(vectors)
    sums.fit(layer.inside)


class _GroupSums:
    """The sums over vectors, group by group, from which their moments come.

    Args:
        space: of the conditions.
        size: of the vectors.
        by_class: whether every class is a group; otherwise all is one, with a regression on the embedded condition.
    """

    def __init__(self, space: ConditionSpace, size: int, by_class: bool = True) -> None:
        self.space = space
        self.by_class = by_class and space.num_classes is not None
        self.regress = not self.by_class and space.embedding_size > 0
        groups, design = space.num_groups if self.by_class else 1, space.embedding_size + 1
        self.count = torch.zeros(groups, dtype=torch.float64)
        self.first = torch.zeros(groups, size, dtype=torch.float64)
        self.second = torch.zeros(groups, size, size, dtype=torch.float64)
        # Of the regression.
        self.cross = torch.zeros(size, design, dtype=torch.float64)
        self.gram = torch.zeros(design, design, dtype=torch.float64)

    def add(self, vectors: Tensor, condition: Tensor | None) -> None:
        # Small sums in double precision, which not every device has.
        vectors, condition = vectors.cpu().double(), condition.cpu() if isinstance(condition, Tensor) else condition
        group = self.space.groups(condition, len(vectors)) if self.by_class else torch.zeros(len(vectors)).long()
        for g in group.unique().tolist():
            members = vectors[group == g]
            self.count[g] += len(members)
            self.first[g] += members.sum(0)
            self.second[g] += members.T @ members
        if self.regress:
            design = torch.cat([torch.ones(len(vectors), 1), self.space.embed(condition, len(vectors))], 1).double()
            self.cross += vectors.T @ design
            self.gram += design.T @ design

    def turn(self, axes: Tensor) -> None:
        """Go over to coordinates along other axes (size, K)."""
        self.first = self.first @ axes
        self.second = axes.T @ self.second @ axes
        self.cross = axes.T @ self.cross

    def fit(self, layer: GroupWhitening, earlier: Tensor | None = None) -> None:
        """Give a layer the moments of what was added; the shape of an earlier covariance (K, K) counts as K vectors."""
        if self.regress:
            design = len(self.gram)
            ridge = 1e-3 * self.count.sum() * torch.eye(design, dtype=torch.float64)
            ridge[0, 0] = 0.0
            coefficients = torch.linalg.solve(self.gram + ridge, self.cross.T).T
            layer.mean.copy_(coefficients[:, :1].T)
            layer.slope.copy_(coefficients[:, 1:])
            covariance = self.second[0] - coefficients @ self.cross.T
            covariance = (covariance + covariance.T) / 2
            covariances = (covariance - coefficients @ ridge @ coefficients.T)[None] / self.count.sum()
        else:
            mean = self.first / self.count.clamp(min=1)[:, None]
            layer.mean.copy_(mean)
            scatter = self.second - self.count[:, None, None] * mean[:, :, None] * mean[:, None, :]
            pooled = scatter.sum(0) / self.count.sum()
            if earlier is not None:
                size = pooled.trace()
                # One image says nothing of how images vary.
                earlier = earlier * (size / earlier.trace()) if size > 0 else earlier
                pooled = (scatter.sum(0) + len(earlier) * earlier) / (self.count.sum() + len(earlier))
            weight = (self.count / (self.count + mean.shape[1]))[:, None, None]
            if earlier is not None and len(self.count) == 1:
                # Of one group, nothing else is known.
                weight = torch.zeros_like(weight)
            covariances = weight * scatter / self.count.clamp(min=1)[:, None, None] + (1 - weight) * pooled
        layer.set_covariances(covariances)
