# SPDX-License-Identifier: Apache-2.0
"""Medical images that a hospital can share: differentially private releases by a conditional invertible network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_cadp.release import Privatizer

__version__ = "0.1.0"
__all__ = ["Privatizer"]


def __getattr__(name: str) -> Any:
    # Light: torch and FrEIA are imported with the first use, not with the package.
    if name == "Privatizer":
        from monai_cadp.release import Privatizer

        return Privatizer
    raise AttributeError(f"module 'monai_cadp' has no attribute {name!r}")
