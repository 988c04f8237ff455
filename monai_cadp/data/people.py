# SPDX-License-Identifier: Apache-2.0
"""Whose every item of a data set is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset
from tqdm import tqdm

from monai_cadp.privacy import SubjectId, check_unit, needs_subjects

__all__ = ["people_of"]

SECONDS_WITHOUT_BAR = 5.0


def people_of(dataset: Dataset | Sequence[Mapping[str, Any]], unit: str | None = None) -> list[int]:
    """Number the people of a data set by the ``subject`` of its items; an item without one is a person of its own.

    Args:
        dataset: of dictionaries, all of which are read once. Who is one person says
            :class:`~monai_cadp.privacy.SubjectId`, as it does for a ledger.
        unit: what the people are called, one of :data:`~monai_cadp.privacy.UNITS`; "patient" needs subjects.

    Returns:
        For every item an integer from 0 on, equal for items of one subject.

    Raises:
        ValueError: if the unit is none of the words, it is a patient and an item says nothing of its subject, or a
            subject is no text.

    Example:
        >>> people_of([{"subject": "b"}, {"subject": "a"}, {}, {"subject": "B "}])
        [0, 1, 2, 0]
    """
    by_subject = unit is not None and needs_subjects(check_unit(unit))
    numbers: dict[Hashable, int] = {}
    people = []
    count = len(dataset)  # type: ignore[arg-type]
    for index in tqdm(range(count), desc="people", unit="item", delay=SECONDS_WITHOUT_BAR):
        item: Any = dataset[index]
        if by_subject and "subject" not in item:
            raise ValueError(
                "The unit is a patient, but an item says nothing of its subject; give a subject_pattern for the names "
                "of files, a column or list with subjects, or another unit."
            )
        subject: Hashable = SubjectId(item["subject"]) if "subject" in item else index
        people.append(numbers.setdefault(subject, len(numbers)))
    return people
