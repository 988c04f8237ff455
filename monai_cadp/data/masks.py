# SPDX-License-Identifier: Apache-2.0
"""Images and the masks of what they show, as one image: a mask tells of its image, so both are released together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import Dataset

__all__ = ["WithMasks", "join_masks", "keep_pieces", "mask_distances", "one_hot_masks", "split_masks"]


class WithMasks(Dataset):
    """Images with the classes of their masks as further channels; an item that has no mask is refused.

    Args:
        images: items are dictionaries with ``image`` and ``mask``, such as those of :class:`ACDC`.
        num_mask_classes: with the background.
        reach: of the distance to the edge of a class that its channel holds, in voxels (:func:`mask_distances`): smooth
            channels, which a flow learns and an augmentation warps more easily. None for channels of 0 and 1.

    Raises:
        ValueError: if the reach is not positive; when an item is read that has no mask, or an unknown class in it.

    Example:
        >>> item = {"image": torch.rand(1, 8, 8), "mask": torch.ones(1, 8, 8, dtype=torch.long), "label": 0}
        >>> WithMasks([item], num_mask_classes=3)[0]["image"].shape
        torch.Size([3, 8, 8])
    """

    def __init__(self, images: Dataset, num_mask_classes: int, reach: float | None = None) -> None:
        if reach is not None and not reach > 0:
            raise ValueError(f"reach is {reach}; expected a positive number of voxels, or None for 0 and 1.")
        self.images, self.num_mask_classes, self.reach = images, num_mask_classes, reach

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one item, whose mask is a part of its image now."""
        item = dict(self.images[index])
        if "mask" not in item:
            raise ValueError("An image has no mask; expected one for each, or a study without segmentation.")
        image, mask = item["image"][None], item.pop("mask")[None]
        return {**item, "image": join_masks(image, mask, self.num_mask_classes, self.reach)[0]}


def join_masks(images: Tensor, masks: Tensor, num_classes: int, reach: float | None = None) -> Tensor:
    r"""Return images with one more channel, from 0 to 1, for each class of their masks but the background.

    A mask tells of its image, so both are released together: by a network for C + num_classes - 1 channels.

    Args:
        images: (n, C, \*spatial).
        masks: classes (n, 1, \*spatial), 0 for the background.
        num_classes: with the background.
        reach: as in :class:`WithMasks`.

    Returns:
        Images (n, C + num_classes - 1, \*spatial).

    Raises:
        ValueError: if shapes do not fit, or a class is unknown.

    Example:
        >>> join_masks(torch.rand(2, 1, 8, 8), torch.ones(2, 1, 8, 8), num_classes=4).shape
        torch.Size([2, 4, 8, 8])
    """
    classes = one_hot_masks(images, masks, num_classes)[:, 1:].to(images.dtype)
    return torch.cat([images, classes if reach is None else mask_distances(classes, reach)], dim=1)


def mask_distances(classes: Tensor, reach: float) -> Tensor:
    r"""Return how far every voxel lies within its class, from 0 well outside to 1 well inside; 0.5 is the edge.

    Args:
        classes: channels (n, C, \*spatial) of 0 and 1.
        reach: distance from the edge, in voxels, at which a channel is 0 or 1.

    Returns:
        :math:`1/2 + d / (2\,\text{reach})` within 0 and 1, d the Euclidean distance to the edge, negative outside; 0
        for a class that is nowhere.

    Example:
        >>> mask_distances(torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]]), reach=2.0).flatten().tolist()
        [0.125, 0.375, 0.625, 0.875]
    """
    # Here, because it takes long, and most images have no masks.
    from scipy.ndimage import distance_transform_edt

    distances = np.zeros(tuple(classes.shape), dtype=np.float32)
    for channel, found in zip(classes.flatten(0, 1), distances.reshape(-1, *classes.shape[2:]), strict=True):
        inside = channel.numpy() > 0.5
        if inside.all():
            found[:] = 1
        elif inside.any():
            # Between two voxels, half a voxel from each.
            distance = np.where(inside, distance_transform_edt(inside) - 0.5, 0.5 - distance_transform_edt(~inside))
            found[:] = (0.5 + distance / (2 * reach)).clip(0, 1)
    return torch.from_numpy(distances).to(classes)


def split_masks(joined: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    r"""Return images and masks of what was joined, and released.

    Args:
        joined: (n, C + num_classes - 1, \*spatial).
        num_classes: with the background.

    Returns:
        Images (n, C, \*spatial), and masks (n, 1, \*spatial), int64: the class whose channel is largest, or the
        background where none exceeds one half.

    Raises:
        ValueError: if there is no channel besides those of the classes.

    Example:
        >>> images, masks = torch.rand(2, 1, 8, 8), torch.randint(3, (2, 1, 8, 8))
        >>> torch.equal(split_masks(join_masks(images, masks, 3), 3)[1], masks)
        True
    """
    channels = joined.shape[1] - (num_classes - 1)
    if num_classes < 2 or channels < 1:
        raise ValueError(
            f"{joined.shape[1]} channels came for {num_classes} classes; expected an image's, and one for each class "
            "but the background, of two classes or more."
        )
    images, classes = joined.split([channels, num_classes - 1], dim=1)
    background = torch.full_like(classes[:, :1], 0.5)
    return images, torch.cat([background, classes], dim=1).argmax(1, keepdim=True)


def keep_pieces(joined: Tensor, num_classes: int, num_pieces: int) -> Tensor:
    r"""Return images with their masks, of which every class keeps its largest connected pieces alone.

    What is drawn may have specks. To take them away is public knowledge of the organ, and post-processing of a release.

    Args:
        joined: (n, C + num_classes - 1, \*spatial).
        num_classes: with the background.
        num_pieces: of every class, at most: 1 for a liver, 2 for lungs. Voxels that share a corner are connected.

    Returns:
        Images of the same shape; what is taken away becomes background.

    Raises:
        ValueError: if ``num_pieces`` is not positive, or as :func:`split_masks`.

    Example:
        >>> mask = torch.tensor([1, 1, 0, 1]).reshape(1, 1, 1, 4)
        >>> joined = join_masks(torch.rand(1, 1, 1, 4), mask, 2)
        >>> split_masks(keep_pieces(joined, 2, 1), 2)[1].flatten().tolist()
        [1, 1, 0, 0]
    """
    # Here, because it takes long.
    from scipy.ndimage import label

    if num_pieces < 1:
        raise ValueError(f"num_pieces is {num_pieces}; expected 1 or more.")
    masks = split_masks(joined, num_classes)[1][:, 0]
    touching = np.ones((3,) * (joined.ndim - 2))
    result = joined.clone()
    for image, mask in zip(result, masks.cpu().numpy(), strict=True):
        specks = np.zeros(mask.shape, dtype=bool)
        for one in range(1, num_classes):
            found, _ = label(mask == one, touching)
            sizes = np.bincount(found.ravel())[1:]
            specks |= np.isin(found, 1 + np.argsort(sizes)[: max(len(sizes) - num_pieces, 0)])
        image[1 - num_classes :, torch.from_numpy(specks)] = 0
    return result


def one_hot_masks(images: Tensor, masks: Tensor, num_classes: int) -> Tensor:
    r"""Return masks (n, 1, \*spatial) as one channel of 0 and 1 for each class (n, num_classes, \*spatial), int64.

    Raises:
        ValueError: if the masks do not have the shape of the images (n, C, \*spatial), or a class is unknown.
    """
    if masks.shape != (len(images), 1, *images.shape[2:]):
        raise ValueError(
            f"Images and masks came in the shapes {tuple(images.shape)} and {tuple(masks.shape)}; expected "
            "(n, C, *spatial) and (n, 1, *spatial)."
        )
    classes = masks[:, 0].long()
    if bool(((classes < 0) | (classes >= num_classes) | (classes != masks[:, 0])).any()):
        raise ValueError(
            f"Masks of {num_classes} classes hold something else than 0 to {num_classes - 1}; expected these."
        )
    return one_hot(classes, num_classes).movedim(-1, 1)
