# SPDX-License-Identifier: Apache-2.0
"""Which of a subject's images one is, however its path was typed."""

from __future__ import annotations

import hashlib
import os
import posixpath
import unicodedata
from collections.abc import Hashable, Iterable

__all__ = ["ItemId", "check_distinct"]

# Positions named in a refusal.
NUM_NAMED = 5


class ItemId:
    """The id of an item: what was declared of it, and never how that was typed.

    A path is taken in one Unicode form (NFC) with one kind of separator and without "." and "..", so that
    ``./img/a.png`` and ``img/a.png`` are one item. ``train/a.png`` and ``test/a.png`` are two, and so are
    ``visit1/scan.nii.gz`` and ``visit2/scan.nii.gz``: whoever makes an item of a file states the folder that tells it
    from others. A DICOM image is known by its UIDs (:meth:`from_uids`), wherever its file lies.

    Args:
        name: of the item: a relative path, any other text, or a whole number.

    Raises:
        ValueError: if it is of another type or names nothing, which would make one item of all such images of a
            subject; the error does not hold it.

    Example:
        >>> ItemId("./img/a.png") == ItemId("img//b/../a.png") != ItemId("test/img/a.png")
        True
        >>> len(ItemId("img/a.png").code)
        32
    """

    __slots__ = ("canonical",)

    canonical: str

    def __init__(self, name: str | int) -> None:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise ValueError(
                f"The item of an image is missing or a {type(name).__name__}; expected a text or a whole number."
            )
        # What a text or a number is, and not what a subclass of it says about itself.
        text = str.__str__(name) if isinstance(name, str) else int.__repr__(name)
        text = unicodedata.normalize("NFC", text).strip().replace("\\", "/")
        text = posixpath.normpath(text) if text else ""
        # Two slashes at the beginning mean the same as one everywhere but on systems that are no more.
        text = f"/{text.lstrip('/')}" if text.startswith("/") else text
        if text in ("", ".", "..", "/"):
            raise ValueError("The item of an image is missing or names nothing; expected a text or a whole number.")
        object.__setattr__(self, "canonical", text)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> ItemId:
        """Return the item of a file in a folder: the folder's own name, which may be a split, and the path in it.

        Args:
            path: of the file.
            folder: that was given or listed; where both lie, and by what links they are reached, has no part in it.

        Raises:
            ValueError: as the class.

        Example:
            >>> ItemId.from_file("data/train/CNV/a.png", "data/train").canonical
            'train/CNV/a.png'
        """
        place = os.path.abspath(folder)
        name = os.path.basename(os.path.realpath(place))
        return cls(posixpath.join(name, os.path.relpath(os.path.abspath(path), place).replace(os.sep, "/")))

    @classmethod
    def from_uids(cls, *uids: str) -> ItemId:
        """Return the item of a DICOM image, series or study, by the UIDs that name it.

        Raises:
            ValueError: if one is missing.

        Example:
            >>> ItemId.from_uids("1.2.3", "1.2.3.4") == ItemId.from_uids("1.2.3 ", "1.2.3.4")
            True
        """
        # The standard pads UIDs to an even length.
        plain = [uid.strip(" \0") for uid in uids]
        if not plain or not all(plain):
            raise ValueError("A DICOM image lacks a UID that names it; expected study, series and instance.")
        return cls("uids " + " ".join(plain))

    @property
    def code(self) -> str:
        """A code of the item, which travels with an image where a path would tell too much.

        Whoever guesses the name can check it: a code is no secret, and no part of what is released.
        """
        return hashlib.sha256(bytes(self)).hexdigest()[:32]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("An item cannot be changed; make another one.")

    def __reduce__(self) -> tuple[type[ItemId], tuple[str]]:
        return ItemId, (self.canonical,)

    def __eq__(self, other: object) -> bool:
        return self.canonical == other.canonical if isinstance(other, ItemId) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.canonical)

    def __repr__(self) -> str:
        return "ItemId(...)"

    def __bytes__(self) -> bytes:
        """Return the canonical form in UTF-8, for codes; names of files may hold bytes that are no text."""
        return self.canonical.encode("utf-8", "surrogatepass")


def check_distinct(items: Iterable[Hashable], what: str) -> None:
    """Refuse inputs of one command that are the same item, before anything is read, spent or counted.

    One would get the other's release; without a ledger it would be released, or counted in a training, twice.

    Args:
        items: of the inputs, in an order that whoever gave them knows.
        what: the inputs and their order are, for the error, which holds no path.

    Raises:
        ValueError: if two are equal; it names their positions, from 1.

    Example:
        >>> check_distinct([ItemId("a.png"), ItemId("b.png")], "entries of the datalist")
    """
    first: dict[Hashable, int] = {}
    repeated = [(first[item], place) for place, item in enumerate(items, 1) if first.setdefault(item, place) != place]
    if repeated:
        named = ", ".join(f"{one} and {other}" for one, other in repeated[:NUM_NAMED])
        more = f" and {len(repeated) - NUM_NAMED} more" if len(repeated) > NUM_NAMED else ""
        raise ValueError(
            f"Some {what} are the same item twice, numbers {named}{more}; name every image once, and different "
            "images differently."
        )
