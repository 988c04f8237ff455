# SPDX-License-Identifier: Apache-2.0
"""Four numbers of a frontal chest film, from simple public image operations."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["CHEST_FEATURES", "chest_features"]

#: Names of what ``chest_features`` measures, in the order of its columns.
CHEST_FEATURES = ("lung intensity", "lung area", "heart width", "asymmetry")
SIZE = 64
# Shares of height and width: the middle of the film, in which lungs lie, and the rows in which the heart is widest.
LUNGS = (0.15, 0.75)
SIDES = ((0.1, 0.45), (0.55, 0.9))
HEART = (0.5, 0.7)
SHARPNESS = 20.0


def chest_features(images: Tensor) -> Tensor:
    r"""Return intensity and area of the lungs, width of the heart's shadow, and how the sides differ.

    A film is made 64 x 64, and its intensities are taken between its own 5th and 95th percentile. Lungs are what is
    darker than the middle of that range inside two public boxes; the heart's shadow is what is brighter in a band of
    rows, from side to side; the asymmetry is the area on the left of the film less that on its right. The edges are
    soft, so that the numbers change steadily with the image.

    Args:
        images: (B, 1, H, W) with intensities 0 to 1, the patient upright.

    Returns:
        Features (B, 4), in the order of :data:`CHEST_FEATURES`: the first in units of intensity, the others as shares
        of where they were looked for.

    Raises:
        ValueError: if the images are no such images.

    Example:
        >>> film = torch.full((1, 1, 64, 64), 0.8)
        >>> film[:, :, 10:48, 8:28] = 0.2  # two dark lungs
        >>> film[:, :, 10:48, 36:56] = 0.2
        >>> [round(value, 1) for value in chest_features(film)[0].tolist()]
        [0.2, 0.9, 0.2, 0.0]
    """
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"The images have shape {tuple(images.shape)}; expected (B, 1, H, W).")
    x = torch.nn.functional.interpolate(images.float(), size=(SIZE, SIZE), mode="area")[:, 0]
    low, high = torch.quantile(x.flatten(1), torch.tensor([0.05, 0.95], device=x.device), dim=1)
    scaled = (x - low[:, None, None]) / (high - low).clamp(min=1e-3)[:, None, None]
    bright = torch.sigmoid(SHARPNESS * (scaled - 0.5))
    left, right = (_box(1 - bright, LUNGS, side).flatten(1) for side in SIDES)
    dark = torch.cat([left, right], dim=1)
    inside = torch.cat([_box(x, LUNGS, side).flatten(1) for side in SIDES], dim=1)
    intensity = (dark * inside).sum(1) / dark.sum(1).clamp(min=1e-3)
    heart = _box(bright, HEART, (SIDES[0][0], SIDES[1][1])).mean((1, 2))
    return torch.stack([intensity, dark.mean(1), heart, left.mean(1) - right.mean(1)], dim=1)


def _box(x: Tensor, rows: tuple[float, float], columns: tuple[float, float]) -> Tensor:
    (top, bottom), (left, right) = ((round(SIZE * share) for share in shares) for shares in (rows, columns))
    return x[:, top:bottom, left:right]
