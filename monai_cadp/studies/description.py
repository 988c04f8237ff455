# SPDX-License-Identifier: Apache-2.0
"""What was chosen for a study, as plain data: equal choices have equal descriptions, and others have not."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from monai_cadp.networks import InvertibleNetwork

__all__ = ["code_of", "described"]


def described(value: Any) -> Any:
    """Return plain data that tell a value from every other one that behaves differently.

    Objects are described by their class and by their attributes; those that begin with an underscore are state that
    changes while they work.

    Raises:
        TypeError: if the value is of a kind that cannot be described.

    Example:
        >>> from monai_cadp.baselines import Mosaic
        >>> described(Mosaic(4))
        ['monai_cadp.baselines.obfuscation.Mosaic', {'cell': 4, 'training': True}]
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        # Results do not depend on where they are kept.
        return None
    if isinstance(value, list | tuple | set | range):
        return [described(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return [list(value.shape), hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()]
    if isinstance(value, InvertibleNetwork):
        return [type(value).__name__, value.config]
    if isinstance(value, functools.partial):
        return [described(value.func), described(value.args), described(value.keywords)]
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if not hasattr(value, "__dict__"):
        raise TypeError(f"A {type(value).__name__} was chosen; expected something that can be described as plain data.")
    parts = {name: part for name, part in vars(value).items() if not name.startswith("_")}
    if isinstance(value, nn.Module):
        parts |= dict(value.named_children())
    return [described(type(value)), {name: described(part) for name, part in sorted(parts.items())}]


def code_of(*chosen: Any) -> str:
    """Return a code of what was chosen."""
    return hashlib.sha256(json.dumps(described(chosen), sort_keys=True).encode()).hexdigest()[:32]
