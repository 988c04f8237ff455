# SPDX-License-Identifier: Apache-2.0
"""Images are alike by their edges, wherever they lie and however they were exposed."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.attacks import aligned_similarity


def patterns(count=12, channels=1, size=(24, 24), seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, *(max(2, side // 4) for side in size), generator=generator)
    return torch.nn.functional.interpolate(coarse, size=size)


@pytest.mark.parametrize(("channels", "size"), [(1, (24, 24)), (3, (24, 16)), (2, (16, 16, 8))])
def test_an_image_is_most_like_itself_when_it_was_moved_and_exposed_otherwise(channels, size):
    images = patterns(channels=channels, size=size)
    moved = 0.2 + 0.5 * images.roll([size[-1] // 8, 1], [images.ndim - 1, 2])
    similarity = aligned_similarity(moved, images)
    assert similarity.argmax(1).tolist() == list(range(12))
    assert similarity.shape == (12, 12) and float(similarity.abs().max()) <= 1 + 1e-5


def test_an_image_that_was_not_moved_agrees_with_itself_entirely():
    images = patterns()
    assert torch.allclose(aligned_similarity(images, images).diagonal(), torch.ones(12), atol=1e-5)


def test_an_image_is_not_moved_farther_than_an_eighth():
    images = patterns(count=2, size=(32, 32))
    near, far = (
        float(aligned_similarity(torch.nn.functional.pad(images, (move, 0))[..., :32], images)[0, 0]) for move in (4, 9)
    )
    assert near > far + 0.2


def test_what_cannot_be_laid_over_each_other_is_refused(refused):
    for other in (torch.rand(2, 1, 8, 9), torch.rand(2, 8)):
        with refused(ValueError, "expected those of one size"):
            aligned_similarity(torch.rand(2, 1, 8, 8), other)
    with refused(ValueError, "two pixels a side"):
        aligned_similarity(*torch.rand(2, 3, 1, 8, 1))
