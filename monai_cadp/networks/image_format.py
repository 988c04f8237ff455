# SPDX-License-Identifier: Apache-2.0
"""What images have alike by the way they were made ready, and what draws are given so that they have it, too."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["ImageFormat", "edges_of", "mask_classes"]

# Percentiles by which intensities without a unit are scaled.
DARK, BRIGHT = 0.01, 0.99
# Of what lies between the two, the standard deviation below which a percentile is the same in all images.
SAME = 0.01
LARGEST_GAIN = 2.0
# Of the range of an image, what counts as no difference of two grey values.
NO_STEP = 1e-5
# Of a step, how far a value may lie beside a multiple; and of the images, how many must have steps.
BESIDE, MANY = 0.05, 0.9
# Of different values in an image, of which two may be left out.
MANY_LEVELS = 8


class ImageFormat(nn.Module):
    r"""Scale, grey values and sizes of masks as all images have them, found in images and given to draws.

    - *Scale.* Intensities without a unit are scaled by percentiles of each image, which have the same values in all
      images then. A draw is scaled in the same way; where percentiles of images differ, draws stay as they are.
    - *Grey values.* Scanners and files have whole numbers. Where the values of images lie at equal steps, draws are
      rounded to multiples of the median step.
    - *Masks.* A channel says how far a voxel lies within a class, and 1/2 is the edge. In images the mean of a channel
      says how large the mask is, to a few percent; a draw, whose channel rises too slowly here and too fast there,
      is moved up or down by the one number that makes its mask as large as its mean says. Of its pieces the largest
      stay, as many as images have at most: one, of a liver.

    It looks at one draw at a time. What was not found leaves draws as they are, and a new format has found nothing.

    Args:
        channels: of the images.

    Example:
        >>> image_format = ImageFormat(1)
        >>> image_format.fit([torch.randint(256, (8, 1, 32, 32)) / 255])
        >>> values = 255 * image_format.stored(torch.rand(1, 1, 32, 32))
        >>> torch.allclose(values, values.round(), atol=1e-4)
        True
    """

    percentiles: Tensor
    steps: Tensor
    mask_lines: Tensor
    most_pieces: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Dark and bright, both 0 where images differ.
        self.register_buffer("percentiles", torch.zeros(channels, 2))
        self.register_buffer("steps", torch.zeros(channels))
        # Slope and offset of the share of a mask over the mean of its channel.
        self.register_buffer("mask_lines", torch.zeros(channels, 2))
        self.register_buffer("most_pieces", torch.zeros(channels))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor], num_masks: int = 0) -> None:
        r"""Look for all three in images.

        Args:
            batches: images (B, C, \*spatial), of one batch at least.
            num_masks: how many of the last channels are masks'.

        Raises:
            ValueError: if ``num_masks`` is negative or leaves no channel to the image, or no batch came.
        """
        channels = len(self.steps)
        if not 0 <= num_masks < channels:
            raise ValueError(
                f"num_masks is {num_masks}; expected 0 or more, and fewer than the {channels} channels of the images."
            )
        first_mask = channels - num_masks
        found = [_measured(batch.detach().cpu(), first_mask) for batch in batches]
        if not found:
            raise ValueError("No data came to find the format of images; expected at least one batch.")
        marks, steps, means, shares, pieces = (torch.cat(part) for part in zip(*found, strict=True))
        for channel in range(channels):
            is_mask = channel >= first_mask
            middle, spread = marks[:, channel].median(0).values, marks[:, channel].std(0, correction=0)
            is_scaled = not is_mask and bool((spread < SAME * (middle[1] - middle[0])).all())
            self.percentiles[channel] = middle if is_scaled else 0.0
            known = steps[:, channel][steps[:, channel].isfinite()]
            has_steps = len(known) > 0 and float((known > 0).double().mean()) >= MANY
            self.steps[channel] = known[known > 0].median() if has_steps else 0.0
            self.mask_lines[channel] = _line(means[:, channel], shares[:, channel]) if is_mask else 0.0
            self.most_pieces[channel] = pieces[:, channel].amax()

    def scaled(self, x: Tensor) -> Tensor:
        r"""Return draws (B, C, \*spatial) whose percentiles are those of images."""
        dark, bright = self.percentiles.unbind(1)
        if not bool((bright > dark).any()):
            return x
        values = x.flatten(2)
        marks = _percentiles(values)
        gain = (bright - dark) / (marks[..., 1] - marks[..., 0]).clamp(min=torch.finfo(x.dtype).tiny)
        gain = gain.clamp(1 / LARGEST_GAIN, LARGEST_GAIN)
        moved = dark[:, None] + gain[..., None] * (values - marks[..., :1])
        return torch.where((bright > dark)[:, None], moved, values).reshape(x.shape)

    def sized(self, x: Tensor) -> Tensor:
        r"""Return draws (B, C, \*spatial) whose masks are as large as the means of their channels say."""
        x = x.clone() if self._masks else x
        for channel in self._masks:
            values = x[:, channel].flatten(1)
            slope, offset = self.mask_lines[channel]
            number = ((slope * values.mean(1) + offset) * values.shape[1]).round().long()
            x[:, channel] += (0.5 - edges_of(values, number)).reshape(-1, *(1 for _ in x.shape[2:]))
        return x

    def stored(self, x: Tensor) -> Tensor:
        r"""Return draws (B, C, \*spatial) with no more pieces of masks than in images, and grey values as in files."""
        x = x.clone() if self._masks else x
        for index in range(len(x)) if self._masks else ():
            for channel, (pieces, number) in zip(self._masks, _pieces(x[index, self._masks]), strict=True):
                sizes = np.bincount(pieces.ravel())[1:]
                specks = np.argsort(sizes)[: max(number - int(self.most_pieces[channel]), 0)]
                x[index, channel, torch.from_numpy(np.isin(pieces, 1 + specks)).to(x.device)] = 0
        steps = self.steps.reshape(1, -1, *(1 for _ in x.shape[2:]))
        return torch.where(steps > 0, (x / steps.where(steps > 0, 1.0)).round() * steps, x)

    @property
    def _masks(self) -> list[int]:
        """Which channels are masks' in images."""
        return self.mask_lines.any(1).nonzero().flatten().tolist()  # type: ignore[no-any-return]


def edges_of(values: Tensor, number: Tensor) -> Tensor:
    """Return above which value there are so many of each row: values (B, n) and numbers (B,) to edges (B,).

    Example:
        >>> edges_of(torch.tensor([[3.0, 1.0, 2.0, 0.0]]), torch.tensor([1]))
        tensor([2.5000])
    """
    values = values.sort(dim=1, descending=True).values
    number = number.clamp(0, values.shape[1] - 1)
    inside = values.gather(1, (number - 1).clamp(min=0)[:, None])
    return (inside + values.gather(1, number[:, None])).flatten() / 2


def mask_classes(channels: Tensor) -> Tensor:
    r"""Return the classes (B, \*spatial) of channels (B, K, \*spatial): that of the largest above 1/2, or 0.

    Example:
        >>> mask_classes(torch.tensor([[[0.2, 0.9], [0.1, 0.3]], [[0.7, 0.8], [0.2, 0.6]]])[None])
        tensor([[[2, 1],
                 [0, 2]]])
    """
    background = channels.new_full((len(channels), 1, *channels.shape[2:]), 0.5)
    return torch.cat([background, channels], dim=1).argmax(1)


def _measured(x: Tensor, first_mask: int) -> list[Tensor]:
    """Return percentiles, step, mean, share above 1/2 and number of pieces of all channels of images, in doubles."""
    values = x.flatten(2).double()
    steps = torch.tensor([[_step(row) for row in image] for image in values], dtype=torch.float64)
    pieces = torch.zeros(x.shape[:2], dtype=torch.float64)
    for image, numbers in zip(x, pieces, strict=True):
        numbers[first_mask:] = torch.tensor([number for _, number in _pieces(image[first_mask:])])
    return [_percentiles(values), steps, values.mean(2), (values > 0.5).double().mean(2), pieces]


def _percentiles(values: Tensor) -> Tensor:
    """Return the two percentiles of channels (B, C, n): (B, C, 2)."""
    marks = []
    for share in (DARK, BRIGHT):
        # Not by torch.quantile, which does not take large volumes.
        rank = share * (values.shape[2] - 1)
        below, above = (values.kthvalue(near + 1, dim=2).values for near in (math.floor(rank), math.ceil(rank)))
        marks.append(torch.lerp(below, above, rank - math.floor(rank)))
    return torch.stack(marks, dim=2)


def _step(values: Tensor) -> float:
    """Return the step in which values (n,) lie one above the other; 0 for none, NaN if all are the same."""
    levels = values.unique()
    if len(levels) > MANY_LEVELS:
        # Both ends may be what others were clipped to.
        levels = levels[1:-1]
    steps = levels.diff()
    steps = steps[steps > NO_STEP * (levels[-1] - levels[0])]
    if len(steps) == 0:
        return math.nan
    for step in (steps.median(), steps.min()):
        places = (levels - levels[0]) / step
        if bool(((places - places.round()).abs() < BESIDE).all()):
            return float(step)
    return 0.0


def _pieces(channels: Tensor) -> list[tuple[np.ndarray, int]]:
    """Return the pieces of every mask (n, *spatial), numbered from 1, and how many there are."""
    # Here, because it takes long, and most images have no masks.
    from scipy.ndimage import label

    classes = mask_classes(channels[None])[0].cpu().numpy()
    touching = np.ones((3,) * classes.ndim)
    return [label(classes == one, touching) for one in range(1, len(channels) + 1)]


def _line(means: Tensor, shares: Tensor) -> Tensor:
    """Return slope and offset of shares over means, by least squares; through 0 where all means are the same."""
    if not bool(shares.any()):
        # A class that is nowhere: no share, whatever the mean.
        return shares.new_tensor([0.0, -1.0])
    centred = means - means.mean()
    variance = centred.square().mean()
    if float(variance) > 0:
        slope = (centred * shares).mean() / variance
        return torch.stack([slope, shares.mean() - slope * means.mean()])
    return torch.stack([shares.mean() / means.mean(), means.new_zeros(())])
