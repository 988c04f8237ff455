# SPDX-License-Identifier: Apache-2.0
"""A released folder as a certificate sees it: names, digests, and the documents among its files."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_cadp.certificate.document import LARGEST, CertificateError, canonical, parsed, sha256, shown

__all__ = ["CERTIFICATE", "FolderFiles", "described"]

CERTIFICATE = "certificate.json"
SUMMARY, DATALIST = "summary.json", "datalist.json"
CARD = "_privacy.json"
# Where volumes with masks lie, and their cards.
PAIRS, CARDS = ("images", "labels"), "cards"
# What a file is in a list of images, by the folder where it lies.
PARTS = {"": "image", "images": "image", "labels": "mask"}
# Of an image, and of a table.
CARD_FIELDS = (
    {"drawing", "guarantee", "label", "left_out", "set_guarantee", "shape", "software"},
    {"count", "drawing", "guarantee", "schema", "software"},
)
SUMMARY_FIELDS = {"count", "guarantees", "labels", "left_out", "set_guarantee"}
# What a release is called, and its parts: nothing that could be the name of an original's folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,2}")
TABLE, PREVIEW = ".csv", "_preview.png"
ENDINGS = (".png", ".dcm", ".nii.gz", TABLE, PREVIEW)
PIECE = 2**20


class _Rows:
    """Counts the lines of a CSV file piece by piece; one within quotes is a part of its value."""

    def __init__(self) -> None:
        self.lines = self._quotes = 0

    def add(self, piece: bytes) -> _Rows:
        parts = piece.split(b'"')
        self.lines += sum(part.count(b"\n") for part in parts[self._quotes % 2 :: 2])
        self._quotes += len(parts) - 1
        return self


@dataclass(frozen=True)
class FolderFiles:
    """All files of a folder but its certificate: digests and sizes by name, the content of JSON documents, and how many
    rows tables have below their header."""

    digests: Mapping[str, dict[str, Any]]
    documents: Mapping[str, bytes]
    rows: Mapping[str, int]

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> FolderFiles:
        """Read every file of a folder once.

        Raises:
            CertificateError: if a file cannot be read, is a link, or has a name that no release has.
        """
        digests: dict[str, dict[str, Any]] = {}
        documents: dict[str, bytes] = {}
        rows: dict[str, int] = {}
        root = Path(folder)
        for path in sorted(_entries(root)):
            name = path.relative_to(root).as_posix()
            if name == CERTIFICATE:
                continue
            if path.is_symlink() or not path.is_file():
                raise CertificateError(f"{shown(name)} is no file, or a link; a released folder holds plain files.")
            digest, size, kept, counted = hashlib.sha256(), 0, [], _Rows()
            try:
                with path.open("rb") as file:
                    while piece := file.read(PIECE):
                        digest.update(piece)
                        size += len(piece)
                        if name.endswith(TABLE):
                            counted.add(piece)
                        # A piece more than a document may have; it is refused where it is read.
                        if name.endswith(".json") and size <= LARGEST + PIECE:
                            kept.append(piece)
            except OSError:
                raise CertificateError(f"{shown(name)} could not be read; check its permissions.") from None
            digests[name] = {"bytes": size, "sha256": digest.hexdigest()}
            if name.endswith(".json"):
                documents[name] = b"".join(kept)
            if name.endswith(TABLE):
                rows[name] = counted.lines - 1
        return cls(digests, documents, rows)

    @classmethod
    def of(cls, contents: Mapping[str, bytes]) -> FolderFiles:
        """Return what :meth:`read` returns of a folder with these contents."""
        digests = {name: {"bytes": len(content), "sha256": sha256(content)} for name, content in contents.items()}
        documents = {name: content for name, content in contents.items() if name.endswith(".json")}
        rows = {name: _Rows().add(content).lines - 1 for name, content in contents.items() if name.endswith(TABLE)}
        return cls(digests, documents, rows)

    def check(self, certified: Mapping[str, Any]) -> None:
        """Refuse files that are missing, added or changed, by name.

        Raises:
            CertificateError: naming the first of them.
        """
        for name in sorted(set(certified) - set(self.digests)):
            raise CertificateError(f"{shown(name)} is missing; the certificate has it.")
        for name in sorted(set(self.digests) - set(certified)):
            raise CertificateError(f"{shown(name)} is not in the certificate; it was added or renamed.")
        for name in sorted(certified):
            if canonical(self.digests[name]) != canonical(certified[name]):
                raise CertificateError(f"{shown(name)} is not the certified file; its content was changed.")


def described(files: FolderFiles) -> dict[str, Any]:
    """Return what the documents of a folder say together, as plain data for a statement.

    Args:
        files: of the folder.

    Raises:
        CertificateError: if a release has no card, or documents contradict each other.
    """
    for name in files.digests:
        if not NAME.fullmatch(name) or ".." in name:
            raise CertificateError(f"{shown(name)} is not a name that a release has; the folder holds something else.")
    cards = {name: parsed(files.documents[name], name) for name in files.documents if name.endswith(CARD)}
    for name, card in cards.items():
        if not isinstance(card, dict) or not isinstance(card.get("guarantee"), dict):
            raise CertificateError(f"{name} is not a privacy card; it has no guarantee.")
        _check_fields(name, card, CARD_FIELDS["count" in card])
    _check_releases(files, cards)
    if SUMMARY not in files.documents and len(cards) == 1 and "count" in next(iter(cards.values())):
        (card,) = cards.values()
        counts: Counter[bytes] = Counter({canonical(card["guarantee"]): card["count"]})
        summary: dict[str, Any] = {"count": card["count"]}
    else:
        counts = Counter(canonical(card["guarantee"]) for card in cards.values())
        summary = _summary(files, cards, counts)
    if type(summary["count"]) is not int or summary["count"] < 1:
        raise CertificateError("The number of releases is not stated; expected a count in the summary or the card.")
    return {
        "num_releases": summary["count"],
        "guarantees": [{"count": counts[text], "guarantee": parsed(text, "a card")} for text in sorted(counts)],
        "set_guarantee": summary.get("set_guarantee"),
        "smallest_group": min(Counter(canonical(_group(*item)) for item in cards.items()).values(), default=0),
        "drawing": _distinct(card.get("drawing") for card in cards.values()),
        "software": _distinct(card.get("software") for card in cards.values()),
    }


def _summary(files: FolderFiles, cards: Mapping[str, Any], counts: Counter[bytes]) -> dict[str, Any]:
    if SUMMARY not in files.documents:
        raise CertificateError(f"{SUMMARY} is missing; expected a folder as a release has written it.")
    summary = parsed(files.documents[SUMMARY], SUMMARY)
    # Not by ==, by which True is 1.
    if not isinstance(summary, dict) or canonical(summary.get("count")) != canonical(len(cards)) or not cards:
        raise CertificateError(f"{SUMMARY}: its count is not the number of cards, {len(cards)}.")
    expected = sorted(canonical({"count": n, "guarantee": parsed(text, "a card")}) for text, n in counts.items())
    if not isinstance(summary.get("guarantees"), list) or sorted(map(canonical, summary["guarantees"])) != expected:
        raise CertificateError(f"{SUMMARY}: its guarantees are not those of the cards.")
    _check_fields(SUMMARY, summary, SUMMARY_FIELDS)
    labels = Counter(str(card["label"]) for card in cards.values() if type(card.get("label")) is int)
    if canonical(summary.get("labels", {})) != canonical(labels):
        raise CertificateError(f"{SUMMARY}: its labels are not those of the cards.")
    for name, card in cards.items():
        for key in ("set_guarantee", "left_out"):
            if canonical(card.get(key)) != canonical(summary.get(key)):
                raise CertificateError(f"{name} states another {key} than {SUMMARY}.")
    return summary


def _check_fields(name: str, document: Mapping[str, Any], known: set[str]) -> None:
    """Refuse a field that no release writes: it might contradict what is checked."""
    for field in sorted(set(document) - known):
        raise CertificateError(f"{name}: {shown(field)} is no field that a release writes; restore it as it was.")


def _check_releases(files: FolderFiles, cards: Mapping[str, Any]) -> None:
    """Refuse releases without a card, and cards that are not of one image, one image with its mask, or one table."""
    known: dict[str, str] = {}
    for name in sorted(cards):
        place, entry, rest = _place(name)
        release = entry.removesuffix(CARD)
        if place not in ("", CARDS) or rest or release in known:
            raise CertificateError(f"{name} is not the only card of a release, in its place; a release has one card.")
        known[release] = name
    # The images and masks of a release, and the files of each: a series has many.
    found: dict[str, dict[tuple[str, str], list[str]]] = {release: {} for release in known}
    for name in sorted(set(files.digests) - set(cards) - {SUMMARY, DATALIST}):
        place, entry, rest = _place(name)
        release = entry if rest else _release(entry)
        of_preview = not rest and entry.endswith(PREVIEW)
        places = () if release not in known else _places(known[release], of_preview)
        if place not in places:
            raise CertificateError(f"{name} has no privacy card; a release is an image or a table with its card.")
        if not of_preview:
            found[release].setdefault((place, entry), []).append(rest)
    for release, card in sorted(known.items()):
        if sorted(place for place, _ in found[release]) != sorted(_places(card)):
            raise CertificateError(
                f"{card} is the card of no release, or of several; its image or its mask is missing, or there are more."
            )
        for (place, entry), slices in found[release].items():
            _check_entry(files, cards[card], card, _path(place, entry), slices)
    if DATALIST in files.documents:
        listed = []
        for release, card in known.items():
            parts = {PARTS[place]: _path(place, entry) for place, entry in found[release]}
            listed.append(parts | {"label": cards[card]["label"]} if "label" in cards[card] else parts)
        _check_datalist(files, listed)


def _check_entry(files: FolderFiles, card: Mapping[str, Any], name: str, path: str, slices: list[str]) -> None:
    """Refuse a series with other slices, or a table with other rows, than its card states."""
    if slices != [""]:
        numbers = range(1, len(slices) + 1)
        shape = card.get("shape")
        depth = shape[-1] if isinstance(shape, list) and shape else None
        if slices != sorted(f"slice_{number:04d}.dcm" for number in numbers) or depth != len(slices):
            raise CertificateError(f"{path} holds something else than the slices of a volume of the shape in {name}.")
    if ("count" in card or path in files.rows) and canonical(card.get("count")) != canonical(files.rows.get(path)):
        raise CertificateError(f"{name}: its count is not the number of rows of its table.")


def _place(name: str) -> tuple[str, str, str]:
    """Return in which of the folders for volumes with masks a file lies, what lies there, and which file of that."""
    folder, _, rest = name.partition("/")
    place, inner = (folder, rest) if rest and folder in (*PAIRS, CARDS) else ("", name)
    entry, _, rest = inner.partition("/")
    return place, entry, rest


def _path(place: str, entry: str) -> str:
    return f"{place}/{entry}" if place else entry


def _places(card: str, of_preview: bool = False) -> tuple[str, ...]:
    """Return where the parts of a release lie, or its preview."""
    if not card.startswith(f"{CARDS}/"):
        return ("",)
    return (CARDS,) if of_preview else PAIRS


def _release(entry: str) -> str:
    """Return which release a file belongs to, by its name."""
    return next((entry.removesuffix(ending) for ending in reversed(ENDINGS) if entry.endswith(ending)), entry)


def _check_datalist(files: FolderFiles, listed: list[dict[str, Any]]) -> None:
    """Refuse a list of the releases with other files or labels than there are."""
    content = parsed(files.documents[DATALIST], DATALIST)
    entries = content.get("training") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(entries, list) or sorted(map(canonical, entries)) != sorted(map(canonical, listed)):
        raise CertificateError(f"{DATALIST}: its images, masks and labels are not those of the cards.")


def _group(name: str, card: Mapping[str, Any]) -> Any:
    """Return the public facts that a card states: releases hide among those with the same ones.

    One whose card does not tell its class or attributes, though they are public, is not known to hide among any.
    """
    public, label = card["guarantee"].get("public"), card.get("label")
    facts = [str(fact) for fact in public] if isinstance(public, list) else []
    kept = [int(fact.split()[1]) for fact in facts if re.fullmatch(r"attribute [0-9]{1,6}", fact)]
    if "condition" in facts:
        return [name] if label is None else label
    values = label if isinstance(label, list) else []
    return [values[place] for place in kept] if all(place < len(values) for place in kept) else [name]


def _distinct(values: Any) -> list[Any]:
    texts = {canonical(value) for value in values if value is not None}
    return [parsed(text, "a card") for text in sorted(texts)]


def _entries(root: Path) -> list[Path]:
    try:
        if not root.is_dir():
            raise CertificateError("The folder does not exist; give the folder of a release.")
        # An empty folder is an entry too, and no file.
        return [path for path in root.rglob("*") if path.is_symlink() or not path.is_dir() or not any(path.iterdir())]
    except OSError:
        raise CertificateError("The folder could not be read; check its permissions.") from None
