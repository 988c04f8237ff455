# SPDX-License-Identifier: Apache-2.0
"""A network for slices releases a whole volume, and its budget is that of the volume."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from monai_cadp.networks import ConditionSpace
from monai_cadp.privacy import ItemId, PrivacyGuarantee, compose
from monai_cadp.release.releaser import BaseReleaser, Releaser, as_releaser

if TYPE_CHECKING:
    from monai_cadp.release.privatizer import Privatizer

__all__ = ["SliceWiseReleaser"]


class SliceWiseReleaser(BaseReleaser, nn.Module):
    r"""Release volumes slice by slice; its budget is that of the volume.

    Proof. A volume is the list of its n slices. Each is released with random draws of its own, as a function of that
    slice alone, so the volume's release is n releases about it, and :func:`~monai_cadp.privacy.compose` says what they
    cost together: n times the epsilon of a slice, for pure promises. Slices share the condition, which is public.

    A volume's slices are very much alike, and every one of them spends: a network for volumes keeps far more at the
    same epsilon. Neighbouring slices are redrawn independently and do not continue each other.

    Args:
        releaser: releases slices (C, H, W).
        num_slices: n, the number of slices of every volume.
        axis: along which a volume (X, Y, Z) is cut: 0, 1 or 2.
        delta: of the whole volume, for mechanisms that compose with one; None adds the parts' own.

    Raises:
        TypeError: if the releaser is none.
        ValueError: if it is not for slices, randomizes labels (every slice would spend the label again), or a number is
            out of range.

    Example:
        >>> from monai_cadp.networks import ConditionalINN, ContentBasis
        >>> from monai_cadp.privacy import SubsetSelection
        >>> from monai_cadp.release import Privatizer
        >>> inn = ConditionalINN(spatial_shape=(8, 8))
        >>> slices = Privatizer(inn, SubsetSelection(0.5, num_candidates=64), ContentBasis.leading(inn, 4))
        >>> volumes = SliceWiseReleaser(slices, num_slices=6)
        >>> volumes(torch.rand(2, 1, 8, 8, 6)).shape, volumes.guarantee.epsilon, volumes.guarantee.unit
        (torch.Size([2, 1, 8, 8, 6]), 3.0, 'volume')
    """

    def __init__(self, releaser: Releaser, num_slices: int, axis: int = 2, delta: float | None = None) -> None:
        super().__init__()
        slices = as_releaser(releaser, "releaser")
        if len(slices.image_shape) != 3 or slices.condition_space.is_randomized:
            raise ValueError(
                "The releaser is not for images in two dimensions with public labels; expected such a one."
            )
        if num_slices < 1 or axis not in (0, 1, 2):
            raise ValueError(f"num_slices is {num_slices} and axis {axis}; expected a positive number, and 0, 1 or 2.")
        self.releaser, self.num_slices, self.axis, self.delta = slices, num_slices, axis, delta

    @property
    def guarantee(self) -> PrivacyGuarantee:
        """What one call promises for each volume."""
        return self.description[0]

    @property
    def description(self) -> tuple[PrivacyGuarantee, bytes]:
        """Guarantee and identity, of one state of the network."""
        guarantee, identity = self.releaser.description
        defining = identity + f" {self.num_slices} slices along {self.axis}".encode()
        whole = compose([guarantee] * self.num_slices, self.delta, unit="volume")
        return whole, hashlib.sha256(defining).digest()

    @property
    def condition_space(self) -> ConditionSpace:
        """The conditions of slices, of which every volume has one for all of its slices."""
        return self.releaser.condition_space

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, X, Y, Z) of a volume."""
        channels, *shape = self.releaser.image_shape
        shape.insert(self.axis, self.num_slices)
        return (channels, *shape)

    def config(self) -> dict[str, Any]:
        """Return how volumes are cut, and what releases their slices."""
        cut = {"num_slices": self.num_slices, "axis": self.axis, "delta": self.delta}
        return {"releaser": type(self).__name__, **cut, "slices": self.releaser.config()}

    @property
    def device(self) -> torch.device:
        """Where slices are taken."""
        return self.releaser.device

    @property
    def needs_subjects(self) -> bool:
        """Whether slices are recorded one by one."""
        return self.releaser.needs_subjects

    @property
    def unrecorded(self) -> SliceWiseReleaser:
        """The same releaser without a ledger under it."""
        if not self.needs_subjects:
            return self
        return SliceWiseReleaser(self.releaser.unrecorded, self.num_slices, self.axis, self.delta)

    @property
    def core(self) -> Privatizer | None:
        """The privatizer of slices."""
        return self.releaser.core

    @property
    def num_pieces(self) -> int:
        """Number of images of the core in a volume."""
        return self.num_slices * self.releaser.num_pieces

    def pieces(self, images: Tensor) -> Tensor:
        """Return the images of the core in volumes."""
        return self.releaser.pieces(self._cut(images))

    def whole(self, pieces: Tensor) -> Tensor:
        """Return the volumes that consist of images of the core."""
        return self._joined(self.releaser.whole(pieces))

    def prepare(self, progress: bool = True) -> SliceWiseReleaser:
        """Make what is made once, before the first volume."""
        self.releaser.prepare(progress)
        return self

    def check_named(self, subjects: Sequence[str] | None, items: Sequence[str | int] | None, count: int) -> None:
        """Raise ValueError if volumes do not come with the names that a ledger of slices needs."""
        self.releaser.check_named(subjects, items, count)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Release volumes (B, C, X, Y, Z), as :meth:`release` does."""
        return self.release(x, condition)

    def draw(
        self,
        images: Tensor,
        conditions: Tensor | None,
        subjects: Sequence[str] | None = None,
        items: Sequence[str | int] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Release volumes that ``inputs`` has returned, and the conditions that they were made for."""
        slices = None if conditions is None else conditions.repeat_interleave(self.num_slices, dim=0)
        numbers = range(self.num_slices)
        of_slices = None if subjects is None else [subject for subject in subjects for _ in numbers]
        names = None if items is None else [f"slice {n} of {ItemId(item).canonical}" for item in items for n in numbers]
        released, _ = self.releaser.draw(self._cut(images), slices, of_slices, names)
        return self._joined(released), conditions

    def _cut(self, volumes: Tensor) -> Tensor:
        return volumes.movedim(2 + self.axis, 1).flatten(0, 1)

    def _joined(self, slices: Tensor) -> Tensor:
        return slices.unflatten(0, (-1, self.num_slices)).movedim(1, 2 + self.axis)
