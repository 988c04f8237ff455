# SPDX-License-Identifier: Apache-2.0
"""Releases that a ledger pays for and keeps: reserve, draw, record."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from monai_cadp.privacy import PrivacyLedger
from monai_cadp.privacy.ledger import ReleaseRequest
from monai_cadp.privatizer import Privatizer

__all__ = ["recorded_release"]


def recorded_release(
    privatizer: Privatizer,
    ledger: PrivacyLedger,
    x: Tensor,
    condition: Tensor | None,
    subjects: Sequence[str | int],
) -> tuple[Tensor, Tensor | None]:
    r"""Release images whose budget a ledger allows; an image that was released before is met again, not drawn again.

    A release is known by its subject, the pixels of its image, its condition, and all that defines its making: the
    mechanism, the content and the network. All of it goes into one code under the ledger's secret. Two images of one
    subject never share coins.

    Args:
        privatizer: the privatizer.
        ledger: pays for the releases of its subjects, and keeps them.
        x: originals (B, C, \*spatial), float.
        condition: class indices (B,), float vectors (B, K), or None.
        subjects: whose image each is (B,).

    Returns:
        Releases (B, C, \*spatial) and conditions, as :meth:`Privatizer.release` returns them; the same ones whenever
        and wherever these images are released again with this ledger.

    Raises:
        ValueError: if a shape, a class or a subject does not fit; nothing is spent then.
        TypeError: if a dtype does not.
        BudgetExceededError: if a subject would be over its cap; nothing is released then, and nothing spent.
        LedgerError: if the ledger cannot be used.
    """
    x, condition = privatizer.inputs(x, condition)
    if len(subjects) != len(x):
        raise ValueError(f"There are {len(subjects)} subjects for {len(x)} images; expected one for each.")
    codes = [ledger.subject(subject) for subject in subjects]
    guarantee, identity = privatizer.guarantee, privatizer.identity
    keys = [
        ledger.release_key(
            [code.encode(), identity, _bytes(image), *([] if condition is None else [_bytes(condition[i])])]
        )
        for i, (code, image) in enumerate(zip(codes, x, strict=True))
    ]
    kept = ledger.reserve([ReleaseRequest(code, key, guarantee) for code, key in zip(codes, keys, strict=True)])
    # The first image of every key that has no release yet: within a batch, too, an image is drawn once.
    missing = [i for i, key in enumerate(keys) if key not in kept and key not in keys[:i]]
    if missing:
        index = torch.tensor(missing, device=x.device)
        released, used = privatizer.release(x[index], None if condition is None else condition[index])
        packed = [_pack(image, None if used is None else used[i]) for i, image in enumerate(released)]
        kept |= ledger.record({keys[i]: content for i, content in zip(missing, packed, strict=True)})
    unpacked = [_unpack(kept[key]) for key in keys]
    released = torch.stack([image for image, _ in unpacked]).to(x.device)
    if condition is None:
        return released, None
    return released, torch.stack([used for _, used in unpacked if used is not None]).to(condition.device)


def _bytes(tensor: Tensor) -> bytes:
    array = tensor.detach().cpu().contiguous().numpy()
    return f"{array.dtype.str}{array.shape}".encode() + array.tobytes()


def _pack(image: Tensor, condition: Tensor | None) -> bytes:
    buffer = io.BytesIO()
    for tensor in (image,) if condition is None else (image, condition):
        np.save(buffer, tensor.cpu().numpy(), allow_pickle=False)
    return buffer.getvalue()


def _unpack(content: bytes) -> tuple[Tensor, Tensor | None]:
    buffer = io.BytesIO(content)
    image = torch.from_numpy(np.load(buffer, allow_pickle=False))
    if buffer.tell() == len(content):
        return image, None
    return image, torch.from_numpy(np.load(buffer, allow_pickle=False))
