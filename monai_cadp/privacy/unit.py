# SPDX-License-Identifier: Apache-2.0
"""What a guarantee protects as a whole."""

from __future__ import annotations

__all__ = ["UNITS", "check_unit", "needs_subjects"]

#: Three kinds of samples, each of which is a unit by itself, and the person, to whom several samples may belong.
UNITS = ("image", "volume", "row", "patient")


def check_unit(unit: str) -> str:
    """Return a unit, or refuse a word that is none of the four.

    Raises:
        ValueError: if it is another word: nobody could tell whether it stands for a sample or for a person.

    Example:
        >>> check_unit("patient")
        'patient'
    """
    if not isinstance(unit, str) or unit not in UNITS:
        came = repr(unit) if isinstance(unit, str) else f"a {type(unit).__name__}"
        raise ValueError(f"The unit is {came}; expected one of {', '.join(UNITS)}.")
    return unit


def needs_subjects(unit: str) -> bool:
    """Return whether a unit can be counted only where every sample says whose it is.

    Example:
        >>> needs_subjects("patient"), needs_subjects("volume")
        (True, False)
    """
    return check_unit(unit) == "patient"
