# SPDX-License-Identifier: Apache-2.0
"""Where networks work."""

from __future__ import annotations

import torch

__all__ = ["usable_device"]


def usable_device(device: torch.device | str) -> torch.device:
    """Return a device on which tensors can be made.

    Args:
        device: as a user names it, such as "cpu" or "cuda:1".

    Raises:
        ValueError: if there is no such device, or none on this machine.

    Example:
        >>> usable_device("cpu")
        device(type='cpu')
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, ImportError):
        # Torch says it in many ways, some of them over several lines.
        pass
    raise ValueError(f"device is {str(device)!r}, which cannot be used here; expected cpu, cuda or the like.")
