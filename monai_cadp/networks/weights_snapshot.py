# SPDX-License-Identifier: Apache-2.0
"""An exact copy of a module's tensors, by which any later change of them is seen."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WeightsSnapshot", "same_bytes"]


def _memcmp() -> Any:
    """Return the C library's comparison of memory, or None where there is no such library under a known name."""
    try:
        compare = ctypes.CDLL(None).memcmp
    except (OSError, TypeError, AttributeError):
        return None
    compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return compare


MEMCMP = _memcmp()


class WeightsSnapshot:
    """A copy of all parameters and buffers of a module.

    A tensor's version does not count what is written through ``tensor.data``, through NumPy or through a view made
    under ``torch.inference_mode``, and no checksum that is fast enough for every release is safe from a change that was
    made to keep it. So the bytes themselves are compared, which takes about as long as reading them twice: nothing
    slips through, not even another NaN or the sign of a zero. It costs the memory of the weights once more.

    Args:
        module: whose tensors are copied, those that a checkpoint leaves out too.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> snapshot = WeightsSnapshot(layer)
        >>> snapshot.matches(layer)
        True
        >>> _ = layer.weight.data.add_(1.0)
        >>> snapshot.matches(layer)
        False
    """

    def __init__(self, module: nn.Module) -> None:
        self.tensors = [tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in _tensors(module)]
        self._properties = [(tensor.shape, tensor.dtype, tensor.device) for tensor in self.tensors]

    def matches(self, module: nn.Module) -> bool:
        """Whether the module has the same tensors, to the bit."""
        tensors = _tensors(module)
        if len(tensors) != len(self.tensors):
            return False
        for tensor, copy, properties in zip(tensors, self.tensors, self._properties, strict=True):
            if (tensor.shape, tensor.dtype, tensor.device) != properties or not same_bytes(tensor, copy):
                return False
        return True

    def matches_converted(self, module: nn.Module) -> bool:
        """Whether the module has the same tensors but for their type and place."""
        tensors = _tensors(module)
        return len(tensors) == len(self.tensors) and all(
            tensor.shape == copy.shape
            and tensor.device.type != "meta"
            and same_bytes(tensor, copy.to(tensor.device, tensor.dtype))
            for tensor, copy in zip(tensors, self.tensors, strict=True)
        )


def same_bytes(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape, type and device hold the same bytes."""
    if MEMCMP is not None and a.device.type == "cpu" and a.is_contiguous() and b.is_contiguous():
        return not MEMCMP(a.data_ptr(), b.data_ptr(), a.nbytes)
    if a.device.type == "meta":
        return False
    pair = (tensor.detach().contiguous().flatten().view(torch.uint8) for tensor in (a, b))
    return torch.equal(*pair)


def _tensors(module: nn.Module) -> list[Tensor]:
    """Return all tensors of a module in a fixed order; several times faster than ``parameters()``, with buffers."""
    found: list[Tensor] = []
    stack = [module]
    while stack:
        parts = stack.pop().__dict__
        found.extend(tensor for tensor in parts["_parameters"].values() if tensor is not None)
        found.extend(tensor for tensor in parts["_buffers"].values() if tensor is not None)
        stack.extend(child for child in parts["_modules"].values() if child is not None)
    return found
