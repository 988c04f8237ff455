# SPDX-License-Identifier: Apache-2.0
"""What keeps images from being released: a list for the curator, whom no message may tell it."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from torch.utils.data import Dataset, Subset
from tqdm import tqdm

from monai_cadp.data import WithMasks
from monai_cadp.privacy import BudgetExceededError, PrivacyLedger
from monai_cadp.privacy.private_files import new_private

__all__ = ["Problem", "listed_problems", "problems_file", "readable_items"]

SECONDS_WITHOUT_BAR = 5.0

#: What has a problem, by the name that the curator knows, and what is wrong with it.
Problem = tuple[str, str]


def problems_file(output: str | os.PathLike[str]) -> Path:
    """Return the file for problems of a release: beside its output, so that nobody shares it with the output.

    Args:
        output: the folder, or the CSV file.

    Example:
        >>> [problems_file(output).name for output in ("released.v2", "released.csv")]
        ['released.v2_problems.csv', 'released_problems.csv']
    """
    output = Path(output)
    return output.with_name(f"{output.name.removesuffix('.csv')}_problems.csv")


@contextmanager
def listed_problems(items: Dataset, output: str | os.PathLike[str], ledger: PrivacyLedger | None) -> Iterator[Dataset]:
    """Release items in this context, and their problems are listed for the curator; what is raised names nobody.

    Args:
        items: to be released.
        output: folder or file of the release.
        ledger: that pays for them; None for none.

    Yields:
        The items.

    Raises:
        ValueError: in place of one that an item has raised when it was read: says how many cannot be.
        BudgetExceededError: in place of one that names no file.
    """
    watched = _Watched(items)
    try:
        yield watched
    except BudgetExceededError as error:
        over = [] if ledger is None else _over_cap(items, ledger, error.codes)
        if not over:
            raise
        name = _write(over, output)
        raise BudgetExceededError(
            f"{str(error).removesuffix('.')}, who are named in {name} beside the output.", error.codes
        ) from None
    except ValueError:
        unreadable = _unreadable(items) if watched.has_failed else {}
        if not unreadable:
            raise
        shown = " with pictures" if _picture(items, unreadable, output) else ""
        name = _write(list(unreadable.values()), output)
        raise ValueError(
            f"{len(unreadable)} of {len(watched)} images cannot be read, and nothing was released; they and what is "
            f"wrong with them are named in {name}{shown} beside the output: mend them, or leave them out by "
            "skip_unreadable."
        ) from None


def readable_items(items: Dataset, output: str | os.PathLike[str]) -> tuple[Dataset, int]:
    """Read all items, list those that cannot be read, and return the others and how many are left out.

    Args:
        items: to be released.
        output: folder or file of the release.

    Raises:
        ValueError: if none is left.

    Example:
        >>> readable_items([1, 2, 3], "released")
        ([1, 2, 3], 0)
    """
    unreadable, count = _unreadable(items), len(items)  # type: ignore[arg-type]
    if not unreadable:
        return items, 0
    _picture(items, unreadable, output)
    name = _write(list(unreadable.values()), output)
    if len(unreadable) == count:
        raise ValueError(f"None of {count} images can be read; {name} beside the output says what is wrong with them.")
    return Subset(items, [index for index in range(count) if index not in unreadable]), len(unreadable)


class _Watched(Subset):
    """Items, and whether one of them could not be read."""

    def __init__(self, items: Dataset) -> None:
        super().__init__(items, range(len(items)))  # type: ignore[arg-type]
        self.has_failed = False

    def __getitem__(self, index: Any) -> Any:
        try:
            return super().__getitem__(index)
        except ValueError:
            self.has_failed = True
            raise

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


def _unreadable(items: Dataset) -> dict[int, Problem]:
    """Read every item of a data set, and return those that raise ValueError, by their places."""
    found: dict[int, Problem] = {}
    count = len(items)  # type: ignore[arg-type]
    for index in tqdm(range(count), desc="checking", unit="image", delay=SECONDS_WITHOUT_BAR):
        try:
            items[index]
        except ValueError as error:
            found[index] = (_name(items, index), str(error))
    return found


def _picture(items: Dataset, unreadable: dict[int, Problem], output: str | os.PathLike[str]) -> int:
    """Write what is seen of unreadable items into files beside their list, say there which, and return how many."""
    count = 0
    for index, (name, problem) in unreadable.items():
        source, place = _source(items, index)
        pixels = source.picture(place) if hasattr(source, "picture") else None
        if pixels is not None:
            count += 1
            file = problems_file(output).with_suffix(f".{count}.png")
            with _beside_output(file) as content:
                Image.fromarray(pixels).save(content, format="PNG")
            unreadable[index] = (name, f"{problem} Seen in {file.name}.")
    # Of an earlier attempt, which had more of them.
    for number in itertools.count(count + 1):
        file = problems_file(output).with_suffix(f".{number}.png")
        if not file.exists():
            break
        file.unlink()
    return count


def _over_cap(items: Dataset, ledger: PrivacyLedger, codes: Collection[str]) -> list[Problem]:
    """Return the subjects of items whom a ledger knows by these codes."""
    subjects = dict.fromkeys(str(items[index]["subject"]) for index in range(len(items)))  # type: ignore[arg-type]
    return [(subject, "over the cap of its budget") for subject in subjects if ledger.subject(subject) in codes]


def _write(problems: Sequence[Problem], output: str | os.PathLike[str]) -> str:
    """Write problems into their file, which its owner alone may read, and return its name without its folder."""
    file, rows = problems_file(output), io.StringIO()
    csv.writer(rows).writerows([("what", "problem"), *problems])
    with _beside_output(file) as content:
        content.write(rows.getvalue().encode("utf-8", "surrogateescape"))
    return file.name


@contextmanager
def _beside_output(file: Path) -> Iterator[BinaryIO]:
    """Write a file that its owner alone may read."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with new_private(file) as content:
            yield content
    except OSError:
        raise OSError("The list of problems could not be written beside the output; check its folder.") from None


def _name(items: Any, index: int) -> str:
    """Return the name of an item's file, or its number where items have none."""
    source, place = _source(items, index)
    names = getattr(source, "file_names", None)
    return f"image {place + 1}" if names is None else str(names[place])


def _source(items: Any, index: int) -> tuple[Any, int]:
    """Return the data set that knows an item's file, and the item's place in it."""
    while not hasattr(items, "file_names"):
        if isinstance(items, Subset):
            items, index = items.dataset, items.indices[index]
        elif isinstance(items, WithMasks):
            items = items.images
        else:
            break
    return items, index
