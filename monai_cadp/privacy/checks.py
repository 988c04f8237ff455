# SPDX-License-Identifier: Apache-2.0
"""Numbers that a promise may be made with."""

from __future__ import annotations

import math
from numbers import Real

__all__ = ["checked_delta", "checked_epsilon", "checked_positive", "stated"]


def checked_positive(name: str, value: float) -> float:
    """Return the value as a float, or raise ValueError in one sentence if it is not a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} is {stated(value)}; expected a finite number above 0.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} is {number}; expected a finite number above 0.")
    return number


def checked_epsilon(epsilon: float) -> float:
    """Return epsilon as a float, or raise ValueError in one sentence if it is not a finite number above 0."""
    return checked_positive("epsilon", epsilon)


def checked_delta(delta: float) -> float:
    """Return delta as a float, or raise ValueError in one sentence if it is not a number between 0 and 1."""
    number = checked_positive("delta", delta)
    if number >= 1:
        raise ValueError(f"delta is {number}; expected a number between 0 and 1, far below 1 / (number of people).")
    return number


def stated(value: object) -> str:
    """Return how an error names a value that is no number: as it was typed, or by its type where it may be long.

    Example:
        >>> stated(None), stated("8"), stated([1, 2])
        ('None', "'8'", 'a list')
    """
    return repr(value) if value is None or isinstance(value, bool | str) else f"a {type(value).__name__}"
