# SPDX-License-Identifier: Apache-2.0
"""What keeps images from being released: a list for the curator, whom no message may tell it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, Subset
from tqdm import tqdm

from monai_cadp.data import WithMasks
from monai_cadp.privacy import PrivacyLedger
from monai_cadp.privacy.private_files import new_private

__all__ = ["Problem", "problems_file", "subjects_over_cap", "unreadable_items", "write_problems"]

SECONDS_WITHOUT_BAR = 5.0

#: What has a problem, by the name that the curator knows, and what is wrong with it.
Problem = tuple[str, str]


def problems_file(output: str | os.PathLike[str]) -> Path:
    """Return the file for problems of a release: beside its output, so that nobody shares it with the output.

    Example:
        >>> problems_file("released").name
        'released_problems.csv'
    """
    output = Path(output)
    return output.with_name(f"{output.stem}_problems.csv")


def write_problems(problems: Sequence[Problem], output: str | os.PathLike[str]) -> str:
    """Write problems into their file, which its owner alone may read, and return its name without its folder.

    Args:
        problems: one or more.
        output: folder or file of the release.

    Raises:
        OSError: if the file could not be written; the error names no file.
    """
    file, rows = problems_file(output), io.StringIO()
    csv.writer(rows).writerows([("what", "problem"), *problems])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with new_private(file) as content:
            content.write(rows.getvalue().encode("utf-8", "surrogateescape"))
    except OSError:
        raise OSError("The list of problems could not be written beside the output; check its folder.") from None
    return file.name


def unreadable_items(items: Dataset) -> dict[int, Problem]:
    """Read every item of a data set, and return those that cannot be read, by their places.

    Args:
        items: of which those that cannot be read raise ValueError.

    Example:
        >>> unreadable_items([1, 2, 3])
        {}
    """
    found: dict[int, Problem] = {}
    count = len(items)  # type: ignore[arg-type]
    for index in tqdm(range(count), desc="checking", unit="image", delay=SECONDS_WITHOUT_BAR):
        try:
            items[index]
        except ValueError as error:
            found[index] = (_name(items, index), str(error))
    return found


def subjects_over_cap(items: Dataset, ledger: PrivacyLedger, codes: Collection[str]) -> list[Problem]:
    """Return the subjects of items whom a ledger knows by these codes, those of a :class:`BudgetExceededError`.

    Args:
        items: with a "subject".
        ledger: that refused a release.
        codes: of subjects in it.
    """
    subjects = dict.fromkeys(str(items[index]["subject"]) for index in range(len(items)))  # type: ignore[arg-type]
    return [(subject, "over the cap of its budget") for subject in subjects if ledger.subject(subject) in codes]


def _name(items: Any, index: int) -> str:
    """Return the name of an item's file, or its number where items have none."""
    while not hasattr(items, "file_names"):
        if isinstance(items, Subset):
            items, index = items.dataset, items.indices[index]
        elif isinstance(items, WithMasks):
            items = items.images
        else:
            break
    names = getattr(items, "file_names", None)
    return f"image {index + 1}" if names is None else str(names[index])
