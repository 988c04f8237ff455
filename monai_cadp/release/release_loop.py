# SPDX-License-Identifier: Apache-2.0
"""Releasing every item of a data set, images or rows of a table alike."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from monai_cadp.data.class_folder import class_names_of
from monai_cadp.data.loader_batch import prepare_flow_batch
from monai_cadp.privacy import PrivacyLedger, SubjectId, needs_subjects
from monai_cadp.release.recorded_release import RecordedReleaser
from monai_cadp.release.releaser import BaseReleaser, Releaser, as_releaser

__all__ = ["check_class_names", "check_conditions", "recorded_in", "release_items"]

# Batches that share the transactions of a ledger: this many at most, with at most so many values.
LOT_BATCHES, LOT_VALUES = 8, 2**22
NAMELESS = (
    "The images say nothing of their subjects, {}; give a datalist with "
    '"subject", or a subject_pattern for the names of files.'
)


def recorded_in(releaser: Releaser, ledger: PrivacyLedger | None, items: Dataset, batch_size: int) -> BaseReleaser:
    """Return a releaser that records in a ledger, where there is one, by items where the data set has any."""
    if ledger is None:
        return as_releaser(releaser)
    return RecordedReleaser(releaser, ledger, by_item="item" in items[0], batch_size=batch_size)


def check_conditions(releaser: BaseReleaser, items: Dataset) -> None:
    """Refuse what items contradict, before anything is spent or written.

    Args:
        releaser: the releaser.
        items: as in :func:`release_items`; the first one is read.

    Raises:
        ValueError: as :func:`check_class_names`, if one condition was stated for all items and they have labels, or a
            budget for labels or no condition and they have none.
    """
    space = releaser.condition_space
    if space.embedding_size == 0:
        return
    check_class_names(releaser, items)
    labelled = "label" in items[0]
    if labelled and space.default is not None:
        raise ValueError(
            "A condition was given for all of the input, which has labels of its own; leave the condition out."
        )
    if not labelled and space.is_randomized:
        raise ValueError(
            "A budget for labels was given, but the input has none, and a condition that is stated for all is public; "
            "leave label_epsilon out."
        )
    if not labelled and space.default is None:
        raise ValueError(
            "The input has no labels, and no condition was given for all of it; give the option condition."
        )


def check_class_names(releaser: BaseReleaser, items: Dataset) -> None:
    """Refuse items whose labels may mean other classes than those of the releaser, before anything is spent or written.

    Args:
        releaser: the releaser; what its classes are called, its ``condition_space`` knows.
        items: any data set; those with class folders have names for their labels.

    Raises:
        ValueError: if the names of both are known and differ, or the releaser knows none and has another number.
    """
    space, found = releaser.condition_space, class_names_of(items)
    if found is None or space.num_classes is None:
        return
    known = getattr(space, "names", None)
    # Folders are not named: one that is no class may be called after a patient.
    if known is not None and found != list(known):
        raise ValueError(
            f"The {len(found)} class folders of the images are not the classes of the model, which are "
            f"{', '.join(known)} in this order; open the images with the names of the model."
        )
    if known is None and len(found) != space.num_classes:
        raise ValueError(
            f"The images are of {len(found)} named classes, but the model has {space.num_classes} without names; give "
            "class_names, which name its classes in their order."
        )
    if known is None:
        warnings.warn(
            f"The model does not know what its classes are called; the {len(found)} class folders, sorted by their "
            f"names, are taken for its classes 0 to {len(found) - 1}, which only class_names would make sure of.",
            stacklevel=3,
        )


def release_items(
    releaser: BaseReleaser,
    items: Dataset,
    batch_size: int,
    description: str,
    unit: str,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    r"""Release every item of a data set once, batch by batch, under a progress bar.

    Args:
        releaser: the releaser; its device is used.
        items: {"image": (C, \*spatial), "label": ..., "subject": ..., "item": ...}; labels are conditions, where the
            releaser takes any; subjects and items go to a ledger, where it has one.
        batch_size: items encoded at once; it has no influence on the guarantee.
        description: of the progress bar.
        unit: what the progress bar counts.

    Yields:
        Releases (B, C, \*spatial), and their conditions as released; on the CPU.

    Raises:
        ValueError: if an image, label or subject does not fit, subjects are missing, or the unit is a patient of whom
            two items came without a ledger.
        BudgetExceededError: if a subject would be over its cap; nothing of its batch is released or spent.
    """
    releaser.prepare()
    conditional = releaser.condition_space.embedding_size > 0
    recorded = releaser.needs_subjects
    fitting = LOT_VALUES // (batch_size * math.prod(releaser.image_shape)) if recorded else 1
    lot = batch_size * min(max(fitting, 1), LOT_BATCHES)

    by_patient, seen = needs_subjects(releaser.guarantee.unit), set[SubjectId]()
    loader: DataLoader = DataLoader(items, batch_size=lot)
    with tqdm(total=len(items), desc=description, unit=unit) as progress:  # type: ignore[arg-type]
        for batch in loader:
            if by_patient and not recorded:
                _check_patients(batch, seen)
            x, condition = prepare_flow_batch(batch, releaser.device)
            condition = condition if conditional else None
            subjects, names = _named(batch) if recorded else (None, None)
            released, used = releaser.release_with_conditions(x, condition, subjects, names)
            progress.update(len(released))
            yield released.cpu(), None if used is None else used.cpu()


def _named(batch: Mapping[str, Any]) -> tuple[list[str], list[str | int] | None]:
    """Return whose items these are, and which; numbers come from a loader as tensors."""
    if "subject" not in batch:
        raise ValueError(NAMELESS.format("whose budgets the ledger keeps"))
    items = batch.get("item")
    return _plain(batch["subject"]), None if items is None else _plain(items)


def _check_patients(batch: Mapping[str, Any], seen: set[SubjectId]) -> None:
    """Refuse a second item of a patient to whom the whole guarantee is promised for one."""
    if "subject" not in batch:
        raise ValueError(NAMELESS.format("but the unit is a patient"))
    for subject in _plain(batch["subject"]):
        if (one := SubjectId(subject)) in seen:
            raise ValueError(
                "Two images of one patient came, and the guarantee is for all of a patient; give a ledger, which "
                "counts them together, or another unit."
            )
        seen.add(one)


def _plain(named: Any) -> list[Any]:
    return named.tolist() if isinstance(named, Tensor) else list(named)
