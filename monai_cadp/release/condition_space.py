# SPDX-License-Identifier: Apache-2.0
"""Which conditions come with the images of a privatizer, and what of them comes out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from monai_cadp.networks import ConditionSpace
from monai_cadp.privacy import AttributeResponse, RandomizedResponse

__all__ = ["ReleaseConditionSpace"]


class ReleaseConditionSpace(ConditionSpace):
    """The conditions of a network, with a default one, and a mechanism that randomizes them.

    Args:
        space: of the network.
        default: condition () or (condition_size,) of images that come with none, or None.
        label_mechanism: randomizes conditions; None where they are public.
        names: of the classes, in the order of their numbers; None where they have none.

    Example:
        >>> import torch
        >>> space = ReleaseConditionSpace(ConditionSpace(num_classes=3), None, RandomizedResponse(1.0, 3))
        >>> space.is_randomized, space.public_part(torch.tensor([2]))
        (True, None)
    """

    def __init__(
        self,
        space: ConditionSpace,
        default: Tensor | None,
        label_mechanism: RandomizedResponse | AttributeResponse | None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(space.num_classes, space.condition_size)
        self.default = default
        self.label_mechanism = label_mechanism
        self.names = names
        self.is_randomized = label_mechanism is not None

    def check(self, condition: Tensor | None, batch_size: int) -> None:
        """Raise ValueError or TypeError in one sentence if conditions do not belong to this space."""
        super().check(condition, batch_size)
        if self.label_mechanism is not None and condition is not None:
            condition = condition.float() if condition.is_floating_point() else condition.long()
            self.label_mechanism.check(condition)

    def public_part(self, condition: Tensor) -> Tensor | None:
        """Return what of conditions anybody may see, or None: what the mechanism leaves as it is."""
        return condition if self.label_mechanism is None else self.label_mechanism.public_part(condition)
