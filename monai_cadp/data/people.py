# SPDX-License-Identifier: Apache-2.0
"""Whose every item of a data set is."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch.utils.data import Dataset
from tqdm import tqdm

__all__ = ["people_of"]

SECONDS_WITHOUT_BAR = 5.0


def people_of(dataset: Dataset, unit: str | None = None) -> list[int]:
    """Number the people of a data set by the ``subject`` of its items; an item without one is a person of its own.

    Args:
        dataset: of dictionaries, all of which are read once.
        unit: what the people are called; "patient" needs subjects.

    Returns:
        For every item an integer from 0 on, equal for items of one subject.

    Raises:
        ValueError: if the unit is a patient, and an item says nothing of its subject.

    Example:
        >>> people_of([{"subject": "b"}, {"subject": "a"}, {}, {"subject": "b"}])
        [0, 1, 2, 0]
    """
    numbers: dict[Hashable, int] = {}
    people = []
    count = len(dataset)  # type: ignore[arg-type]
    for index in tqdm(range(count), desc="people", unit="item", delay=SECONDS_WITHOUT_BAR):
        item: Any = dataset[index]
        if unit == "patient" and "subject" not in item:
            raise ValueError(
                "The unit is a patient, but an item says nothing of its subject; give a subject_pattern for the names "
                "of files, a column or list with subjects, or another unit."
            )
        subject = ("subject", str(item["subject"])) if "subject" in item else ("item", index)
        people.append(numbers.setdefault(subject, len(numbers)))
    return people
