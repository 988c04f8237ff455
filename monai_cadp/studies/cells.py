# SPDX-License-Identifier: Apache-2.0
"""What stands in the cells of the tables of a study's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["epsilon_cell", "figure_cell"]


def epsilon_cell(variant: Mapping[str, Any]) -> str:
    """Return the true budget of a variant, and what its authors name where that is something else.

    Example:
        >>> epsilon_cell({"epsilon": 1568.0, "nominal_epsilon": 1.0})
        '1,568 (nominal 1)'
    """
    epsilon, nominal = variant["epsilon"], variant["nominal_epsilon"]
    true = epsilon if isinstance(epsilon, str) else f"{epsilon:,.4g}"
    return true if nominal is None else f"{true} (nominal {nominal:g})"


def figure_cell(figure: str | float | Mapping[str, Any]) -> str:
    """Return a figure, with its interval where it has one; text stays as it is.

    Example:
        >>> figure_cell({"value": 0.5, "interval": [0.4, 0.6]}), figure_cell(0.25)
        ('0.500 [0.400, 0.600]', '0.250')
    """
    if isinstance(figure, str):
        return figure
    if isinstance(figure, Mapping):
        low, high = figure["interval"]
        return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"
    return f"{figure:.3f}"
