# SPDX-License-Identifier: Apache-2.0
"""Whom a release serves better than others: figures of groups of people, by what is said of them in a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monai_cadp.privacy import SubjectId

__all__ = ["SMALLEST_GROUP", "Subgroup", "Subgroups", "comparable", "gaps"]

SUBJECT = "subject"
#: Figures of fewer people are withheld: they say little, and may be about somebody.
SMALLEST_GROUP = 20
# What does not depend on how many people a group has.
COMPARABLE = (
    *("accuracy_p_o", "auc_p_o", "dice_p_o", "r2_p_o"),
    *("kept_mean", "precision", "linkage_auc", "reidentification_auc"),
)


class Subgroup(NamedTuple):
    """Some of the test images.

    Args:
        column: of the table.
        value: that their people have there.
        people: number of people.
        members: indices of their images (m,).
    """

    column: str
    value: str
    people: int
    members: Tensor


class Subgroups:
    """People by what is said of them, such as their sex, a band of ages or a site.

    Args:
        file: CSV file in UTF-8 with a column ``subject`` and others; every cell is text as it stands. A blank cell puts
            the subject into no group of the column.

    Raises:
        ValueError: if the file is missing or of another form, or names a subject twice.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "people.csv")
        ...     _ = file.write_text("subject,sex\\n" + "".join(f"{n},{'FM'[n % 2]}\\n" for n in range(50)))
        ...     groups = list(Subgroups(file).of([str(n) for n in range(50)]))
        >>> [(group.column, group.value, group.people) for group in groups]
        [('sex', 'F', 25), ('sex', 'M', 25)]
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        rows = _rows(file)
        columns = [] if not rows else [name for name in rows[0] if name != SUBJECT]
        if not columns or SUBJECT not in rows[0] or any(len(row) != len(rows[0]) for row in rows):
            raise ValueError(
                "The file of subgroups is missing or of another form; expected a CSV file with a column subject and "
                "others, such as sex or site."
            )
        named = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
        self.people = {SubjectId(row[SUBJECT]).canonical: {name: row[name] for name in columns} for row in named}
        self.columns = columns
        if len(self.people) < len(named):
            raise ValueError(
                f"{len(named) - len(self.people)} lines of the file of subgroups name a subject again; name each once."
            )

    @classmethod
    def open(cls, file: str | os.PathLike[str] | None) -> Subgroups | None:
        """Return the subgroups of a file; None for no file."""
        return None if file is None else cls(file)

    def of(self, subjects: Sequence[str]) -> Iterator[Subgroup]:
        """Yield the groups of images, column by column.

        Args:
            subjects: whose each image is.

        Raises:
            ValueError: if the file says nothing of some of them.
        """
        known = [SubjectId(subject).canonical for subject in subjects]
        missing = len({person for person in known if person not in self.people})
        if missing:
            raise ValueError(
                f"The file of subgroups says nothing of {missing} of {len(set(known))} test subjects; add a line for "
                "each, with blank cells where nothing is known."
            )
        for column in self.columns:
            values = [self.people[person][column].strip() for person in known]
            for value in sorted({*values} - {""}):
                members = torch.tensor([place for place, one in enumerate(values) if one == value])
                yield Subgroup(column, value, len({known[place] for place in members.tolist()}), members)


def comparable(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return those figures that may be compared between groups of different sizes.

    Example:
        >>> comparable({"kept_mean": 0.4, "frechet_distance": 12.0})
        {'kept_mean': 0.4}
    """
    return {name: figure for name, figure in figures.items() if name in COMPARABLE}


def gaps(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return where groups of a column are served differently: the 95 % intervals of a figure do not meet.

    Args:
        rows: of one variant, one for each group: ``column``, ``value``, and ``figures`` as plain data.

    Example:
        >>> figure = lambda value: {"kept_mean": {"value": value, "interval": [value - 0.1, value + 0.1]}}
        >>> gaps([{"column": "sex", "value": v, "figures": figure(at)} for v, at in (("F", 0.4), ("M", 0.7))])
        [{'column': 'sex', 'figure': 'kept_mean', 'lower': 'F', 'higher': 'M'}]
    """
    found = []
    for low in rows:
        for high in rows:
            for name, figure in low["figures"].items():
                other = high["figures"].get(name)
                if low["column"] != high["column"] or not isinstance(figure, Mapping) or not isinstance(other, Mapping):
                    continue
                if figure["interval"][1] < other["interval"][0]:
                    pair = {"lower": low["value"], "higher": high["value"]}
                    found.append({"column": low["column"], "figure": name, **pair})
    return found


def _rows(file: str | os.PathLike[str]) -> list[list[str]]:
    try:
        with open(file, encoding="utf-8-sig", newline="") as content:
            return [[cell.strip() for cell in row] for row in csv.reader(content, strict=True) if row]
    except (OSError, ValueError, csv.Error):
        # What the inner error says names the path, or holds a line.
        return []
