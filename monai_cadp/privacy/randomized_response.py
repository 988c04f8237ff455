# SPDX-License-Identifier: Apache-2.0
"""Labels that may be denied."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monai_cadp.privacy.checks import checked_epsilon
from monai_cadp.privacy.mechanism import Mechanism
from monai_cadp.privacy.randomness import random_below, random_words
from monai_cadp.privacy.threshold import acceptance_threshold

__all__ = ["RandomizedResponse"]


class RandomizedResponse(Mechanism):
    r"""Keep a label with probability about :math:`e^\epsilon / (e^\epsilon + K - 1)`, or release one of the others.

    Proof. This is subset selection among K labels in which an input marks one, itself: see ``acceptance_threshold``,
    with N = K and m = 1. A uniform word below T keeps the label; otherwise the r-th of the K - 1 others is released,
    r uniform: r itself below the label, r + 1 from the label on.

    Args:
        epsilon: above 0 and at most 40.
        num_classes: K, 2 or more.

    Raises:
        ValueError: if a number is out of its range.

    References:
        Kairouz, Oh, Viswanath: Extremal mechanisms for local differential privacy, JMLR 17, 2016, section 4.

    Example:
        >>> RandomizedResponse(epsilon=40.0, num_classes=3)(torch.tensor([2, 0]))
        tensor([2, 0])
    """

    def __init__(self, epsilon: float, num_classes: int) -> None:
        self.epsilon = checked_epsilon(epsilon)
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or not 2 <= num_classes <= 2**31:
            raise ValueError(f"num_classes is {num_classes!r}; expected an integer from 2 to 2^31.")
        self.num_classes = num_classes
        self.threshold = acceptance_threshold(self.epsilon, num_classes, 1)

    def parameters(self) -> dict[str, Any]:
        """Return the number of classes, and the integer by which words are compared."""
        return {"num_classes": self.num_classes, "threshold": str(self.threshold)}

    def public_part(self, labels: Tensor) -> None:
        """Return None: nothing of labels (B,) is public."""

    def _prepare(self, latents: Tensor) -> Tensor:
        kinds = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
        if not isinstance(latents, Tensor) or latents.dtype not in kinds:
            kind = latents.dtype if isinstance(latents, Tensor) else type(latents).__name__
            raise TypeError(f"The labels are of type {kind}; expected an integer tensor (B,).")
        if latents.ndim != 1:
            raise ValueError(f"The labels have shape {tuple(latents.shape)}; expected (B,).")
        if type(latents) is not Tensor:
            latents = latents.as_subclass(Tensor)
        labels = latents.long()
        if not torch.jit.is_tracing() and bool(((labels < 0) | (labels >= self.num_classes)).any()):
            raise ValueError(f"The labels hold an unknown class; expected numbers from 0 to {self.num_classes - 1}.")
        # A traced module cannot raise; there an unknown label becomes a known one, and the proof holds.
        return labels.remainder(self.num_classes)

    def _randomize(self, latents: Tensor, generator: torch.Generator | None) -> Tensor:
        keep = random_words(latents, 1, generator)[:, 0] < self.threshold - 2**63
        others = random_below(latents, self.num_classes - 1, generator)
        return torch.where(keep, latents, others + (others >= latents))
