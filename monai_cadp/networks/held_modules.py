# SPDX-License-Identifier: Apache-2.0
"""The modules that a function computes with, wherever it holds them."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

__all__ = ["held_modules"]

# Nobody's networks are in them, and much else is.
LIBRARIES = {"builtins", "monai", "numpy", "scipy", "sklearn", "torch"}
# That are looked at, for it is done at every release.
MOST_VALUES = 1000


def held_modules(function: Callable[..., Any]) -> list[nn.Module]:
    """Return the modules that a function may call: itself, its object, its arguments, closure, defaults and globals.

    What code finds by other means, such as an import within it, is not seen, nor what lies behind a thousand others.

    Args:
        function: anything that can be called.

    Returns:
        Each module once; of a module that is part of another one, the whole.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> held_modules(lambda x: layer(x)) == held_modules(layer.forward) == [layer]
        True
        >>> held_modules(len)
        []
    """
    found: list[nn.Module] = []
    # In a list, so that no number of an object is given to another one meanwhile.
    values, known = [function], {id(function)}
    for value in values:
        if isinstance(value, nn.Module):
            found.append(value)
            continue
        for part in _parts(value):
            if id(part) not in known and len(values) < MOST_VALUES:
                known.add(id(part))
                values.append(part)
    return found


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif (getattr(value, "__module__", None) or "").partition(".")[0] in LIBRARIES:
        return
    elif isinstance(value, types.FunctionType):
        yield from (cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell))
        yield from (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        yield from _named(value.__code__, value.__globals__)
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif not isinstance(value, type | types.ModuleType) and hasattr(value, "__dict__"):
        yield from vars(value).values()
        yield vars(type(value)).get("__call__")


def _named(code: types.CodeType, names: dict[str, Any]) -> Iterator[Any]:
    """Return the globals that a function names, or one that is written within it."""
    yield from (names[name] for name in code.co_names if name in names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _named(constant, names)


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        # Of a variable that has no value yet.
        return False
