# SPDX-License-Identifier: Apache-2.0
"""What is promised of a folder of releases as a whole."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils.data import Dataset

from monai_cadp.privacy import PrivacyGuarantee, SubjectId
from monai_cadp.release.releaser import BaseReleaser

__all__ = ["set_guarantee"]


def set_guarantee(
    releaser: BaseReleaser, images: Dataset, delta: float, set_epsilon: float | None = None
) -> PrivacyGuarantee:
    r"""Return the guarantee of all releases together, for those who see the shuffled set and nothing else.

    Where labels are public, releases hide among those of their class alone; the guarantee is that of the smallest
    class, whose people it covers worst. What a label mechanism randomizes is not looked at: the number of people with a
    fact that is not public would be told on every card.

    Args:
        releaser: without a ledger, which may return what another set already holds.
        images: the items to be released; all are read, for their labels.
        delta: of the set, between 0 and 1.
        set_epsilon: what must not be exceeded; None for any.

    Returns:
        The guarantee, with the one of a single release in its parameters.

    Raises:
        ValueError: if there is a ledger, a patient has several images, a class has one image only, releases are not
            pure, or the set has a larger epsilon than was asked for.
    """
    if releaser.needs_subjects:
        raise ValueError(
            "A guarantee of the whole set was asked for with a ledger, which may return releases that another set "
            "holds already; leave out the ledger or the delta of the set."
        )
    local, facts = releaser.guarantee, Counter[tuple[Any, ...]]()
    space, people = releaser.condition_space, set[SubjectId]()
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
        label = item.get("label") if space.embedding_size else None
        public = None if label is None else space.public_part(torch.as_tensor(label)[None])
        facts[() if public is None else tuple(public.flatten().tolist())] += 1
    count = min(facts.values())
    if count < 2:
        raise ValueError(
            "An image of the input is the only one with its public facts, and hides among no others; leave it out, or "
            "give labels a budget of their own."
        )
    whole = local.shuffled(count, delta)
    if set_epsilon is not None and whole.epsilon > set_epsilon:
        raise ValueError(
            f"The set has an epsilon of {whole.epsilon:.3g}, for there are {count} images in its smallest public "
            f"class; state this number of patients to keep {set_epsilon:g}."
        )
    return whole
