# SPDX-License-Identifier: Apache-2.0
"""Several yes-or-no attributes, of which some may be denied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from monai_cadp.privacy.checks import checked_epsilon
from monai_cadp.privacy.mechanism import Mechanism
from monai_cadp.privacy.randomized_response import RandomizedResponse
from monai_cadp.privacy.threshold import equal_share

__all__ = ["AttributeResponse"]


class AttributeResponse(Mechanism):
    r"""Leave chosen attributes of a sample as they are, and answer each of the m others by randomized response.

    Proof. The chosen ones are declared public: the promise compares samples that share them. Each of the others is
    answered by :class:`RandomizedResponse` among two classes, with random draws of its own and :math:`\epsilon'` each,
    where :math:`m \epsilon' \le \epsilon` holds for the exact values, as rational numbers. An outcome's probability is
    the product of those of its m answers, and each of these changes by a factor of at most
    :math:`e^{\epsilon'}` from one sample to the other; so the product changes by at most
    :math:`e^{m \epsilon'} \le e^\epsilon`.

    Args:
        epsilon: of all others together, above 0; at most 40 for each.
        num_attributes: number of attributes, 1 or more.
        kept: indices of the chosen ones; not all of them.

    Raises:
        ValueError: if a number is out of its range, or an index stands twice.

    References:
        Warner: Randomized response, Journal of the American Statistical Association 60, 1965.

    Example:
        >>> AttributeResponse(epsilon=40.0, num_attributes=3, kept=[0])(torch.tensor([[0.0, 1.0, 0.0]]))
        tensor([[0., 1., 0.]])
    """

    def __init__(self, epsilon: float, num_attributes: int, kept: Sequence[int] = ()) -> None:
        self.epsilon = checked_epsilon(epsilon)
        if isinstance(num_attributes, bool) or not isinstance(num_attributes, int) or num_attributes < 1:
            raise ValueError(f"num_attributes is {num_attributes!r}; expected an integer of 1 or more.")
        self.num_attributes, self.kept = num_attributes, sorted(kept)
        self.randomized = [index for index in range(num_attributes) if index not in self.kept]
        if len(self.kept) + len(self.randomized) != num_attributes or not self.randomized:
            raise ValueError(
                f"kept is {list(kept)} for {num_attributes} attributes; expected different indices from 0, and one "
                "attribute at least that is not kept."
            )
        self.response = RandomizedResponse(equal_share(self.epsilon, len(self.randomized)), 2)

    def parameters(self) -> dict[str, Any]:
        """Return the number of attributes, which are kept, and the integer by which words are compared."""
        return {"num_attributes": self.num_attributes, "kept": self.kept, "threshold": str(self.response.threshold)}

    def public_part(self, attributes: Tensor) -> Tensor:
        """Return the chosen ones (B, k) of attributes (B, num_attributes)."""
        return attributes[:, self.kept]

    def _prepare(self, latents: Tensor) -> Tensor:
        if not isinstance(latents, Tensor) or not latents.is_floating_point():
            kind = latents.dtype if isinstance(latents, Tensor) else type(latents).__name__
            raise TypeError(f"The attributes are of type {kind}; expected a float tensor (B, {self.num_attributes}).")
        if latents.ndim != 2 or latents.shape[1] != self.num_attributes:
            raise ValueError(f"The attributes have shape {tuple(latents.shape)}; expected (B, {self.num_attributes}).")
        if type(latents) is not Tensor:
            latents = latents.as_subclass(Tensor)
        if not torch.jit.is_tracing() and not bool(((latents == 0) | (latents == 1)).all()):
            raise ValueError("The attributes hold something besides 0 and 1; expected 1 for yes and 0 for no.")
        # A traced module cannot raise; there anything becomes yes or no, and the proof holds.
        return (latents > 0.5).long()

    def _randomize(self, latents: Tensor, generator: torch.Generator | None) -> Tensor:
        answered = latents.clone()
        asked = latents[:, self.randomized]
        answered[:, self.randomized] = self.response(asked.reshape(-1), generator).reshape(asked.shape)
        return answered.float()
