# SPDX-License-Identifier: Apache-2.0
"""How alike are two images, once they lie on each other? An attacker's eye that need not be trained."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["aligned_similarity"]

# Of a side: how far images are moved at most.
LARGEST_MOVE = 1 / 8
SMALLEST_NORM = 1e-6


def aligned_similarity(probes: Tensor, gallery: Tensor) -> Tensor:
    r"""Return the correlation of the directions of edges, with every pair of images moved to where it is largest.

    An edge counts by its direction, hardly by its contrast: what was blurred, or taken with another exposure, has the
    same edges. What all images of a set share is taken away. Images are moved by an eighth of each side at most.

    Args:
        probes: images (n, C, \*spatial), such as releases; of at most 32 pixels a side, 16 in volumes, it is quick.
        gallery: images (m, C, \*spatial) of the same size.

    Returns:
        Similarities (n, m), float32, from -1 to 1.

    Raises:
        ValueError: if the images differ in shape, or have a side of one pixel.

    References:
        Fitch, Kadyrov, Christmas, Kittler: Orientation correlation, BMVC 2002.

    Example:
        >>> images = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> similarity = aligned_similarity(images.roll(1, 3), images)
        >>> similarity.argmax(1).tolist()
        [0, 1, 2, 3, 4]
    """
    if probes.shape[1:] != gallery.shape[1:] or probes.ndim < 3 or min(probes.shape[2:]) < 2:
        raise ValueError(
            f"Images came in the shapes {tuple(probes.shape)} and {tuple(gallery.shape)}; expected those of one size, "
            "with two pixels a side at least."
        )
    sizes = probes.shape[2:]
    moves = [max(1, int(size * LARGEST_MOVE)) for size in sizes]
    # Padded by the longest move, no image comes in again at its other end.
    padded = [size + move for size, move in zip(sizes, moves, strict=True)]
    dims = tuple(range(2, probes.ndim))
    near = [
        torch.arange(-move, move + 1, device=probes.device) % size for move, size in zip(moves, padded, strict=True)
    ]
    one, other = (torch.fft.rfftn(_edges(images), s=padded, dim=dims) for images in (probes, gallery))
    rows = []
    for probe in one:
        correlation = torch.fft.irfftn((probe.conj() * other).sum(1), s=padded, dim=tuple(dim - 1 for dim in dims))
        for dim, places in enumerate(near, start=1):
            correlation = correlation.index_select(dim, places)
        rows.append(correlation.flatten(1).amax(1))
    return torch.stack(rows)


def _edges(images: Tensor) -> Tensor:
    """Directions of edges (n, C * dims, *spatial), in which an image has length 1."""
    gradients = torch.stack(torch.gradient(images.float(), dim=tuple(range(2, images.ndim))), dim=2)
    strength = gradients.norm(dim=2, keepdim=True)
    # Where there is no edge, noise has no direction.
    usual = strength.flatten(1).mean(1).reshape(-1, *[1] * (strength.ndim - 1)).clamp(min=SMALLEST_NORM)
    directions = (gradients / (strength + usual)).flatten(1, 2)
    directions = directions - directions.mean(0)
    length = directions.flatten(1).norm(dim=1).clamp(min=SMALLEST_NORM)
    return directions / length.reshape(-1, *[1] * (directions.ndim - 1))
