# SPDX-License-Identifier: Apache-2.0
"""Whose images a network has learnt from: part of every guarantee made with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Provenance"]


@dataclass(frozen=True)
class Provenance:
    """How the data that trained a network were protected.

    Args:
        training: "private" (people's images, without protection; assumed unless somebody says otherwise), "public"
            (images that anybody may see), or "dp-sgd" (people's images, under ``guarantee``).
        guarantee: the guarantee of the training as plain data, with "dp-sgd" only.

    Raises:
        ValueError: if the word is unknown, or the guarantee is missing or unexpected.

    Example:
        >>> Provenance("public").to_dict()
        {'training': 'public', 'guarantee': None}
    """

    training: str = "private"
    guarantee: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.training not in ("private", "public", "dp-sgd"):
            raise ValueError(f"training is {self.training!r}; expected 'private', 'public' or 'dp-sgd'.")
        if (self.guarantee is not None) != (self.training == "dp-sgd"):
            raise ValueError(f"A network trained as {self.training!r} has a guarantee exactly when it is 'dp-sgd'.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)
