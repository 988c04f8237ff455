# SPDX-License-Identifier: Apache-2.0
"""What is promised of a folder of releases as a whole."""

from __future__ import annotations

from collections import Counter

import torch
from torch.utils.data import Dataset

from monai_cadp.privacy import PrivacyGuarantee
from monai_cadp.release.releaser import BaseReleaser

__all__ = ["set_guarantee"]


def set_guarantee(
    releaser: BaseReleaser, images: Dataset, delta: float, set_epsilon: float | None = None
) -> PrivacyGuarantee:
    r"""Return the guarantee of all releases together, for those who see the shuffled set and nothing else.

    Where labels are public, releases hide among those of their class alone; the guarantee is that of the smallest
    class, whose people it covers worst.

    Args:
        releaser: without a ledger, which may return what another set already holds.
        images: the items to be released; all are read, for their labels.
        delta: of the set, between 0 and 1.
        set_epsilon: what must not be exceeded; None for any.

    Returns:
        The guarantee, with the one of a single release in its parameters.

    Raises:
        ValueError: if there is a ledger, a class has one image only, releases are not pure, or the set has a larger
            epsilon than was asked for.
    """
    if releaser.needs_subjects:
        raise ValueError(
            "A guarantee of the whole set was asked for with a ledger, which may return releases that another set "
            "holds already; leave out the ledger or the delta of the set."
        )
    count = len(images)  # type: ignore[arg-type]
    local = releaser.guarantee
    if releaser.condition_space.embedding_size and local.public and "label" in images[0]:
        labels = (torch.as_tensor(images[index]["label"]).flatten().tolist() for index in range(count))
        count = min(Counter(tuple(label) for label in labels).values())
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
