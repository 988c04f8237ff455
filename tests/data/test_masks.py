# SPDX-License-Identifier: Apache-2.0
"""A mask is a part of its image, and comes out of a release with it."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.data import WithMasks, join_masks, keep_pieces, mask_distances, split_masks


def pictures(count=8, spatial=(20, 18)):
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(3, (count, 1, *spatial), generator=generator)
    return torch.rand(count, 1, *spatial, generator=generator), masks


def test_masks_come_out_of_releases_as_they_went_in_and_from_blurred_ones_by_the_larger_half():
    images, masks = pictures()
    joined = join_masks(images, masks, 3)
    assert joined.shape == (8, 3, 20, 18) and joined[:, 1:].max() == 1
    assert all(torch.equal(a, b) for a, b in zip(split_masks(joined, 3), (images, masks), strict=True))
    blurred = torch.tensor([0.9, 0.4, 0.6, 0.9])[:, None] * torch.tensor([0.0, 0.0, 1.0])[None]
    blurred = blurred + torch.tensor([0.0, 0.45, 0.3, 0.0])[:, None] * torch.tensor([0.0, 1.0, 0.0])[None]
    assert split_masks(blurred[:, :, None, None], 3)[1].flatten().tolist() == [2, 0, 2, 2]


def test_items_hold_their_masks_as_channels_and_all_else_as_it_was():
    images, masks = pictures()
    items = [{"image": x, "mask": y, "label": 4, "subject": "ada"} for x, y in zip(images, masks, strict=True)]
    joined = WithMasks(items, num_mask_classes=3)
    assert len(joined) == len(items) and items[0].keys() == {"image", "mask", "label", "subject"}
    assert joined[2].keys() == {"image", "label", "subject"}
    found = split_masks(joined[2]["image"][None], 3)
    assert torch.equal(found[0][0], images[2]) and torch.equal(found[1][0], masks[2])


def test_an_item_without_a_mask_is_refused(refused):
    with refused(ValueError, "no mask"):
        WithMasks([{"image": torch.rand(1, 8, 8)}], num_mask_classes=3)[0]


@pytest.mark.parametrize("num_classes", [1, 3])
def test_a_release_without_channels_for_its_masks_is_refused(refused, num_classes):
    with refused(ValueError, f"2 channels came for {num_classes} classes"):
        split_masks(torch.rand(2, 2, 8, 8), num_classes)


def test_distances_to_edges_give_the_masks_back():
    masks = torch.randint(3, (2, 1, 6, 8, 5), generator=torch.Generator().manual_seed(0))
    joined = join_masks(torch.rand(2, 1, 6, 8, 5), masks, 3, reach=3.0)
    assert torch.equal(split_masks(joined, 3)[1], masks)
    assert 0 <= float(joined.min()) and float(joined.max()) <= 1


def test_a_distance_is_that_to_the_edge_between_two_voxels():
    mask = torch.zeros(1, 1, 9, 9, 9)
    mask[..., 4:] = 1
    channel = join_masks(torch.zeros(1, 1, 9, 9, 9), mask, 2, reach=2.0)[0, 1, 3, 3]
    assert channel.tolist() == [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1, 1]


def test_classes_that_are_nowhere_or_everywhere_have_no_edge():
    image = torch.zeros(1, 1, 4, 4, 4)
    assert mask_distances(image, 2.0).eq(0).all() and mask_distances(image + 1, 2.0).eq(1).all()


def test_a_reach_that_is_not_positive_is_refused(refused):
    with refused(ValueError, "reach is 0"):
        WithMasks([], 2, reach=0)


def test_the_largest_pieces_of_every_class_are_kept_and_specks_become_background():
    mask = torch.zeros(2, 1, 7, 7, 7, dtype=torch.long)
    mask[0, 0, :3], mask[0, 0, 4, :2, :2], mask[0, 0, 6, 6, 6] = 1, 1, 1
    mask[1, 0, :2], mask[1, 0, 4, 4, 4] = 2, 1
    joined = join_masks(torch.rand(2, 1, 7, 7, 7), mask, 3, reach=2.0)
    for count, sizes in ((1, [147, 98, 1]), (2, [151, 98, 1])):
        kept = keep_pieces(joined, 3, count)
        masks = split_masks(kept, 3)[1]
        found = [int((masks[0] == 1).sum()), int((masks[1] == 2).sum()), int((masks[1] == 1).sum())]
        assert found == sizes and torch.equal(kept[:, 0], joined[:, 0])
    assert not (masks[0] == 2).any()


def test_what_is_taken_from_one_class_does_not_fall_to_another():
    joined = torch.zeros(1, 3, 5, 5, 5)
    joined[:, 1, :2], joined[:, 1:, 4, 4, 4] = 1.0, torch.tensor([0.9, 0.8])
    assert not split_masks(keep_pieces(joined, 3, 1), 3)[1][:, :, 2:].any()


def test_no_piece_at_all_is_refused(refused):
    with refused(ValueError, "num_pieces is 0"):
        keep_pieces(torch.zeros(1, 2, 3, 3, 3), 2, 0)
