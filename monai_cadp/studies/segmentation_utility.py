# SPDX-License-Identifier: Apache-2.0
"""What a segmentation network learns from images that were released with their masks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from monai_cadp.data import split_masks
from monai_cadp.metrics import Estimate, bootstrap_mean, segmentation_dice, train_segmentation
from monai_cadp.studies.measurements import Figures, LearnedMeasurement, Releases
from monai_cadp.studies.paper_settings import PaperSettings

__all__ = ["SegmentationUtility"]


class SegmentationUtility(LearnedMeasurement):
    """A segmentation network in the settings of the paper (:class:`~monai_cadp.studies.paper_settings.PaperSettings`).

    Images hold their masks as further channels (:class:`~monai_cadp.data.WithMasks`), so that
    the mask of a release is a part of it, and covered by its budget.

    Args:
        num_mask_classes: with the background.
        epochs: of the network.
    """

    def __init__(self, num_mask_classes: int, epochs: int = 20) -> None:
        self.num_mask_classes, self.epochs = num_mask_classes, epochs
        self._settings = PaperSettings("dice", self._train, self._dice)

    def learn(self, releases: Releases, seed: int) -> Callable[[Releases], Figures]:
        """Train the network; figures are the mean Dice over test images with its interval, in every setting."""
        return self._settings(releases, seed)

    def _train(self, joined: Tensor, y: Tensor, seed: int) -> nn.Module:
        images, masks = split_masks(joined, self.num_mask_classes)
        return train_segmentation(images, masks, self.num_mask_classes, epochs=self.epochs, seed=seed, progress=True)

    def _dice(self, model: nn.Module, joined: Tensor, y: Tensor, people: Tensor | None) -> Estimate:
        with torch.no_grad():
            dice = segmentation_dice(model, *split_masks(joined, self.num_mask_classes))
        return bootstrap_mean(dice, people=people)
