# SPDX-License-Identifier: Apache-2.0
"""Making what a trained network draws like images in what is easily measured: their variation, grain and range."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_cadp.networks.inn import LARGEST_VALUE, NUM_MATCHED, ConditionalINN, as_channels
from monai_cadp.networks.local_filter import LocalFilter
from monai_cadp.networks.moments import Batches, on_device_of, progress_bar
from monai_cadp.networks.spectrum import cosine_transform, smoothed_over_frequencies

__all__ = ["calibrate_edges", "calibrate_format", "calibrate_histogram", "calibrate_latents", "calibrate_spectrum"]

# Of calibrated latents and of gains, and one over it the smallest.
LARGEST_DEVIATION = 2.0
LARGEST_GAIN = 2.0
# In frequencies.
SMOOTHING = 3.0
# Of a histogram.
NUM_BINS = 1024
EDGE_STEPS = 3
# Power that counts as none, beside the mean over all frequencies.
SMALLEST_POWER = 1e-5


@torch.no_grad()
def calibrate_latents(
    inn: ConditionalINN,
    batches: Batches,
    *,
    training_data: str | Mapping[str, Any] = "unprotected",
    progress: bool = False,
) -> None:
    r"""Give what a network draws as much variation as images have from which it has not learnt.

    A part that has learnt its images too well is too sure of others: their latents vary more than those of the prior,
    and what is drawn from the prior varies less than images do. From the coarse image on, every level takes a smooth
    context for that of a smooth image and adds to it. So the latents of every part are divided by the root of their
    mean square on held-out images: one number a part, 1 where nothing was overlearnt; that of the coarse image is from
    its subspace. It stays between 1/2 and 2, so that a single odd image does not make all draws odd.

    Args:
        inn: a network whose levels see the whole coarser image, changed in place.
        batches: as for :func:`~monai_cadp.networks.fit_moments`, of images that nothing was learnt from.
        training_data: as for :func:`~monai_cadp.networks.fit_moments`.
        progress: show a progress bar, if it takes more than a moment.

    Raises:
        ValueError: if the network has no such numbers, or the data are empty or not finite.

    References:
        Guo, Pleiss, Sun, Weinberger: On calibration of modern neural networks, ICML 2017 (one number, from held-out
        data, for what is too sure).

    Example:
        >>> inn = ConditionalINN((8, 8), context_width=16, num_couplings=0)
        >>> calibrate_latents(inn, lambda: [(1.5 * torch.randn(500, 1, 8, 8), None)])
        >>> round(float(inn.decode(torch.randn(500, 64)).detach().std()), 1)
        1.5
    """
    if not inn.knows_noise:
        raise ValueError("The network has no U-Net that sees the coarser image; its latents are not calibrated.")
    count, squares = 0, torch.zeros(inn.num_flows, dtype=torch.float64)
    was_training = inn.training
    inn.eval()
    with progress_bar(progress, "calibration") as bar:
        for x, condition in on_device_of(inn, batches)():
            parts = inn.part_latents(inn.encode(x, condition)[0])
            # Outside of the subspace there is what it could not hold, and many more numbers than inside.
            parts[0] = parts[0] @ inn.whitening.basis
            squares += torch.stack([part.cpu().double().square().mean(1).sum() for part in parts])
            count += len(x)
            bar.update()
    inn.train(was_training)
    if count == 0:
        raise ValueError("No data came to calibrate the latents of the network; expected at least one batch.")
    _check_finite(squares)
    with inn.learning(training_data, "calibration"):
        inn.latent_deviations.mul_((squares / count).sqrt().to(inn.latent_deviations))
        inn.latent_deviations.clamp_(1 / LARGEST_DEVIATION, LARGEST_DEVIATION)


@torch.no_grad()
def calibrate_spectrum(
    inn: ConditionalINN,
    batches: Batches,
    *,
    training_data: str | Mapping[str, Any] = "unprotected",
    num_images: int = 512,
    seed: int = 0,
    progress: bool = False,
) -> None:
    r"""Give what a network draws the grain, the sharpness and the range of images.

    Levels draw their details a little too large or too small, and grain that is alike in all directions, where
    scanners and resampling leave a mark of their own. So draws pass a fixed linear filter: frequency f of the cosine
    transform of a channel is multiplied by

    .. math:: g_f = \exp \tfrac{1}{2} \left( E \log P_f(\text{image}) - E \log P_f(\text{draw}) \right),

    with P the power. The mean is that of logarithms, for a few images with much grain must not decide for all. Gains
    are smoothed over neighbouring frequencies and stay between 1/2 and 2. The frequencies of the coarse image, whose
    moments are exact and which holds most of the content, stay as they are; where a subspace holds K of its N numbers,
    the lowest K are those. Before and after the filter draws are clipped to the range of the images, channel by
    channel.

    Encoding, decoding and the likelihood do not know of it: images pass it where they are drawn (``inn.draw``).

    Args:
        inn: a network whose levels see the whole coarser image, changed in place.
        batches: as for :func:`~monai_cadp.networks.fit_moments`, of images as they are, without noise.
        training_data: as for :func:`~monai_cadp.networks.fit_moments`.
        num_images: how many of them are looked at, at most; as many are drawn, of the same conditions.
        seed: of the draws.
        progress: show a progress bar, if it takes more than a moment.

    Raises:
        ValueError: if the network has no such filter, or the data are empty or not finite.

    Example:
        >>> inn = ConditionalINN((16, 16), context_width=16, num_couplings=0)
        >>> smooth = torch.nn.functional.avg_pool2d(torch.randn(200, 1, 18, 18), 3, stride=1)
        >>> from monai_cadp.networks import fit_moments
        >>> fit_moments(inn, lambda: [(smooth, None)])
        >>> calibrate_spectrum(inn, lambda: [(smooth, None)])
        >>> drawn = inn.draw(torch.randn(200, 256))
        >>> 0.6 < float(drawn.diff().square().mean() / smooth.diff().square().mean()) < 1.2
        True
    """
    if not inn.knows_noise:
        raise ValueError("The network has no U-Net that sees the coarser image; what it draws is not filtered.")
    lowest, highest = _range(inn, batches)
    power, power_of_draws = (torch.zeros_like(inn.spectrum_gains, dtype=torch.float64) for _ in range(2))
    smallest, count = None, 0
    for x, drawn in _beside_draws(inn, batches, num_images, seed, progress):
        coefficients = cosine_transform(x)
        if smallest is None:
            smallest = SMALLEST_POWER * coefficients.flatten(2)[..., 1:].square().mean()
        power += (coefficients.square() + smallest).log().double().sum(0)
        within = drawn.clamp(as_channels(lowest, x), as_channels(highest, x))
        power_of_draws += (cosine_transform(within).square() + smallest).log().double().sum(0)
        count += len(x)
    log_gains = (power - power_of_draws) / (2 * count)
    known = torch.zeros_like(log_gains, dtype=torch.bool)
    known[(slice(None), *(slice(size) for size in _known_frequencies(inn)))] = True
    log_gains[known] = 0.0
    log_gains = smoothed_over_frequencies(log_gains, SMOOTHING).clamp(-math.log(LARGEST_GAIN), math.log(LARGEST_GAIN))
    log_gains[known] = 0.0
    with inn.learning(training_data, "calibration"):
        inn.spectrum_gains.copy_(log_gains.exp())
        inn.lowest_value.copy_(lowest)
        inn.highest_value.copy_(highest)


@torch.no_grad()
def calibrate_edges(
    inn: ConditionalINN,
    batches: Batches,
    *,
    training_data: str | Mapping[str, Any] = "unprotected",
    num_images: int = 512,
    seed: int = 0,
    progress: bool = False,
) -> None:
    r"""Give the edges of what a network draws the strength that those of images have.

    What levels draw has too much along diagonals and too little of an organ's own edges, such as ribs. So draws pass a
    :class:`LocalFilter`: with :math:`s_b` the strength of a band of one scale and direction in a cell, every gain is
    multiplied by

    .. math:: \left( \frac{E\, s_b(\text{image})}{E\, s_b(\text{draw})} \right)^2

    three times over, for a gain of one band changes its neighbours a little. Gains stay between 2/5 and 5/2. It follows
    :func:`calibrate_spectrum`, and encoding, decoding and the likelihood do not know of it.

    Args:
        inn: a network of images (H, W) that :func:`calibrate_spectrum` has given a range, changed in place.
        batches: as for :func:`calibrate_spectrum`.
        training_data: as for :func:`~monai_cadp.networks.fit_moments`.
        num_images: how many of them are looked at, at most; as many are drawn, of the same conditions, and kept.
        seed: of the draws.
        progress: show a progress bar, if it takes more than a moment.

    Raises:
        ValueError: if the network has no range or is one of volumes, or the data are empty or not finite.

    References:
        Portilla, Simoncelli: A parametric texture model based on joint statistics of complex wavelet coefficients, IJCV
        2000.

    Example:
        >>> inn = ConditionalINN((32, 32), context_width=16, num_couplings=0, num_detail_couplings=1)
        >>> stripes = torch.nn.functional.avg_pool2d(torch.randn(64, 1, 40, 32), (9, 1), stride=1)
        >>> from monai_cadp.networks import fit_moments
        >>> fit_moments(inn, lambda: [(stripes, None)])
        >>> calibrate_spectrum(inn, lambda: [(stripes, None)])
        >>> calibrate_edges(inn, lambda: [(stripes, None)])
        >>> bool((inn.local_filter.gains != 1).any())
        True
    """
    _check_range(inn)
    local_filter = inn.local_filter
    if not isinstance(local_filter, LocalFilter):
        raise ValueError("The network is one of volumes; only images are filtered by the direction of their edges.")
    wanted, draws, count = torch.zeros_like(local_filter.gains), [], 0
    for x, drawn in _beside_draws(inn, batches, num_images, seed, progress):
        wanted += local_filter.strengths(x).sum(0)
        draws.append(inn.filtered(drawn))
        count += len(x)
    if count == 0:
        raise ValueError("No data came to calibrate the network; expected at least one batch.")
    with inn.learning(training_data, "calibration"), progress_bar(progress, "calibration") as bar:
        local_filter.gains.fill_(1.0)
        for _ in range(EDGE_STEPS):
            found = torch.zeros_like(wanted)
            for drawn in draws:
                found += local_filter.strengths(inn.within_range(local_filter(drawn))).sum(0)
                bar.update()
            local_filter.strengthen(wanted / count, found / count)


@torch.no_grad()
def calibrate_format(
    inn: ConditionalINN,
    batches: Batches,
    *,
    training_data: str | Mapping[str, Any] = "unprotected",
    num_images: int = 512,
    progress: bool = False,
) -> None:
    r"""Give what a network draws the scale, the grey values and the sizes of masks that all images have.

    They come from the way images were made ready, and :class:`ImageFormat` finds them: without whole grey values, to
    take one, the first histogram tells every draw from every image. It goes before :func:`calibrate_histogram`, which
    looks at draws that are on the scale already.

    Args:
        inn: a network whose levels see the whole coarser image, changed in place.
        batches: as for :func:`calibrate_spectrum`.
        training_data: as for :func:`~monai_cadp.networks.fit_moments`.
        num_images: how many of them are looked at, at most.
        progress: show a progress bar, if it takes more than a moment.

    Raises:
        ValueError: if the network has no such format, or the data are empty or not finite.

    Example:
        >>> inn = ConditionalINN((8, 8), context_width=16, num_couplings=0)
        >>> calibrate_format(inn, lambda: [(torch.randint(256, (200, 1, 8, 8)) / 255, None)])
        >>> round(1 / float(inn.image_format.steps))
        255
    """
    if not inn.knows_noise:
        raise ValueError("The network has no U-Net that sees the coarser image; what it draws has no format.")

    images = (x for x, _ in _first_images(inn, batches, num_images, progress))
    with inn.learning(training_data, "calibration"):
        inn.image_format.fit(images, inn.num_masks)


@torch.no_grad()
def calibrate_histogram(
    inn: ConditionalINN,
    batches: Batches,
    *,
    training_data: str | Mapping[str, Any] = "unprotected",
    num_images: int = 512,
    seed: int = 0,
    progress: bool = False,
) -> None:
    r"""Give what a network draws the histogram of images, channel by channel.

    With F the distribution of the values of all draws and G that of all images, a value v that was drawn becomes

    .. math:: G^{-1}(F(v)),

    one rising curve for all images, of lines between 65 values. Draws keep what makes one brighter than another. Of a
    mask's channel as many voxels lie on either side of its edge as of masks, and organs are as large as they are.

    It follows :func:`calibrate_spectrum`, whose range it stays in. Encoding, decoding and the likelihood do not know of
    it.

    Args:
        inn: a network that :func:`calibrate_spectrum` has given a range, changed in place.
        batches: as for :func:`calibrate_spectrum`.
        training_data: as for :func:`~monai_cadp.networks.fit_moments`.
        num_images: how many of them are looked at, at most; as many are drawn, of the same conditions.
        seed: of the draws.
        progress: show a progress bar, if it takes more than a moment.

    Raises:
        ValueError: if the network has no range, or the data are empty or not finite.

    References:
        Gonzalez, Woods: Digital image processing, chapter 3 (histogram matching).

    Example:
        >>> inn = ConditionalINN((8, 8), context_width=16, num_couplings=0)
        >>> images = torch.rand(200, 1, 8, 8) ** 3
        >>> from monai_cadp.networks import fit_moments
        >>> fit_moments(inn, lambda: [(images, None)])
        >>> calibrate_spectrum(inn, lambda: [(images, None)])
        >>> calibrate_histogram(inn, lambda: [(images, None)])
        >>> drawn = inn.draw(torch.randn(200, 64))
        >>> abs(float(drawn.median() - images.median())) < 0.02
        True
    """
    _check_range(inn)
    of_images, of_draws = (torch.zeros(inn.in_channels, NUM_BINS, dtype=torch.float64) for _ in range(2))
    for x, drawn in _beside_draws(inn, batches, num_images, seed, progress):
        of_images += _histogram(inn, x)
        of_draws += _histogram(inn, inn.unmatched(drawn))
    if not bool(of_images.any()):
        raise ValueError("No data came to calibrate the network; expected at least one batch.")
    curves = [_matching(*(one / one.sum() for one in both)) for both in zip(of_draws, of_images, strict=True)]
    lowest, extent = inn.lowest_value[:, None], (inn.highest_value - inn.lowest_value)[:, None]
    with inn.learning(training_data, "calibration"):
        inn.matched_values.copy_(lowest + extent * torch.stack(curves).to(inn.matched_values))


def _check_range(inn: ConditionalINN) -> None:
    if not inn.knows_noise or bool((inn.highest_value >= LARGEST_VALUE).any()):
        raise ValueError("The network knows no range of images; calibrate its spectrum before anything else.")


def _check_finite(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise ValueError("The data hold NaN or infinity; expected finite pixels to calibrate the network.")


def _first_images(
    inn: ConditionalINN, batches: Batches, num_images: int, progress: bool
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield images and their conditions, so many of them at most."""
    count = 0
    with progress_bar(progress, "calibration") as bar:
        for x, condition in on_device_of(inn, batches)():
            x = x[: num_images - count]
            if len(x) == 0:
                break
            _check_finite(x)
            yield x, None if condition is None else condition[: len(x)]
            count += len(x)
            bar.update()


def _beside_draws(
    inn: ConditionalINN, batches: Batches, num_images: int, seed: int, progress: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images, so many of them at most, beside as many draws of the same conditions before the filter."""
    generator, was_training = torch.Generator().manual_seed(seed), inn.training
    inn.eval()
    try:
        for x, condition in _first_images(inn, batches, num_images, progress):
            z = torch.randn(len(x), inn.num_latents, generator=generator).to(x)
            yield x, inn.unfiltered(z, condition)
    finally:
        inn.train(was_training)


def _histogram(inn: ConditionalINN, values: Tensor) -> Tensor:
    """Return how many values of every channel lie in each bin of its range (C, bins)."""
    lowest, highest = as_channels(inn.lowest_value, values), as_channels(inn.highest_value, values)
    within = (values.clamp(lowest, highest) - lowest) / (highest - lowest).clamp(min=torch.finfo(values.dtype).tiny)
    bins = (within * NUM_BINS).long().clamp(max=NUM_BINS - 1).transpose(0, 1).flatten(1).cpu()
    return torch.stack([one.bincount(minlength=NUM_BINS) for one in bins]).double()


def _matching(of_draws: Tensor, of_images: Tensor) -> Tensor:
    """Return what becomes of values at equal distances from 0 to 1, given two histograms over these."""
    edges = np.linspace(0, 1, NUM_BINS + 1)
    below, below_of_images = (np.concatenate([[0.0], one.cumsum(0).numpy()]) for one in (of_draws, of_images))
    share = np.interp(np.linspace(0, 1, NUM_MATCHED), edges, below)
    # Many values may lie at the ends, to which draws are clipped.
    share[0], share[-1] = float(of_draws[0]) / 2, 1 - float(of_draws[-1]) / 2
    # The least share above which there is something, where a stretch of values has none.
    return torch.from_numpy(np.maximum.accumulate(np.interp(share, below_of_images, edges)))


def _known_frequencies(inn: ConditionalINN) -> list[int]:
    """Return along every axis how many frequencies there are of which the coarse image has the moments."""
    sizes = inn.coarse_shape[1:]
    share = (inn.whitening.rank / inn.whitening.size) ** (1 / len(sizes))
    return [max(int(size * share), 1) for size in sizes]


def _range(inn: ConditionalINN, batches: Batches) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value (C,) of every channel."""
    lowest, highest = torch.full_like(inn.lowest_value, torch.inf), torch.full_like(inn.highest_value, -torch.inf)
    for x, _ in on_device_of(inn, batches)():
        values = x.transpose(0, 1).flatten(1)
        _check_finite(values)
        lowest, highest = lowest.minimum(values.amin(1)), highest.maximum(values.amax(1))
    if not bool(lowest.isfinite().all()):
        raise ValueError("No data came to calibrate the network; expected at least one batch.")
    return lowest, highest
