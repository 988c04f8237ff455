# SPDX-License-Identifier: Apache-2.0
"""What volumes that were released with their masks are still good for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_cadp.data import split_masks
from monai_cadp.metrics import MaskFeatures, segmentation_dice, train_segmentation, within_class_correlation
from monai_cadp.networks.devices import usable_device
from monai_cadp.release import Releaser, release_batches
from monai_cadp.studies.evaluation import Evaluation

__all__ = ["SegmentationEvaluation"]

BATCH_SIZE = 8


class SegmentationEvaluation(Evaluation):
    """Train a segmentation network on released volumes and test it on originals; measure what of masks releases keep.

    Args:
        train_images: originals with their masks as further channels (:class:`~monai_cadp.data.WithMasks`), whose
            releases the segmentation learns from.
        test_images: further ones, never seen by the network.
        num_mask_classes: with the background.
        spacing: of the public grid, in millimetres.
        device: where segmentation networks are trained and content is measured.
        epochs: of the segmentation.
    """

    unit = "volume"

    def __init__(
        self,
        train_images: Dataset,
        test_images: Dataset,
        *,
        num_mask_classes: int,
        spacing: float,
        device: torch.device | str = "cpu",
        epochs: int = 40,
    ) -> None:
        self.train_images, self.test_images = train_images, test_images
        self.num_mask_classes, self.device, self.epochs = num_mask_classes, usable_device(device), epochs
        names = [f"{kind}_{label}" for label in range(1, num_mask_classes) for kind in ("volume", "intensity")]
        self.features = MaskFeatures(names, num_mask_classes, spacing)
        self.original, self.test = _stack(train_images).to(self.device), _stack(test_images).to(self.device)

    def originals(self) -> dict[str, float]:
        """Return what originals reach: the ceiling."""
        return {"dice": self._dice(self.original)}

    def measure(self, releaser: Releaser, name: str) -> dict[str, float]:
        """Return the Dice on originals, and the correlation of volume and intensity of every class."""
        train = self._release(releaser, self.train_images, f"{name}: training volumes")
        released = self._release(releaser, self.test_images, f"{name}: test volumes")
        one_class = torch.zeros(len(released), dtype=torch.long, device=released.device)
        kept = within_class_correlation(self.features(self.test), self.features(released), one_class).tolist()
        figures = {f"kept_{feature}": round(value, 3) for feature, value in zip(self.features.names, kept, strict=True)}
        return {"dice": self._dice(train)} | figures

    def _release(self, releaser: Releaser, images: Dataset, description: str) -> Tensor:
        parts = release_batches(releaser, images, batch_size=BATCH_SIZE, description=description)
        return torch.cat([released for released, _ in parts]).to(self.device)

    def _dice(self, volumes: Tensor) -> float:
        images, masks = split_masks(volumes, self.num_mask_classes)
        model = train_segmentation(
            images, masks, self.num_mask_classes, epochs=self.epochs, batch_size=BATCH_SIZE, progress=True
        )
        return round(float(segmentation_dice(model, *split_masks(self.test, self.num_mask_classes)).mean()), 4)


def _stack(images: Dataset) -> Tensor:
    return torch.stack([images[index]["image"] for index in range(len(images))])  # type: ignore[arg-type]
