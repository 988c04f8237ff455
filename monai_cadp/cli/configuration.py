# SPDX-License-Identifier: Apache-2.0
"""Configurations of bundles, as commands name and change them."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

__all__ = ["overrides_of", "read_configuration"]


def read_configuration(files: Sequence[str], overrides: Mapping[str, Any]) -> ConfigParser:
    """Return a configuration that nothing of has been evaluated.

    Args:
        files: YAML or JSON, merged in this order.
        overrides: values that take the place of theirs.

    Raises:
        ValueError: if it cannot be read.
    """
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    try:
        parser.read_config(files)
        parser.update(dict(overrides))
    except Exception:
        # What the inner errors say names paths.
        raise ValueError("The configuration could not be read; expected YAML or JSON files and keys in them.") from None
    return parser


def overrides_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Return --KEY VALUE pairs; a value that is a Python literal is read as one, as ``monai.bundle run`` does.

    Raises:
        ValueError: if they are no pairs.

    Example:
        >>> overrides_of(["--epsilon", "4.0", "--ledger=ledger.db"])
        {'epsilon': 4.0, 'ledger': 'ledger.db'}
    """
    pairs = {}
    rest = list(arguments)
    while rest:
        key, equals, value = rest.pop(0).partition("=")
        if not key.startswith("--") or not (equals or rest):
            raise ValueError(f"The argument {key!r} was not understood; expected pairs of --KEY VALUE.")
        value = value if equals else rest.pop(0)
        try:
            pairs[key[2:]] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            pairs[key[2:]] = value
    return pairs
