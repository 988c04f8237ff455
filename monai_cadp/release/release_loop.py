# SPDX-License-Identifier: Apache-2.0
"""Releasing every item of a data set, images or rows of a table alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from monai_cadp.data.loader_batch import prepare_flow_batch
from monai_cadp.privacy import PrivacyLedger, SubjectId, needs_subjects
from monai_cadp.release.privatizer import Privatizer
from monai_cadp.release.recorded_release import recorded_release

__all__ = ["check_conditions", "release_items"]

# Batches that share the transactions of a ledger: this many at most, with at most so many values.
LOT_BATCHES, LOT_VALUES = 8, 2**22
NAMELESS = (
    "The images say nothing of their subjects, {}; give a datalist with "
    '"subject", or a subject_pattern for the names of files.'
)


def check_conditions(privatizer: Privatizer, items: Dataset) -> None:
    """Refuse what items contradict, before anything is spent or written.

    Args:
        privatizer: the privatizer.
        items: as in :func:`release_items`; the first one is read.

    Raises:
        ValueError: if one condition was stated for all items and they have labels, or a budget for labels and they have
            none.
    """
    if privatizer.inn.condition_space.embedding_size == 0:
        return
    labelled = "label" in items[0]
    if labelled and privatizer.default_condition is not None:
        raise ValueError(
            "A condition was given for all of the input, which has labels of its own; leave the condition out."
        )
    if not labelled and privatizer.label_mechanism is not None:
        raise ValueError(
            "A budget for labels was given, but the input has none, and a condition that is stated for all is public; "
            "leave label_epsilon out."
        )


def release_items(
    privatizer: Privatizer,
    items: Dataset,
    batch_size: int,
    description: str,
    ledger: PrivacyLedger | None,
    unit: str,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    r"""Release every item of a data set once, batch by batch, under a progress bar.

    Args:
        privatizer: the privatizer; its device is used.
        items: {"image": (C, \*spatial), "label": ..., "subject": ..., "item": ...}; labels are conditions, where the
            network takes any; subjects are needed with a ledger, and items name their images to it.
        batch_size: items encoded at once; it has no influence on the guarantee.
        description: of the progress bar.
        ledger: pays for the releases and keeps them; what it has kept is met again.
        unit: what the progress bar counts.

    Yields:
        Releases (B, C, \*spatial) as the network decodes them, and their conditions as released; on the CPU.

    Raises:
        ValueError: if an image, label or subject does not fit, subjects are missing, or the unit is a patient of whom
            two items came without a ledger.
        BudgetExceededError: if a subject would be over its cap; nothing of its batch is released or spent.
    """
    privatizer.prepare()
    device = next(privatizer.inn.buffers()).device
    conditional = privatizer.inn.condition_space.embedding_size > 0
    fitting = 1 if ledger is None else LOT_VALUES // (batch_size * privatizer.inn.num_latents)
    lot = batch_size * min(max(fitting, 1), LOT_BATCHES)

    by_patient, seen = needs_subjects(privatizer.guarantee.unit), set[SubjectId]()
    loader: DataLoader = DataLoader(items, batch_size=lot)
    with tqdm(total=len(items), desc=description, unit=unit) as progress:  # type: ignore[arg-type]
        for batch in loader:
            if ledger is None and by_patient:
                _check_patients(batch, seen)
            x, condition = prepare_flow_batch(batch, device)
            condition = condition if conditional else None
            if ledger is None:
                released, used = privatizer.release(x, condition)
            else:
                subjects, names = _named(batch)
                released, used = recorded_release(privatizer, ledger, x, condition, subjects, names, batch_size)
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
