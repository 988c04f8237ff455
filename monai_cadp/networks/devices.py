# SPDX-License-Identifier: Apache-2.0
"""Where a network works."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

__all__ = ["move_to"]

Module = TypeVar("Module", bound=nn.Module)


def move_to(device: torch.device | str, module: Module) -> Module:
    """Move a module to a device.

    Args:
        device: as a user names it, such as "cpu" or "cuda:1".
        module: moved in place.

    Returns:
        The module.

    Raises:
        ValueError: if there is no such device, or none on this machine.

    Example:
        >>> move_to("cpu", nn.Linear(2, 2)).weight.device
        device(type='cpu')
    """
    try:
        return module.to(device)
    except (RuntimeError, AssertionError, TypeError):
        # Torch says it in many ways, some of them over several lines.
        pass
    raise ValueError(f"device is {str(device)!r}, which cannot be used here; expected cpu, cuda or the like.")
