# SPDX-License-Identifier: Apache-2.0
"""Releases that a ledger pays for and keeps: reserve, draw, record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from monai_cadp.privacy import ItemId, PrivacyGuarantee, PrivacyLedger
from monai_cadp.privacy.ledger import ReleaseRequest
from monai_cadp.release.privatizer import Privatizer
from monai_cadp.release.slice_wise import SliceWiseReleaser

__all__ = ["recorded_guarantee", "recorded_release"]

SHOWN_BY_PIXELS = "which images of a subject are identical"


def recorded_guarantee(privatizer: Privatizer | SliceWiseReleaser, by_item: bool) -> PrivacyGuarantee:
    """Return what a recorded release promises; where images are known by their pixels, it lists what that shows."""
    return _listed(privatizer.guarantee, by_item)


def _listed(guarantee: PrivacyGuarantee, by_item: bool) -> PrivacyGuarantee:
    return guarantee if by_item else replace(guarantee, public=(*guarantee.public, SHOWN_BY_PIXELS))


def recorded_release(
    privatizer: Privatizer | SliceWiseReleaser,
    ledger: PrivacyLedger,
    x: Tensor,
    condition: Tensor | None,
    subjects: Sequence[str],
    items: Sequence[str | int] | None = None,
    batch_size: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    r"""Release images whose budget a ledger allows; an image that was released before is met again, not drawn again.

    A release is known by its subject, its item, its public condition, and all that defines its making: the mechanism,
    the content and the network. All of it goes into one code under the ledger's secret. Two items of one subject never
    share coins.

    An item is a name or a number of the image that says nothing about its pixels. Then the release is drawn once, from
    the pixels that came first, and the mechanism's guarantee holds as it stands. Without items an image is known by its
    pixels, and whoever sees the releases sees which images of a subject are identical: for a subject with the images
    (x, x) both releases are the same, for (x, y) they are not, and no mechanism hides that. The guarantee then holds
    for any two sets of images that agree in which of them are identical, and lists this as a public fact
    (:func:`recorded_guarantee`).

    Args:
        privatizer: the privatizer.
        ledger: pays for the releases of its subjects, and keeps them.
        x: originals (B, C, \*spatial), float.
        condition: class indices (B,), float vectors (B, K), or None.
        subjects: whose image each is (B,), texts; see :class:`~monai_cadp.privacy.SubjectId`.
        items: which of the subject's images each is (B,), see :class:`~monai_cadp.privacy.ItemId`; None to know images
            by their pixels.
        batch_size: images encoded at once; None for all. The ledger sees them all at once, which takes less of its
            time.

    Returns:
        Releases (B, C, \*spatial) and conditions, as :meth:`Privatizer.release` returns them; the same ones whenever
        and wherever these images are released again with this ledger.

    Raises:
        ValueError: if a shape, a class, a subject or an item does not fit; nothing is spent then.
        TypeError: if a dtype does not.
        BudgetExceededError: if a subject would be over its cap; nothing is released then, and nothing spent.
        LedgerError: if the ledger cannot be used.
    """
    x, condition = privatizer.inputs(x, condition)
    requests = _requests(privatizer, ledger, x, condition, subjects, items)
    kept = ledger.reserve(requests)
    # The first image of every key that has no release yet: within a batch, too, an image is drawn once.
    missing = {request.key: i for i, request in reversed(list(enumerate(requests))) if request.key not in kept}
    drawn: dict[str, bytes] = {}
    for keys in _parts(list(missing), batch_size or len(x)):
        part = torch.tensor([missing[key] for key in keys], device=x.device)
        released, used = privatizer.release(x[part], None if condition is None else condition[part])
        drawn |= zip(keys, _rows(released, used), strict=True)
    kept |= ledger.record(drawn)
    stored = [kept[request.key] for request in requests]
    size = 4 * x[0].numel()
    released = _tensor([content[:size] for content in stored], torch.float32, x)
    if condition is None:
        return released, None
    return released, _tensor([content[size:] for content in stored], condition.dtype, condition)


def _requests(
    privatizer: Privatizer | SliceWiseReleaser,
    ledger: PrivacyLedger,
    x: Tensor,
    condition: Tensor | None,
    subjects: Sequence[str],
    items: Sequence[str | int] | None,
) -> list[ReleaseRequest]:
    for what, given in (("subjects", subjects), ("items", items)):
        if given is not None and len(given) != len(x):
            raise ValueError(f"There are {len(given)} {what} for {len(x)} images; expected one for each.")
    codes = [ledger.subject(subject) for subject in subjects]
    names = [_bytes(image) for image in x] if items is None else [b"item " + bytes(ItemId(item)) for item in items]
    # A private condition must not decide which release is met.
    shown = condition
    if privatizer.label_mechanism is not None:
        shown = None if condition is None else privatizer.label_mechanism.public_part(condition)
    conditions = [b""] * len(x) if shown is None else [_bytes(value) for value in shown]
    guarantee, identity = privatizer.description
    guarantee = _listed(guarantee, by_item=items is not None)
    return [
        ReleaseRequest(code, ledger.release_key([code.encode(), identity, name, value]), guarantee)
        for code, name, value in zip(codes, names, conditions, strict=True)
    ]


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
