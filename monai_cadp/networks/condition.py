# SPDX-License-Identifier: Apache-2.0
"""What a network may be told about an image besides its pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["ConditionSpace", "check_samples", "plain_sizes"]


def plain_sizes(sizes: Iterable[int]) -> tuple[int, ...]:
    """Return sizes as numbers to be checked; tracing takes them as constants then, without a warning."""
    with warnings.catch_warnings():
        if torch.jit.is_tracing():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return tuple(int(size) for size in sizes)


def check_samples(tensor: Tensor, shape: tuple[int, ...], what: str) -> None:
    """Raise TypeError or ValueError in one sentence if a tensor is not a batch of samples of this shape.

    Args:
        tensor: to be (B, *shape), float, with B of at least 1.
        shape: of one sample.
        what: samples are, for errors.
    """
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"The {what} are {kind}; expected a float tensor (B, {', '.join(map(str, shape))}).")
    found = plain_sizes(tensor.shape)
    if len(found) != len(shape) + 1 or found[1:] != shape or found[0] == 0:
        raise ValueError(
            f"The {what} have shape {found}; expected (B, {', '.join(map(str, shape))}) with at least one sample."
        )


class ConditionSpace:
    """The set of conditions that a network was built for: none, one of several classes, or a float vector.

    Args:
        num_classes: number of classes, for conditions that are class indices (B,).
        condition_size: length of the vector, for conditions that are float vectors (B, condition_size): several
            labels at once, an age, a body weight. Entries should be of order one; the scale is public.

    Raises:
        ValueError: if both are given, or one is not positive.

    Example:
        >>> space = ConditionSpace(num_classes=3)
        >>> space.embed(torch.tensor([2, 0]), batch_size=2)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])

    Attributes:
        default: condition () or (condition_size,) of samples that come with none; None if there is no such.
        is_randomized: whether the conditions that come out of a release are others than those that went in.
        names: of the classes, in the order of their numbers; None where they have none.
    """

    default: Tensor | None = None
    is_randomized = False
    names: Sequence[str] | None = None

    def __init__(self, num_classes: int | None = None, condition_size: int | None = None) -> None:
        if num_classes is not None and condition_size is not None:
            raise ValueError("num_classes and condition_size were both given; a network takes one kind of condition.")
        for name, value in (("num_classes", num_classes), ("condition_size", condition_size)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected a positive number, or None for no such condition.")
        self.num_classes = num_classes
        self.condition_size = condition_size

    @property
    def embedding_size(self) -> int:
        """Length of the vector that the subnetworks see; 0 without a condition."""
        return self.num_classes or self.condition_size or 0

    @property
    def num_groups(self) -> int:
        """Number of groups with moments of their own: the classes, or one."""
        return self.num_classes or 1

    def public_part(self, condition: Tensor) -> Tensor | None:
        """Return what of conditions anybody may see; all of them, for a network knows no other."""
        return condition

    def check(self, condition: Tensor | None, batch_size: int) -> None:
        """Raise ValueError or TypeError in one sentence if ``condition`` does not belong to this space."""
        if self.embedding_size == 0:
            if condition is not None:
                raise ValueError("A condition was given, but the network was built without one; pass condition=None.")
            return
        kind = (
            f"class indices (B,) in 0..{self.num_classes - 1}"
            if self.num_classes
            else f"a float tensor (B, {self.condition_size})"
        )
        if condition is None:
            raise ValueError(f"No condition was given, but the network needs one; pass {kind}.")
        if not isinstance(condition, Tensor):
            raise TypeError(f"The condition is a {type(condition).__name__}; expected {kind}.")
        (size,), found = plain_sizes([batch_size]), plain_sizes(condition.shape)
        if found != ((size,) if self.num_classes else (size, self.condition_size)):
            raise ValueError(f"The condition has shape {found}; expected {kind} with B = {size}.")
        if self.num_classes:
            if condition.is_floating_point() or condition.is_complex() or condition.dtype == torch.bool:
                raise TypeError(f"The condition has dtype {condition.dtype}; expected {kind} of an integer dtype.")
            if not torch.jit.is_tracing() and bool(((condition < 0) | (condition >= self.num_classes)).any()):
                raise ValueError(f"The condition holds an unknown class; expected {kind}.")
        elif not condition.is_floating_point():
            raise TypeError(f"The condition has dtype {condition.dtype}; expected {kind}.")
        # Networks take them in single precision.
        elif not torch.jit.is_tracing() and not bool(torch.isfinite(condition.float()).all()):
            raise ValueError(
                f"The condition holds NaN or infinity, or is too large; expected finite entries of {kind}."
            )

    def embed(self, condition: Tensor | None, batch_size: int) -> Tensor:
        """Return the condition as a float matrix (B, embedding_size)."""
        self.check(condition, batch_size)
        if condition is None:
            return torch.zeros(batch_size, 0)
        if self.num_classes:
            return torch.nn.functional.one_hot(condition.long(), self.num_classes).float()
        return condition.float()

    def groups(self, condition: Tensor | None, batch_size: int) -> Tensor:
        """Return the index (B,) of each sample's group of moments."""
        if self.num_classes and condition is not None:
            self.check(condition, batch_size)
            return condition.long()
        return torch.zeros(batch_size, dtype=torch.long)

    def sample(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Draw conditions without looking at data: uniform classes, standard-normal vectors, or None."""
        if self.num_classes:
            return torch.randint(self.num_classes, (batch_size,), generator=generator)
        if self.condition_size:
            return torch.randn(batch_size, self.condition_size, generator=generator)
        return None
