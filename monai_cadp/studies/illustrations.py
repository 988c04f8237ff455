# SPDX-License-Identifier: Apache-2.0
"""Pictures of releases that a study puts on its page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from monai_cadp.data import image_grid, split_masks
from monai_cadp.extras import extra
from monai_cadp.studies.measurements import Releases

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ColumnHistograms", "Illustration", "MaskStrip", "ReleaseStrip", "Scatter", "WhichIsWhich"]

# Red, green and blue of the classes of a mask, after the background.
MASK_COLOURS = ((0.9, 0.2, 0.2), (0.2, 0.8, 0.3), (0.3, 0.5, 1.0))


class Illustration(Protocol):
    """Anything that draws what was released."""

    def __call__(self, releases: Releases) -> bytes | None:
        """Return a PNG picture that shows releases only, or None where there is nothing to draw."""


class ReleaseStrip:
    """One row of releases: the first test images of every class, or of all where images have several labels.

    Args:
        num_images: in the row.
    """

    def __init__(self, num_images: int = 10) -> None:
        self.num_images = num_images

    def __call__(self, releases: Releases) -> bytes | None:
        """Draw the row."""
        if releases.test_released is None:
            return None
        return _strip(self.drawn(releases.test_released[class_by_class(releases.test.y, self.num_images)]))

    def drawn(self, released: Tensor) -> Tensor:
        r"""Return what is shown of releases (n, C, \*spatial), as images."""
        return released


class MaskStrip(ReleaseStrip):
    """One row of releases with their masks, in colours, over the first channel.

    Args:
        num_mask_classes: with the background; at most 4.
        num_images: in the row.

    Raises:
        ValueError: if there are too many classes.
    """

    def __init__(self, num_mask_classes: int, num_images: int = 10) -> None:
        super().__init__(num_images)
        if not 2 <= num_mask_classes <= len(MASK_COLOURS) + 1:
            raise ValueError(
                f"num_mask_classes is {num_mask_classes}; expected 2 to {len(MASK_COLOURS) + 1}, with the background."
            )
        self.num_mask_classes = num_mask_classes

    def drawn(self, released: Tensor) -> Tensor:
        r"""Return red, green and blue (n, 3, \*spatial) of images that hold their masks (n, C, \*spatial)."""
        images, masks = split_masks(released, self.num_mask_classes)
        gray = images[:, :1].clamp(0, 1).expand(-1, 3, *images.shape[2:])
        colours = torch.tensor([(0.0, 0.0, 0.0), *MASK_COLOURS])[masks[:, 0]].movedim(-1, 1)
        return torch.where(masks > 0, (gray + colours) / 2, gray)


class WhichIsWhich:
    """A puzzle: releases of a few test images of one class, in another order than the originals.

    Where images have several labels, they are of those that most images have.

    Args:
        method: whose releases are to be matched.
        num_images: of the puzzle, at most 26.
        seed: of the order; public, for the page shows the solution.
    """

    def __init__(self, method: str = "content basis", num_images: int = 8, seed: int = 0) -> None:
        self.method, self.num_images, self.seed = method, num_images, seed

    def __call__(self, releases: Releases) -> bytes | None:
        """Draw the releases in their order."""
        if releases.test_released is None or releases.variant.method != self.method:
            return None
        return _strip(releases.test_released[self.chosen(releases.test.y)[self._order(releases.test.y)]])

    def chosen(self, y: Tensor) -> Tensor:
        """Return indices of the originals, in their order."""
        _, groups, counts = y.unique(dim=0, return_inverse=True, return_counts=True)
        chosen = groups[0] if y.ndim == 1 else counts.argmax()
        return torch.nonzero(groups == chosen).flatten()[: self.num_images]

    def solution(self, y: Tensor) -> str:
        """Say which release is made from which original."""
        return ", ".join(f"{place + 1} is {chr(65 + index)}" for place, index in enumerate(self._order(y).tolist()))

    def _order(self, y: Tensor) -> Tensor:
        return torch.randperm(len(self.chosen(y)), generator=torch.Generator().manual_seed(self.seed))


class ColumnHistograms:
    """The distribution of every column of a table, as released.

    Args:
        names: of the columns.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)

    def __call__(self, releases: Releases) -> bytes | None:
        """Draw the histograms."""
        if releases.train_released is None:
            return None
        rows = -(-len(self.names) // 5)
        figure = _figure(12, 1.9 * rows)
        axes = np.atleast_1d(figure.subplots(rows, 5)).ravel()
        for index, axis in enumerate(axes):
            axis.set_visible(index < len(self.names))
            axis.set_yticks([])
        for index, (name, axis) in enumerate(zip(self.names, axes, strict=False)):
            axis.hist(releases.train_released[:, index].numpy(), bins=30, color="C0")
            axis.set_title(name, fontsize=8)
            axis.tick_params(labelsize=7)
        return _png(figure)


class Scatter:
    """Rows of two columns as points, coloured by class."""

    def __call__(self, releases: Releases) -> bytes | None:
        """Draw the points."""
        if releases.train_released is None:
            return None
        figure = _figure(4.5, 3.4)
        axes = figure.subplots()
        first, second = releases.train_released.T.numpy()
        axes.scatter(first, second, c=releases.train.y.numpy(), s=4, cmap="coolwarm")
        return _png(figure)


def class_by_class(y: Tensor, count: int) -> Tensor:
    """Return indices of the first images of every class in turn, as many as were asked for."""
    if y.ndim > 1:
        return torch.arange(min(count, len(y)))
    rank = torch.zeros(len(y), dtype=torch.long)
    for label in y.unique():
        members = y == label
        rank[members] = torch.arange(int(members.sum()))
    chosen = torch.argsort(rank * (int(y.max()) + 1) + y)[:count]
    return chosen[y[chosen].argsort(stable=True)]


def _strip(images: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_grid(images, len(images))).save(buffer, format="PNG")
    return buffer.getvalue()


def _figure(width: float, height: float) -> Figure:
    with extra("studies", "Drawing a figure"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
