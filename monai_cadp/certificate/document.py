# SPDX-License-Identifier: Apache-2.0
"""JSON documents that have one meaning and one form."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

__all__ = [
    "LARGEST",
    "UNITS",
    "CertificateError",
    "canonical",
    "integer",
    "leaves",
    "number",
    "parsed",
    "sha256",
    "shown",
]

UNITS = ("image", "volume", "row", "patient")
# As JSON writes a number, 0 or more.
NUMBER = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# Of a document in bytes, and how deep its lists and objects may lie in each other: more than any release writes.
LARGEST, DEEPEST = 2**24, 64


class CertificateError(ValueError):
    """Something is not what a certificate says, or cannot be certified; the message names it."""


def parsed(content: bytes, name: str, largest: int = LARGEST) -> Any:
    """Read a JSON document in which every number with a point stays the text as which it is written.

    Args:
        content: bytes of the document.
        name: of the document, for errors.
        largest: how many bytes it may have.

    Raises:
        CertificateError: if it is too large or too deep, not JSON, or one name stands twice in an object, of which
            readers take either.

    Example:
        >>> parsed(b'{"epsilon": 8.0, "count": 3}', "card")
        {'epsilon': '8.0', 'count': 3}
    """
    if len(content) > largest:
        raise CertificateError(f"{name} has {len(content)} bytes; a release writes {largest} at most.")
    try:
        plain = json.loads(
            content.decode(), parse_float=str, parse_constant=_not_a_number, object_pairs_hook=_without_doubles
        )
        if _is_deeper(plain, DEEPEST):
            raise ValueError("It is too deep.")
    except (ValueError, RecursionError):
        raise CertificateError(f"{name} is not a JSON document with one meaning; restore it as it was.") from None
    return plain


def canonical(plain: Any) -> bytes:
    """Return the one form of plain data: sorted names, no blanks, ASCII.

    Example:
        >>> canonical({"b": 1, "a": "8.0"})
        b'{"a":"8.0","b":1}'
    """
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def leaves(plain: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every single value of plain data, with the names that lead to it.

    Example:
        >>> list(leaves({"a": [1, {"b": "c"}], "d": {}}))
        [('a.0', 1), ('a.1.b', 'c'), ('d', {})]
    """
    items: Any = plain.items() if isinstance(plain, Mapping) else enumerate(plain) if isinstance(plain, list) else ()
    if not plain or not items:
        yield path, plain
        return
    for name, value in items:
        yield from leaves(value, f"{path}.{name}" if path else str(name))


def shown(text: str) -> str:
    """Return a text from elsewhere as a line of a terminal may show it.

    Example:
        >>> shown("summary.json"), shown("a" + chr(10) + "all is well")
        ('summary.json', "'a\\\\nall is well'")
    """
    return text if text.isascii() and text.isprintable() and len(text) <= 200 else ascii(text[:200])


def number(plain: Any, name: str) -> Fraction:
    """Return the exact number, 0 or more, that an integer or a decimal text stands for.

    Raises:
        CertificateError: if it is none.

    Example:
        >>> number("1e-05", "delta")
        Fraction(1, 100000)
    """
    if isinstance(plain, int) and not isinstance(plain, bool) and 0 <= plain < 10**300:
        return Fraction(plain)
    if isinstance(plain, str) and len(plain) <= 40 and (match := NUMBER.fullmatch(plain)):
        digits = f"{match[1]}{match[2] or ''}"
        if not digits.strip("0."):
            return Fraction(0)
        # Other exponents would be integers without end.
        if 1e-300 < float(plain) < 1e300:
            return Fraction(plain)
    raise CertificateError(f"{name} is not a number of 0 or more; expected one as the release has written it.")


def integer(plain: Any, name: str, low: int, high: int) -> int:
    """Return an integer within limits.

    Raises:
        CertificateError: if it is none.
    """
    if isinstance(plain, bool) or not isinstance(plain, int) or not low <= plain <= high:
        raise CertificateError(
            f"{name} is not an integer from {low} to {high}; expected it as the release has written it."
        )
    return plain


def _is_deeper(plain: Any, limit: int) -> bool:
    level = [plain] if isinstance(plain, (dict, list)) else []
    for _ in range(limit):
        level = [value for part in level for value in (part.values() if isinstance(part, dict) else part)]
        level = [value for value in level if isinstance(value, (dict, list))]
        if not level:
            return False
    return True


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("A name stands twice.")
    return found


def _not_a_number(text: str) -> None:
    raise ValueError(f"{text} is not a number.")
