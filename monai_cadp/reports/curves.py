# SPDX-License-Identifier: Apache-2.0
"""Line drawings for reports."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from monai_cadp.extras import extra

__all__ = ["Point", "curves"]

# Characters that the axis is long enough for.
LABEL_WIDTH = 40


class Point(NamedTuple):
    """One measured value.

    Args:
        x: position.
        value: what was measured there.
        low: lower end of its interval, if there is one.
        high: upper end.
    """

    x: float
    value: float
    low: float | None = None
    high: float | None = None


def curves(
    lines: Mapping[str, Sequence[Point]],
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
) -> str:
    """Draw lines over a common axis, with bars where values have intervals.

    Args:
        lines: points by the name of their line, in order.
        x_label: what is to the right.
        y_label: what is up.
        levels: values that hold everywhere, by name, drawn dashed.

    Returns:
        An SVG drawing.

    Example:
        >>> curves({"releases": [Point(1, 0.7, 0.6, 0.8), Point(8, 0.9)]}, "epsilon", "accuracy").startswith("<?xml")
        True
    """
    with extra("studies", "Drawing curves"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(lines.items()):
        x, values = [point.x for point in points], [point.value for point in points]
        axes.plot(x, values, marker="o" if len(x) < 20 else None, label=name, color=f"C{number}")
        for point in points:
            if point.low is not None and point.high is not None:
                axes.vlines(point.x, point.low, point.high, color=f"C{number}")
    for number, (name, value) in enumerate((levels or {}).items()):
        axes.axhline(value, linestyle="--", color=f"C{len(lines) + number}", label=name)
    axes.set_xlabel(x_label)
    axes.set_ylabel(textwrap.fill(y_label, LABEL_WIDTH))
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
