# SPDX-License-Identifier: Apache-2.0
"""What is promised of a folder of releases as a whole."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils.data import Dataset

from monai_cadp.privacy import PrivacyGuarantee, SubjectId
from monai_cadp.privacy.exact_numbers import as_read
from monai_cadp.release.releaser import BaseReleaser

__all__ = ["set_guarantee"]


def set_guarantee(
    releaser: BaseReleaser, images: Dataset, delta: float, set_epsilon: float | None = None
) -> PrivacyGuarantee:
    r"""Return the guarantee of all releases together, for those who see the shuffled set and nothing else.

    Where labels are public, releases hide among those of their class alone; the guarantee is that of the smallest
    class, whose people it covers worst. What a label mechanism randomizes is not looked at: the number of people with a
    fact that is not public would be told on every card.

    A ledger notes the set before anything of it is drawn, and refuses one that holds a release which was kept before
    (:meth:`~monai_cadp.privacy.PrivacyLedger.begin_set`). A set that was interrupted goes on.

    Args:
        releaser: draws the releases.
        images: the items to be released; all are read, for their labels.
        delta: of the set, between 0 and 1.
        set_epsilon: what must not be exceeded; None for any.

    Returns:
        The guarantee, with the one of a single release in its parameters.

    Raises:
        ValueError: if a ledger does not know images by their items, a patient has several images, a class has one image
            only, releases are not pure, or the set has a larger epsilon than was asked for.
        LedgerError: if a release of the set was kept before.
    """
    local, facts = releaser.guarantee, Counter[tuple[Any, ...]]()
    space, people, keys = releaser.condition_space, set[SubjectId](), list[str]()
    for index in range(len(images)):  # type: ignore[arg-type]
        item = images[index]
        if "subject" in item:
            person = SubjectId(item["subject"])
            if person in people:
                raise ValueError(
                    "A patient has several images, and a guarantee of the whole set counts one release of each; leave "
                    "the others out, or the delta of the set."
                )
            people.add(person)
        label = torch.as_tensor(item["label"]) if "label" in item and space.embedding_size else None
        public = None if label is None else space.public_part(label[None])
        facts[() if public is None else tuple(public.flatten().tolist())] += 1
        if releaser.needs_subjects:
            subjects, names = ([item[key]] if key in item else None for key in ("subject", "item"))
            image = torch.as_tensor(item["image"])
            keys += releaser.set_keys(image[None], None if label is None else label[None], subjects, names)
    count = min(facts.values())
    if count < 2:
        raise ValueError(
            "An image of the input is the only one with its public facts, and hides among no others; leave it out, or "
            "give labels a budget of their own."
        )
    whole = local.shuffled(count, delta)
    if set_epsilon is not None and whole.epsilon > set_epsilon:
        raise ValueError(
            f"The set has an epsilon of {as_read(whole.epsilon, digits=3)}, for there are {count} images in its "
            f"smallest public class; state this number of patients to keep {as_read(set_epsilon)}."
        )
    releaser.begin_set(keys, whole)
    return whole
