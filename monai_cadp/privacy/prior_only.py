# SPDX-License-Identifier: Apache-2.0
"""The control: nothing of the content is released."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_cadp.privacy.mechanism import Mechanism
from monai_cadp.privacy.randomness import random_normal

__all__ = ["PriorOnly"]


class PriorOnly(Mechanism):
    """Replace latents by fresh standard-normal noise; epsilon is 0.

    Proof. The result is a function of noise that is drawn without looking at the values of the latents, so its law is
    the same for every input. Whatever resemblance is left is carried by the condition: the control for every claim of
    kept content.

    Example:
        >>> PriorOnly()(torch.randn(5, 4)).shape
        torch.Size([5, 4])
    """

    epsilon = 0.0

    def _randomize(self, latents: Tensor, generator: torch.Generator | None) -> Tensor:
        return random_normal(latents, generator)
