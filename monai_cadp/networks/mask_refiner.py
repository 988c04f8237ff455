# SPDX-License-Identifier: Apache-2.0
"""A segmentation network that lays the masks of draws along the edges of what was drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from monai_cadp.networks.context import ContextNetwork
from monai_cadp.networks.folding import fold, unfold
from monai_cadp.networks.image_format import edges_of, mask_classes

__all__ = ["MaskRefiner"]

# Of the noise under which it learns, for images of deviation 1: draws may have more grain than images.
LARGEST_NOISE = 0.3
# Passes over the classes, each of which gets its size while those of the others stay as they are.
ROUNDS = 8


class MaskRefiner(nn.Module):
    r"""Find the masks of drawn images anew, each as large as it was drawn.

    A flow draws an image and its masks as channels of one image, and their edges lie beside each other where they
    should be one. A U-Net that has learnt from the training images where their masks lie knows the edge better than
    the channel does; how large a mask is, the channel knows. With :math:`s_c` the logits of the U-Net, voxel v is of
    the class

    .. math:: \arg\max_c \big( s_c(v) + b_c \big),

    where the numbers :math:`b_c`, one for every class of every image, give each class as many voxels as were drawn.

    It looks at one draw at a time, and at nothing else: post-processing. An untrained one changes nothing.

    Args:
        num_channels: of the image, without its masks.
        num_masks: channels of the masks, one for every class but the background.
        spatial_shape: of the image; cells of 2 x 2 (x 2) neighbours are folded where all sizes are even.
        widths: hidden channels of the U-Net at full, half ... size.
        embedding_size: length of the embedded condition; 0 for none.

    References:
        Ronneberger, Fischer, Brox: U-Net, MICCAI 2015.
        Milletari, Navab, Ahmadi: V-Net, 3DV 2016 (the Dice loss, to which the cross-entropy is added).

    Example:
        >>> refiner = MaskRefiner(1, 1, (8, 8), widths=(8, 16), embedding_size=0)
        >>> images, masks, embedding = torch.randn(3, 1, 8, 8), torch.rand(3, 1, 8, 8), torch.zeros(3, 0)
        >>> refiner.error(images, masks, embedding).shape
        torch.Size([3])
        >>> torch.equal(refiner(images, masks, embedding), masks)
        True
    """

    def __init__(
        self,
        num_channels: int,
        num_masks: int,
        spatial_shape: Sequence[int],
        *,
        widths: Sequence[int],
        embedding_size: int,
    ) -> None:
        super().__init__()
        dims = len(spatial_shape)
        self.is_folded = all(size % 2 == 0 for size in spatial_shape)
        cell = 2**dims if self.is_folded else 1
        self.features = ContextNetwork(
            num_channels * cell, widths, spatial_dims=dims, embedding_size=embedding_size, blocks=1
        )
        self.last = Conv[Conv.CONV, dims](widths[0], (1 + num_masks) * cell, kernel_size=3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.loss = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, reduction="none")

    def error(self, images: Tensor, masks: Tensor, embedding: Tensor) -> Tensor:
        r"""Return how badly the masks of images are found, as it is trained to find them well.

        Args:
            images: of deviation 1 (B, C, \*spatial), to which noise is added in training mode.
            masks: channels (B, K, \*spatial) that say how far a voxel lies within each class; 1/2 is the edge.
            embedding: their embedded conditions (B, E).

        Returns:
            Cross-entropy and 1 minus the mean Dice, added, for each image (B,).
        """
        if self.training:
            deviation = LARGEST_NOISE * torch.rand(len(images), device=images.device, dtype=images.dtype)
            images = images + deviation.reshape(-1, *(1 for _ in images.shape[1:])) * torch.randn_like(images)
        logits, classes = self._logits(images, embedding), mask_classes(masks)
        cross_entropy = nn.functional.cross_entropy(logits, classes, reduction="none").flatten(1).mean(1)
        return cross_entropy + self.loss(logits, classes[:, None]).flatten(1).mean(1)

    @torch.no_grad()
    def forward(self, images: Tensor, masks: Tensor, embedding: Tensor) -> Tensor:
        r"""Find masks anew, as large as they are.

        Args:
            images: of deviation 1 (B, C, \*spatial).
            masks: channels (B, K, \*spatial), as they were drawn.
            embedding: their embedded conditions (B, E).

        Returns:
            Channels (B, K, \*spatial) between 0 and 1, above 1/2 where a voxel is of the class.
        """
        if not self.is_trained:
            return masks
        classes = mask_classes(masks).flatten(1)
        scores = self._logits(images, embedding).flatten(2)
        # At first every class is where it is likelier than all others.
        margins = torch.zeros_like(scores)
        for _ in range(ROUNDS):
            for one in range(1, scores.shape[1]):
                others = torch.cat([scores[:, :one], scores[:, one + 1 :]], dim=1).amax(1)
                margin = scores[:, one] - others
                scores[:, one] -= edges_of(margin, (classes == one).sum(1))[:, None]
        for one in range(1, scores.shape[1]):
            margins[:, one] = scores[:, one] - torch.cat([scores[:, :one], scores[:, one + 1 :]], dim=1).amax(1)
        return margins[:, 1:].sigmoid().reshape(masks.shape)

    @property
    def is_trained(self) -> bool:
        """Whether it has learnt anything."""
        return bool(self.last.weight.any())

    def _logits(self, images: Tensor, embedding: Tensor) -> Tensor:
        h = self.last(self.features(fold(images) if self.is_folded else images, embedding))
        return unfold(h) if self.is_folded else h
