# SPDX-License-Identifier: Apache-2.0
"""What turns originals into releases, whatever it is: one interface, and its inputs checked in one place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from monai_cadp.networks import ConditionSpace
from monai_cadp.networks.condition import check_samples
from monai_cadp.privacy import PrivacyGuarantee

if TYPE_CHECKING:
    from monai_cadp.release.privatizer import Privatizer

__all__ = ["BaseReleaser", "Releaser", "as_releaser"]

MEMBERS = ("release", "guarantee", "condition_space", "image_shape", "config")


class Releaser(Protocol):
    """Anything that makes a release of an image: what transforms, folders, audits and studies ask for.

    Every member is about single images: what is released of one is a function of it, of its condition and of fresh
    randomness, whatever else is in the batch.
    """

    @property
    def guarantee(self) -> PrivacyGuarantee:
        """What one release promises."""

    @property
    def condition_space(self) -> ConditionSpace:
        """Which conditions come with images."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        r"""(C, \*spatial) of an image, and of its release."""

    def release(self, images: Tensor, conditions: Tensor | None = None) -> Tensor:
        r"""Release images (B, C, \*spatial) with their conditions (B, ...), or None; every image spends its budget."""

    def config(self) -> dict[str, Any]:
        """Return plain data that tell this releaser from any other: mechanism, network, content, settings."""


class BaseReleaser:
    r"""What releasers share; a subclass has ``guarantee``, ``condition_space``, ``image_shape``, ``config``, and one of
    ``draw`` and ``release``.

    Inputs are checked once, by :meth:`inputs`, before anything is drawn or spent; a releaser that wraps another one
    hands checked inputs to its :meth:`draw`.
    """

    @property
    def guarantee(self) -> PrivacyGuarantee:
        """What one release promises."""
        raise NotImplementedError

    @property
    def condition_space(self) -> ConditionSpace:
        """Which conditions come with images."""
        raise NotImplementedError

    @property
    def image_shape(self) -> tuple[int, ...]:
        r"""(C, \*spatial) of an image, and of its release."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Return plain data that tell this releaser from any other."""
        raise NotImplementedError

    @property
    def description(self) -> tuple[PrivacyGuarantee, bytes]:
        """Guarantee and identity, of one state of the releaser."""
        return self.guarantee, hashlib.sha256(json.dumps(self.config(), sort_keys=True).encode()).digest()

    @property
    def identity(self) -> bytes:
        """The SHA-256 of all that defines a release, by which a ledger tells releases apart."""
        return self.description[1]

    @property
    def device(self) -> torch.device:
        """Where images are released: they are moved there, and their releases stay there."""
        return torch.device("cpu")

    @property
    def needs_subjects(self) -> bool:
        """Whether somebody's budget is kept, so that images come with subjects."""
        return False

    @property
    def unrecorded(self) -> BaseReleaser:
        """The same releaser without ledgers: every call draws."""
        return self

    @property
    def core(self) -> Privatizer | None:
        """The privatizer that draws in the end, which an attacker knows; None where there is no such."""
        return None

    @property
    def num_pieces(self) -> int:
        """Number of images of the core of which one image consists."""
        return 1

    def pieces(self, images: Tensor) -> Tensor:
        """Return the images (B * num_pieces, ...) of the core of which images (B, ...) consist."""
        return images

    def whole(self, pieces: Tensor) -> Tensor:
        """Return the images (B, ...) that consist of images (B * num_pieces, ...) of the core."""
        return pieces

    def prepare(self, progress: bool = True) -> BaseReleaser:
        """Make what is made once, before the first image and not at it."""
        return self

    def release(self, images: Tensor, conditions: Tensor | None = None) -> Tensor:
        r"""Release images; every call spends the budget of every image in it.

        Args:
            images: originals (B, C, \*spatial), float.
            conditions: class indices (B,), float vectors (B, condition_size), or None.

        Returns:
            Releases (B, C, \*spatial), float32.

        Raises:
            ValueError: if a shape or a class does not fit; nothing is spent then.
            TypeError: if a dtype does not.
        """
        return self.release_with_conditions(images, conditions)[0]

    def release_with_conditions(
        self,
        images: Tensor,
        conditions: Tensor | None = None,
        subjects: Sequence[str] | None = None,
        items: Sequence[str | int] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Release images and the conditions that they were made for; otherwise as :meth:`release`.

        Args:
            images: as in :meth:`release`.
            conditions: as in :meth:`release`.
            subjects: whose image each is (B,), where a ledger keeps budgets.
            items: which of the subject's images each is (B,), or None.

        Returns:
            Releases and conditions; a condition is the original one where it is public, and the randomized one
            otherwise.
        """
        return self.draw(*self.inputs(images, conditions), subjects, items)

    def draw(
        self,
        images: Tensor,
        conditions: Tensor | None,
        subjects: Sequence[str] | None = None,
        items: Sequence[str | int] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Release what :meth:`inputs` has returned; as :meth:`release_with_conditions`."""
        released = self.release(images, conditions)
        check_samples(released, self.image_shape, "releases")
        return _plain(released).detach().float(), conditions

    def check_named(self, subjects: Sequence[str] | None, items: Sequence[str | int] | None, count: int) -> None:
        """Raise ValueError if images do not come with the names that a ledger, here or further in, needs."""

    def set_keys(
        self,
        images: Tensor,
        conditions: Tensor | None,
        subjects: Sequence[str] | None,
        items: Sequence[str | int] | None,
    ) -> list[str]:
        """Return the codes by which a ledger knows releases, to note a set by; arguments as of its release.

        Raises:
            ValueError: if a ledger keeps releases further in, or not by items; where none does, nobody asks.
        """
        raise ValueError(
            "A guarantee of the whole set was asked for with a ledger that does not know its images by their items; "
            "leave out the ledger or the delta of the set."
        )

    def begin_set(self, keys: Sequence[str], guarantee: PrivacyGuarantee) -> None:
        """Note in the ledger, where one keeps releases, that these are about to be drawn as one set.

        What is released until :meth:`end_set` is reserved as part of it.
        """

    def end_set(self) -> None:
        """Go back to releases that are part of no set."""

    def inputs(self, images: Tensor, conditions: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return images and conditions as a release sees them: checked, finite, on the releaser's device, the default
        condition filled in.

        Raises:
            ValueError: if a shape or a class does not fit.
            TypeError: if a dtype does not.
        """
        images, space = _plain(images), self.condition_space
        conditions = None if conditions is None else _plain(conditions)
        if conditions is None and space.default is not None and images.ndim > 0:
            conditions = space.default.expand(images.shape[0], *space.default.shape)
        check_samples(images, self.image_shape, "images")
        space.check(conditions, images.shape[0])
        if conditions is not None:
            # Adding 0 makes -0 the 0 that it is equal to, here and below.
            conditions = conditions.to(self.device, torch.float if conditions.is_floating_point() else torch.long) + 0
        images = images.to(self.device, torch.float)
        return torch.nan_to_num(images, nan=0.0, posinf=0.0, neginf=0.0) + 0.0, conditions


class _Adapted(BaseReleaser):
    """A releaser of somebody else's that has the members of :class:`Releaser` and no others."""

    def __init__(self, releaser: Releaser) -> None:
        self.releaser = releaser

    @property
    def guarantee(self) -> PrivacyGuarantee:
        return self.releaser.guarantee

    @property
    def condition_space(self) -> ConditionSpace:
        return self.releaser.condition_space

    @property
    def image_shape(self) -> tuple[int, ...]:
        return tuple(self.releaser.image_shape)

    @property
    def device(self) -> torch.device:
        return torch.device(getattr(self.releaser, "device", "cpu"))

    def config(self) -> dict[str, Any]:
        return self.releaser.config()

    def release(self, images: Tensor, conditions: Tensor | None = None) -> Tensor:
        return self.releaser.release(images, conditions)


def as_releaser(value: Any, name: str = "privatizer") -> BaseReleaser:
    """Return a releaser with all that releasers share.

    Args:
        value: anything that has the members of :class:`Releaser`.
        name: of the argument, for errors.

    Raises:
        TypeError: if it is no releaser.

    Example:
        >>> as_releaser(torch.nn.Identity())
        Traceback (most recent call last):
        TypeError: privatizer is a Identity; expected a Releaser, such as a Privatizer.
    """
    if isinstance(value, BaseReleaser):
        return value
    if isinstance(value, type) or not all(hasattr(type(value), member) for member in MEMBERS):
        raise TypeError(f"{name} is a {type(value).__name__}; expected a Releaser, such as a Privatizer.")
    return _Adapted(value)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
