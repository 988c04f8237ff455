# SPDX-License-Identifier: Apache-2.0
"""A network for slices releases a whole volume, and its budget is that of the volume."""

from __future__ import annotations

import hashlib

from torch import Tensor, nn

from monai_cadp.privacy import PrivacyGuarantee, compose
from monai_cadp.release.privatizer import Privatizer

__all__ = ["SliceWiseReleaser"]


class SliceWiseReleaser(nn.Module):
    r"""Release volumes slice by slice; it stands wherever a privatizer stands.

    Proof. A volume is the list of its n slices. Each is released with coins of its own, as a function of that slice
    alone, so the volume's release is n releases about it, and :func:`~monai_cadp.privacy.compose` says what they cost
    together: n times the epsilon of a slice, for pure promises. Slices share the condition, which is public.

    A volume's slices are very much alike, and every one of them spends: a network for volumes keeps far more at the
    same epsilon. Neighbouring slices are redrawn independently and do not continue each other.

    Args:
        privatizer: releases slices (C, H, W).
        num_slices: n, the number of slices of every volume.
        axis: along which a volume (X, Y, Z) is cut: 0, 1 or 2.
        delta: of the whole volume, for mechanisms that compose with one; None adds the parts' own.

    Raises:
        TypeError: if the privatizer is none.
        ValueError: if it is not for slices, randomizes labels (every slice would spend the label again), or a number is
            out of range.

    Example:
        >>> import torch
        >>> from monai_cadp.networks import ConditionalINN, ContentBasis
        >>> from monai_cadp.privacy import SubsetSelection
        >>> inn = ConditionalINN(spatial_shape=(8, 8))
        >>> slices = Privatizer(inn, SubsetSelection(0.5, num_candidates=64), ContentBasis.leading(inn, 4))
        >>> volumes = SliceWiseReleaser(slices, num_slices=6)
        >>> volumes(torch.rand(2, 1, 8, 8, 6)).shape, volumes.guarantee.epsilon, volumes.guarantee.unit
        (torch.Size([2, 1, 8, 8, 6]), 3.0, 'volume')
    """

    label_mechanism = None

    def __init__(self, privatizer: Privatizer, num_slices: int, axis: int = 2, delta: float | None = None) -> None:
        super().__init__()
        if not isinstance(privatizer, Privatizer):
            raise TypeError(f"privatizer is a {type(privatizer).__name__}; expected a Privatizer.")
        if len(privatizer.inn.spatial_shape) != 2 or privatizer.label_mechanism is not None:
            raise ValueError(
                "The privatizer is not for images in two dimensions with public labels; expected such a one."
            )
        if num_slices < 1 or axis not in (0, 1, 2):
            raise ValueError(f"num_slices is {num_slices} and axis {axis}; expected a positive number, and 0, 1 or 2.")
        self.privatizer, self.num_slices, self.axis, self.delta = privatizer, num_slices, axis, delta

    @property
    def guarantee(self) -> PrivacyGuarantee:
        """What one call promises for each volume."""
        return self.description[0]

    @property
    def description(self) -> tuple[PrivacyGuarantee, bytes]:
        """Guarantee and identity, of one state of the network."""
        guarantee, identity = self.privatizer.description
        defining = identity + f" {self.num_slices} slices along {self.axis}".encode()
        whole = compose([guarantee] * self.num_slices, self.delta, unit="volume")
        return whole, hashlib.sha256(defining).digest()

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        r"""Release volumes; every call spends the budget of every volume in it.

        Args:
            x: originals (B, C, X, Y, Z), float.
            condition: class indices (B,), float vectors (B, condition_size), or None.

        Returns:
            Releases (B, C, X, Y, Z), float32.

        Raises:
            ValueError: if a shape or a class does not fit; nothing is spent then.
            TypeError: if a dtype does not.
        """
        return self.release(x, condition)[0]

    def release(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Release volumes, and return the conditions that they were made for; as in a call."""
        return self.draw(*self.inputs(x, condition))

    def draw(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Release what :meth:`inputs` has returned; as :meth:`release`."""
        slices = None if condition is None else condition.repeat_interleave(self.num_slices, dim=0)
        released, _ = self.privatizer.draw(self._cut(x), slices)
        released = released.reshape(x.shape[0], self.num_slices, *released.shape[1:])
        return released.movedim(1, 2 + self.axis), condition

    def inputs(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return volumes and conditions as the release sees them: checked, and finite."""
        if x.ndim != 5 or x.shape[2 + self.axis] != self.num_slices:
            raise ValueError(
                f"The volumes have shape {tuple(x.shape)}; expected (B, C, X, Y, Z) with {self.num_slices} slices "
                f"along axis {self.axis}."
            )
        slices = None if condition is None else condition.repeat_interleave(self.num_slices, dim=0)
        checked, conditions = self.privatizer.inputs(self._cut(x), slices)
        checked = checked.reshape(x.shape[0], self.num_slices, *checked.shape[1:]).movedim(1, 2 + self.axis)
        return checked, None if conditions is None else conditions[:: self.num_slices]

    def _cut(self, x: Tensor) -> Tensor:
        return x.movedim(2 + self.axis, 1).flatten(0, 1)
