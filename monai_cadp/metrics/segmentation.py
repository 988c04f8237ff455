# SPDX-License-Identifier: Apache-2.0
"""A small segmentation network: what of a mask can still be learnt from images that were released with theirs."""

from __future__ import annotations

import torch
from monai.losses import DiceCELoss
from monai.metrics import compute_dice
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.nn.functional import pad
from tqdm import tqdm

from monai_cadp.data.masks import one_hot_masks

__all__ = ["segmentation_dice", "train_segmentation"]

WIDTHS = (16, 32, 64, 128, 128)
# Pixels a side, on the coarsest level.
COARSEST = 4


def train_segmentation(
    images: Tensor,
    masks: Tensor,
    num_classes: int,
    *,
    epochs: int = 20,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: bool = False,
) -> nn.Module:
    r"""Train a small U-Net with Adam and a rate that falls linearly; nothing is selected on a test set.

    Args:
        images: (n, C, \*spatial), in two or three dimensions; the network is trained where they are.
        masks: classes (n, 1, \*spatial), 0 for the background.
        num_classes: with the background.
        epochs: passes over the images.
        batch_size: images in a step.
        learning_rate: at the beginning.
        seed: of weights and order.
        progress: show a progress bar.

    Returns:
        The network in evaluation mode: images to logits (B, num_classes, \*spatial).

    Raises:
        ValueError: if shapes do not fit, or a class is unknown.

    References:
        Ronneberger, Fischer, Brox: U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015.
    """
    one_hot_masks(images, masks, num_classes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _Segmentation(images.shape[1:], num_classes).to(images.device)
        loss = DiceCELoss(to_onehot_y=True, softmax=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
        steps = epochs * -(-len(images) // batch_size)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=steps)
        model.train()
        for _ in tqdm(range(epochs), desc="segmentation", disable=not progress):
            for batch in torch.randperm(len(images)).split(batch_size):
                optimizer.zero_grad(set_to_none=True)
                loss(model(images[batch]), masks[batch]).backward()
                optimizer.step()
                schedule.step()
    return model.eval()


@torch.no_grad()
def segmentation_dice(model: nn.Module, images: Tensor, masks: Tensor) -> Tensor:
    r"""Return the mean Dice of every image over the classes but the background.

    A class that is neither in the mask nor found counts as 1, one that is only found as 0. The mean over images comes
    with an interval from :func:`~monai_cadp.metrics.bootstrap_mean`.

    Args:
        model: images to logits (B, K, \*spatial).
        images: (n, C, \*spatial).
        masks: classes (n, 1, \*spatial), 0 for the background.

    Returns:
        Dice scores (n,), 0 to 1.

    Raises:
        ValueError: if shapes do not fit, or a class is unknown.

    Example:
        >>> masks = torch.randint(2, (5, 1, 8, 8))
        >>> perfect = lambda images: torch.cat([0.5 - images, images - 0.5], dim=1)
        >>> segmentation_dice(perfect, masks.float(), masks)
        tensor([1., 1., 1., 1., 1.])
    """
    scores = []
    for x, y in zip(images.split(16), masks.split(16), strict=True):
        logits = model(x)
        found, true = (one_hot_masks(x, classes, logits.shape[1]) for classes in (logits.argmax(1, keepdim=True), y))
        scores.append(compute_dice(found, true, include_background=False, ignore_empty=False).mean(1))
    return torch.cat(scores)


class _Segmentation(nn.Module):
    """A U-Net for images of any size, of as many levels as their size allows."""

    def __init__(self, shape: torch.Size, num_classes: int) -> None:
        super().__init__()
        channels, *sizes = shape
        levels = 1
        while levels + 1 < len(WIDTHS) and min(sizes) >= COARSEST * 2 ** (levels + 1):
            levels += 1
        self.multiple = 2**levels
        # Instance norms: no image influences another.
        self.network = UNet(
            len(sizes), channels, num_classes, WIDTHS[: levels + 1], (2,) * levels, num_res_units=2, norm="INSTANCE"
        )

    def forward(self, x: Tensor) -> Tensor:
        sizes = x.shape[2:]
        missing = [(0, -size % self.multiple) for size in reversed(sizes)]
        logits = self.network(pad(x, [side for pair in missing for side in pair]))
        return logits[(slice(None), slice(None), *(slice(size) for size in sizes))]
