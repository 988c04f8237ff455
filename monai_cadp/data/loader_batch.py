# SPDX-License-Identifier: Apache-2.0
"""From a batch of a MONAI loader to what a network takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["prepare_flow_batch"]


def prepare_flow_batch(
    batch: Mapping[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, Tensor | None]:
    r"""Return images (B, C, \*spatial) as float32, and their conditions where the batch has a ``label``.

    Args:
        batch: a collated dictionary with ``image``, and ``label`` if the network takes conditions.
        device: where to put both.
        non_blocking: as in :meth:`torch.Tensor.to`.

    Raises:
        KeyError: if there is no ``image``.
    """
    if "image" not in batch:
        raise KeyError("The batch has no key 'image'; give the loader dictionaries with 'image' and 'label'.")
    image = torch.as_tensor(batch["image"])
    image = image.as_tensor() if hasattr(image, "as_tensor") else image
    image = image.to(device, torch.float32, non_blocking=non_blocking)
    label = batch.get("label")
    return image, None if label is None else torch.as_tensor(label).to(device, non_blocking=non_blocking)
