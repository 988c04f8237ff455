# SPDX-License-Identifier: Apache-2.0
"""A residual network with augmentation: a classifier for hundreds of real images of 64 x 64 and more."""

from __future__ import annotations

from monai.networks.nets import ResNet
from monai.transforms import RandAffine
from torch import Tensor, nn

from monai_cadp.metrics.classifier import train_classifier

__all__ = ["train_residual_classifier"]

WIDTHS = (16, 32, 64, 128)


def train_residual_classifier(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    epochs: int = 20,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: bool = False,
) -> nn.Module:
    r"""Train MONAI's ResNet with four blocks on images that are turned, moved and scaled a little, never flipped.

    Args:
        images: (n, C, H, W); the classifier is trained where they are.
        labels: classes (n,), or yes-or-no labels (n, num_classes) of 1 and 0, of which several may apply.
        num_classes: number of classes, or of labels.
        epochs: passes over the images.
        batch_size: images in a step.
        learning_rate: of Adam at the beginning.
        seed: of weights, order, augmentation and dropout.
        progress: show a progress bar.

    Returns:
        The classifier in evaluation mode: images to logits (B, num_classes).

    References:
        Deep residual learning for image recognition, CVPR 2016 (ResNet).

    Example:
        >>> import torch
        >>> model = train_residual_classifier(torch.rand(8, 1, 64, 64), torch.arange(8) % 2, 2, epochs=1)
        >>> model(torch.rand(3, 1, 64, 64)).shape
        torch.Size([3, 2])
    """
    _, channels, *sizes = images.shape

    def network() -> nn.Module:
        features = ResNet(
            "basic",
            [1, 1, 1, 1],
            list(WIDTHS),
            spatial_dims=2,
            n_input_channels=channels,
            conv1_t_stride=2,
            feed_forward=False,
        )
        return nn.Sequential(features, nn.Dropout(0.2), nn.Linear(WIDTHS[-1], num_classes))

    augmentation = RandAffine(
        prob=1.0,
        rotate_range=0.15,
        translate_range=[size / 16 for size in sizes],
        scale_range=0.12,
        padding_mode="border",
    )
    return train_classifier(
        images,
        labels,
        num_classes,
        network=network,
        augmentation=augmentation.set_random_state(seed),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        progress=progress,
    )
