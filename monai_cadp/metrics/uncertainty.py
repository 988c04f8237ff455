# SPDX-License-Identifier: Apache-2.0
"""How unsure a classifier is, by Monte-Carlo dropout."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["dropout_uncertainty"]

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


@torch.no_grad()
def dropout_uncertainty(
    model: nn.Module, images: Tensor, *, num_samples: int = 20, seed: int = 0, several: bool = False
) -> Tensor:
    r"""Return the entropy of a classifier's mean prediction over random dropouts, as a share of the largest one.

    Args:
        model: a classifier with dropout, images to logits (B, K); left in evaluation mode.
        images: (n, C, \*spatial).
        num_samples: dropouts that are drawn.
        seed: of the dropouts.
        several: whether logits are of labels of which several may apply, whose entropies are averaged.

    Returns:
        A number (n,) from 0, sure, to 1, undecided between all classes, or about all labels.

    Raises:
        ValueError: if the model has no dropout.

    References:
        Gal, Ghahramani: Dropout as a Bayesian approximation, ICML 2016.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
        >>> dropout_uncertainty(model, torch.rand(5, 1, 4, 4)).shape
        torch.Size([5])
    """
    dropouts = [module for module in model.modules() if isinstance(module, DROPOUTS)]
    if not dropouts:
        raise ValueError("The classifier has no dropout; its uncertainty cannot be told by it.")
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in dropouts:
            module.train()
        mean = torch.stack([_probabilities(model, images, several) for _ in range(num_samples)]).mean(0)
    model.eval()
    return torch.special.entr(mean).sum(1).mean(1) / math.log(mean.shape[1])


def _probabilities(model: nn.Module, images: Tensor, several: bool) -> Tensor:
    """Return probabilities (n, K, 1) of classes, or (n, 2, K) that labels apply and do not."""
    logits = torch.cat([model(x) for x in images.split(64)])
    return torch.stack([logits.sigmoid(), (-logits).sigmoid()], dim=1) if several else logits.softmax(1)[:, :, None]
