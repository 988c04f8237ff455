# SPDX-License-Identifier: Apache-2.0
"""Line drawings for reports."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

__all__ = ["curves"]


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
) -> str:
    """Draw lines over a common axis.

    Args:
        x: positions.
        lines: values at these positions, by name.
        x_label: what is to the right.
        y_label: what is up.
        levels: values that hold everywhere, by name, drawn dashed.

    Returns:
        An SVG drawing.
    """
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, values in lines.items():
        axes.plot(x, values, marker="o" if len(x) < 20 else None, label=name)
    for number, (name, value) in enumerate((levels or {}).items()):
        axes.axhline(value, linestyle="--", color=f"C{len(lines) + number}", label=name)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
