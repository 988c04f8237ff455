# SPDX-License-Identifier: Apache-2.0
"""The mean likelihood of a data set, as an Ignite metric."""

from __future__ import annotations

from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from torch import Tensor

__all__ = ["BitsPerDimension"]


class BitsPerDimension(Metric):
    """Mean over images of their bits per dimension, which an engine gives as tensors (B,).

    Raises:
        NotComputableError: if no image came.

    Example:
        >>> import torch
        >>> metric = BitsPerDimension()
        >>> metric.update(torch.tensor([1.0, 2.0, 3.0]))
        >>> metric.compute()
        2.0
    """

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all images."""
        self._sum = 0.0
        self._count = 0

    @reinit__is_reduced
    def update(self, output: Tensor) -> None:
        """Take the bits (B,) of a batch."""
        self._sum += output.double().sum().item()
        self._count += len(output)

    @sync_all_reduce("_sum", "_count")
    def compute(self) -> float:
        """Return the mean over all images and processes."""
        if self._count == 0:
            raise NotComputableError("No image came to be measured; expected at least one.")
        return self._sum / self._count
