# SPDX-License-Identifier: Apache-2.0
"""Who is one person: ids that differ only in how they were typed are one subject."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["SubjectId"]

# Invisible, but of no category that says so: joiners, Hangul fillers, variation selectors, tags (Unicode's
# Default_Ignorable_Code_Point, besides the format characters).
IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
# Shown as a blank, though Unicode calls it a symbol.
BRAILLE_BLANK = "\u2800"
# Between the letter and its dot stand the marks below, if it has any.
DOTTED_CAPITAL = re.compile("I([\u0316-\u0333]*)\u0307")
LEADING_ZEROS = re.compile("(?<![0-9])0+(?=[0-9])")
# At the end of something: ".0" alone is no empty text.
TRAILING_ZERO = re.compile(r"(?<=.)(?:\.0)+$", re.DOTALL)


class SubjectId:
    r"""A person's id, equal to every other way to type it.

    Ids are text and never parsed as numbers. Those that differ only in the following are one subject, in the ledger
    and wherever people are counted: case; Unicode form (NFKC: full-width letters and digits, ligatures, composed and
    decomposed accents); invisible and control characters; blanks around; digits of other scripts; leading zeros of any
    number within ("p007" is "p7"); ".0" at the end, which tables get when a program takes a column for floats. Two
    people whose ids differ in nothing else are counted as one: the safe side, because what one may spend, both share.

    Proof that this is an equivalence: two ids are equal exactly if their canonical forms are, and the canonical form is
    a function of the id alone. Every rule is applied until none changes the text any more, so that the form does not
    depend on their order, and is its own form.

    Args:
        text: the id as it was typed.

    Raises:
        ValueError: if it is no text, or nothing that can be seen is left of it; the error does not hold it.

    References:
        Unicode Standard Annex 15 (NFKC), and its section 3.13 on caseless matching.

    Example:
        >>> SubjectId("A7") == SubjectId(" a007.0 ") != SubjectId("A70")
        True
        >>> SubjectId("A7")
        SubjectId(...)
    """

    __slots__ = ("canonical",)

    canonical: str

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ValueError(
                f"The subject of an image is missing or a {type(text).__name__}; expected a text, because numbers lose "
                "how an id is written (1_12 and 112 are one number): put it in quotes, such as \"'112'\" on a command "
                "line, '112' in YAML or \"112\" in JSON and Python, and read columns of tables as text."
            )
        # What a text is, and not what a subclass of it says about itself.
        canonical = _canonical(str.__str__(text))
        if not canonical:
            raise ValueError("The subject of an image is missing or blank; expected a text that stands for one person.")
        object.__setattr__(self, "canonical", canonical)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("A subject cannot be changed; make another one.")

    def __reduce__(self) -> tuple[type[SubjectId], tuple[str]]:
        return SubjectId, (self.canonical,)

    def __eq__(self, other: object) -> bool:
        return self.canonical == other.canonical if isinstance(other, SubjectId) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.canonical)

    def __repr__(self) -> str:
        # Errors and logs show objects by their repr.
        return "SubjectId(...)"

    def __bytes__(self) -> bytes:
        """Return the canonical form in UTF-8, for codes; names of files may hold bytes that are no text."""
        return self.canonical.encode("utf-8", "surrogatepass")


def _canonical(text: str) -> str:
    previous = None
    while text != previous:
        previous = text
        if not text.isascii():
            # Upper case first: what has no lower case of its own (the dotless i) meets what shares its capital. Letters
            # and their marks apart: capitals of some come with the marks in another order, and that of i with a dot.
            text = DOTTED_CAPITAL.sub(r"I\1", unicodedata.normalize("NFKD", text).upper())
            text = unicodedata.normalize("NFKC", text)
        text = text.casefold()
        if not (text.isascii() and text.isprintable()):
            text = "".join(_visible(character) for character in IGNORABLE.sub("", text))
        text = LEADING_ZEROS.sub("", text.strip())
        text = TRAILING_ZERO.sub("", text)
    return text


def _visible(character: str) -> str:
    """Return a character as it counts: digits in ASCII, blanks as spaces, and nothing for what nobody sees."""
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    if character.isspace() or character == BRAILLE_BLANK:
        return " "
    return "" if unicodedata.category(character) in ("Cc", "Cf") else character
