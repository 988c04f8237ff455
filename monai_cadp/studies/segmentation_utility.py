# SPDX-License-Identifier: Apache-2.0
"""What a segmentation network learns from images that were released with their masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_cadp.data import split_masks
from monai_cadp.metrics import Estimate, bootstrap_mean, segmentation_dice, train_segmentation
from monai_cadp.studies.measurements import Figures, Releases

__all__ = ["SegmentationUtility"]


class SegmentationUtility:
    """The paper's settings of a segmentation network: trained on releases or originals, tested on either.

    p/o is trained on releases (private) and tested on originals, p/p tested on releases, o/p trained on originals. o/o
    is p/o of the originals. Images hold their masks as further channels (:class:`~monai_cadp.data.WithMasks`), so that
    the mask of a release is a part of it, and covered by its budget.

    Args:
        num_mask_classes: with the background.
        epochs: of the network.
    """

    def __init__(self, num_mask_classes: int, epochs: int = 20) -> None:
        self.num_mask_classes, self.epochs = num_mask_classes, epochs
        self._of_originals: dict[int, nn.Module] = {}

    def __call__(self, releases: Releases, seed: int) -> Figures:
        """Return the mean Dice over test images with its interval, in every setting."""
        if releases.train_released is None or releases.test_released is None:
            return {}
        model = self._train(releases.train_released, seed)
        figures: Figures = {"dice_p_o": self._dice(model, releases.test.x)}
        if not releases.variant.is_original:
            if seed not in self._of_originals:
                self._of_originals[seed] = self._train(releases.train.x, seed)
            figures["dice_p_p"] = self._dice(model, releases.test_released)
            figures["dice_o_p"] = self._dice(self._of_originals[seed], releases.test_released)
        return figures

    def _train(self, joined: Tensor, seed: int) -> nn.Module:
        images, masks = split_masks(joined, self.num_mask_classes)
        return train_segmentation(images, masks, self.num_mask_classes, epochs=self.epochs, seed=seed, progress=True)

    def _dice(self, model: nn.Module, joined: Tensor) -> Estimate:
        with torch.no_grad():
            return bootstrap_mean(segmentation_dice(model, *split_masks(joined, self.num_mask_classes)))
