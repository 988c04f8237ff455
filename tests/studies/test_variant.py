# SPDX-License-Identifier: Apache-2.0
"""Images of a study come in batches of the size that was asked for, in one process."""

from __future__ import annotations

import torch

from monai_cadp.studies.variant import Split


def test_a_loader_has_batches_of_its_size_and_passes_transforms():
    split = Split(torch.rand(10, 1, 4, 4), torch.arange(10))
    loader = split.loader(4)
    assert (loader.batch_size, loader.num_workers) == (4, 0)
    assert torch.equal(torch.cat([batch["image"] for batch in loader]), split.x)
    flipped = split.loader(4, transform=[lambda item: item | {"image": item["image"].flip(1)}])
    assert torch.equal(torch.cat([batch["image"] for batch in flipped]), split.x.flip(2))
    assert torch.equal(torch.cat([batch["label"] for batch in flipped]), split.y)
