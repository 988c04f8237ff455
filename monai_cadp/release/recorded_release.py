# SPDX-License-Identifier: Apache-2.0
"""Releases that a ledger pays for and keeps: reserve, draw, record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from monai_cadp.networks import ConditionSpace
from monai_cadp.privacy import ItemId, PrivacyGuarantee, PrivacyLedger
from monai_cadp.privacy.ledger import ReleaseRequest
from monai_cadp.release.releaser import BaseReleaser, Releaser, as_releaser

if TYPE_CHECKING:
    from monai_cadp.release.privatizer import Privatizer

__all__ = ["RecordedReleaser"]

SHOWN_BY_PIXELS = "which images of a subject are identical"


class RecordedReleaser(BaseReleaser):
    r"""Release images whose budget a ledger allows; an image that was released before is returned from the ledger.

    A release is known by its subject, its item, its public condition, and all that defines its making: the mechanism,
    the content and the network. All of it goes into one code under the ledger's secret. Two items of one subject never
    share random draws.

    An item is a name or a number of the image that says nothing about its pixels. Then the release is drawn once, and
    the mechanism's guarantee holds as it stands: which releases there are depends on names alone. The ledger keeps a
    code of the image beside them, and an item that comes again with other pixels is refused: it never gets the release
    of another image. Whoever runs the release learns from a refusal that an item has two images; they hold both, and
    nothing was released. Without items an image is known by its pixels, and whoever sees the releases sees which images
    of a subject are identical: for a subject with the images (x, x) both releases are the same, for (x, y) they are
    not, and no mechanism hides that. The guarantee then holds for any two sets of images that agree in which of them
    are identical, and lists this as a public fact.

    Args:
        releaser: draws what the ledger has not yet.
        ledger: pays for the releases of its subjects, and keeps them.
        by_item: whether images come with items, see :class:`~monai_cadp.privacy.ItemId`; False to know them by their
            pixels.
        batch_size: images drawn at once; None for all. The ledger sees them all at once, which takes less of its time.

    Raises:
        TypeError: if the releaser or the ledger is none.

    Example:
        >>> import tempfile
        >>> from monai_cadp.networks import ConditionalINN, ContentBasis
        >>> from monai_cadp.privacy import Budget, SubsetSelection
        >>> from monai_cadp.release import Privatizer
        >>> inn = ConditionalINN(spatial_shape=(8, 8))
        >>> privatizer = Privatizer(inn, SubsetSelection(2.0, num_candidates=64), ContentBasis.leading(inn, 4))
        >>> ledger = PrivacyLedger.create(f"{tempfile.mkdtemp()}/ledger.db", bytes(32), Budget(epsilon=4.0))
        >>> recorded = RecordedReleaser(privatizer, ledger)
        >>> x = torch.rand(1, 1, 8, 8)
        >>> first, again = (recorded.release(x, subjects=["anna"], items=[7]) for _ in range(2))
        >>> torch.equal(first, again), ledger.spent("anna")
        (True, (2.0, 0.0))
    """

    def __init__(
        self, releaser: Releaser, ledger: PrivacyLedger, *, by_item: bool = True, batch_size: int | None = None
    ) -> None:
        if not isinstance(ledger, PrivacyLedger):
            raise TypeError(f"ledger is a {type(ledger).__name__}; expected a PrivacyLedger or None.")
        self.releaser = as_releaser(releaser, "releaser")
        self.ledger, self.by_item, self.batch_size = ledger, by_item, batch_size
        self._set_code: str | None = None

    @property
    def guarantee(self) -> PrivacyGuarantee:
        """What a recorded release promises; where images are known by their pixels, it lists what that shows."""
        return self.description[0]

    @property
    def description(self) -> tuple[PrivacyGuarantee, bytes]:
        """Guarantee, and the identity of what draws: to be recorded makes no other release."""
        guarantee, identity = self.releaser.description
        if not self.by_item and SHOWN_BY_PIXELS not in guarantee.public:
            guarantee = replace(guarantee, public=(*guarantee.public, SHOWN_BY_PIXELS))
        return guarantee, identity

    @property
    def condition_space(self) -> ConditionSpace:
        """The conditions of what draws."""
        return self.releaser.condition_space

    @property
    def image_shape(self) -> tuple[int, ...]:
        r"""(C, \*spatial) of an image."""
        return self.releaser.image_shape

    def config(self) -> dict[str, Any]:
        """Return how images are known, and what draws; nothing of the ledger, whose place is nobody's business."""
        return {"releaser": type(self).__name__, "by_item": self.by_item, "draws": self.releaser.config()}

    @property
    def device(self) -> torch.device:
        """Where images are taken."""
        return self.releaser.device

    @property
    def needs_subjects(self) -> bool:
        """Whether images come with subjects: always."""
        return True

    @property
    def unrecorded(self) -> BaseReleaser:
        """What draws."""
        return self.releaser.unrecorded

    @property
    def core(self) -> Privatizer | None:
        """The privatizer that draws in the end."""
        return self.releaser.core

    @property
    def num_pieces(self) -> int:
        """As of what draws."""
        return self.releaser.num_pieces

    def pieces(self, images: Tensor) -> Tensor:
        """As of what draws."""
        return self.releaser.pieces(images)

    def whole(self, pieces: Tensor) -> Tensor:
        """As of what draws."""
        return self.releaser.whole(pieces)

    def prepare(self, progress: bool = True) -> RecordedReleaser:
        """Make what is made once, before the first image."""
        self.releaser.prepare(progress)
        return self

    def release(
        self,
        images: Tensor,
        conditions: Tensor | None = None,
        subjects: Sequence[str] | None = None,
        items: Sequence[str | int] | None = None,
    ) -> Tensor:
        r"""Release images: the same releases whenever and wherever they are released again with this ledger.

        Args:
            images: originals (B, C, \*spatial), float.
            conditions: class indices (B,), float vectors (B, K), or None.
            subjects: whose image each is (B,), texts; see :class:`~monai_cadp.privacy.SubjectId`.
            items: which of the subject's images each is (B,), see :class:`~monai_cadp.privacy.ItemId`; None where
                images are known by their pixels.

        Returns:
            Releases (B, C, \*spatial), float32.

        Raises:
            ValueError: if a shape, a class, a subject or an item does not fit; nothing is spent then.
            TypeError: if a dtype does not.
            BudgetExceededError: if a subject would be over its cap; nothing is released then, and nothing spent.
            LedgerError: if the ledger cannot be used, or an item was given for another image before; nothing is
                released or spent then.
        """
        return self.release_with_conditions(images, conditions, subjects, items)[0]

    def draw(
        self,
        images: Tensor,
        conditions: Tensor | None,
        subjects: Sequence[str] | None = None,
        items: Sequence[str | int] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Release what ``inputs`` has returned, and the conditions that it was made for."""
        # All names before any reservation, those of ledgers further in as well.
        self.check_named(subjects, items, len(images))
        assert subjects is not None
        ledger = self.ledger
        requests = self._requests(images, conditions, subjects, items)
        kept = ledger.reserve(requests, self._set_code)
        # The first image of every key that has no release yet: within a batch, too, an image is drawn once.
        missing = {request.key: i for i, request in reversed(list(enumerate(requests))) if request.key not in kept}
        drawn: dict[str, bytes] = {}
        for keys in _parts(list(missing), self.batch_size or len(images)):
            places = [missing[key] for key in keys]
            part = torch.tensor(places, device=images.device)
            released, used = self.releaser.draw(
                images[part],
                None if conditions is None else conditions[part],
                [subjects[place] for place in places],
                None if items is None else [items[place] for place in places],
            )
            drawn |= zip(keys, _rows(released, used), strict=True)
        kept |= ledger.record(drawn)
        stored = [kept[request.key] for request in requests]
        size = 4 * images[0].numel()
        released = _tensor([content[:size] for content in stored], torch.float32, images)
        if conditions is None:
            return released, None
        return released, _tensor([content[size:] for content in stored], conditions.dtype, conditions)

    def check_named(self, subjects: Sequence[str] | None, items: Sequence[str | int] | None, count: int) -> None:
        """Raise ValueError if images do not come with the names that this ledger, or one further in, needs."""
        if subjects is None:
            raise ValueError("The images say nothing of their subjects, whose budgets the ledger keeps; give subjects.")
        if self.by_item and items is None:
            raise ValueError("The images came without items, by which the ledger knows them; give items.")
        for what, given in (("subjects", subjects), ("items", items)):
            if given is not None and len(given) != count:
                raise ValueError(f"There are {len(given)} {what} for {count} images; expected one for each.")
        self.releaser.check_named(subjects, items, count)

    def set_keys(
        self,
        images: Tensor,
        conditions: Tensor | None,
        subjects: Sequence[str] | None,
        items: Sequence[str | int] | None,
    ) -> list[str]:
        """As of any releaser."""
        if not self.by_item or self.releaser.needs_subjects:
            return super().set_keys(images, conditions, subjects, items)
        self.check_named(subjects, items, len(images))
        assert subjects is not None
        return [request.key for request in self._requests(*self.inputs(images, conditions), subjects, items)]

    def begin_set(self, keys: Sequence[str], guarantee: PrivacyGuarantee) -> None:
        """As of any releaser; see :meth:`~monai_cadp.privacy.PrivacyLedger.begin_set`."""
        self._set_code = self.ledger.begin_set(keys, guarantee)

    def end_set(self) -> None:
        """As of any releaser."""
        self._set_code = None

    def _requests(
        self,
        images: Tensor,
        conditions: Tensor | None,
        subjects: Sequence[str],
        items: Sequence[str | int] | None,
    ) -> list[ReleaseRequest]:
        codes = [self.ledger.subject(subject) for subject in subjects]
        pixels = [_bytes(image) for image in images]
        by_item = self.by_item and items is not None
        names = [b"item " + bytes(ItemId(item)) for item in items or ()] if by_item else pixels
        # A private condition must not decide which release is returned.
        shown = None if conditions is None else self.condition_space.public_part(conditions)
        values = [b""] * len(images) if shown is None else [_bytes(value) for value in shown]
        guarantee, identity = self.description
        keys = [
            self.ledger.release_key([code.encode(), identity, name, value])
            for code, name, value in zip(codes, names, values, strict=True)
        ]
        # A key that is made of the pixels covers them.
        seen = [self.ledger.image_code(key, one) if by_item else None for key, one in zip(keys, pixels, strict=True)]
        cost = guarantee.without_derived()
        return [ReleaseRequest(*parts) for parts in zip(codes, keys, repeat(cost), seen, strict=False)]


def _bytes(tensor: Tensor) -> bytes:
    array = tensor.detach().cpu().contiguous().numpy()
    return f"array {array.dtype.str}{array.shape} ".encode() + array.tobytes()


def _parts(keys: list[str], size: int) -> list[list[str]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]


def _rows(images: Tensor, condition: Tensor | None) -> list[bytes]:
    """The numbers of each image, then those of its condition, and nothing else: the network knows shapes and types."""
    parts = [tensor.cpu().contiguous().numpy() for tensor in (images, condition) if tensor is not None]
    return [b"".join(row.tobytes() for row in rows) for rows in zip(*parts, strict=True)]


def _tensor(rows: Sequence[bytes], dtype: torch.dtype, like: Tensor) -> Tensor:
    return torch.frombuffer(bytearray(b"".join(rows)), dtype=dtype).reshape(like.shape).to(like.device)
