# SPDX-License-Identifier: Apache-2.0
"""What releases keep, measured by an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ignite.metrics.metric import reinit__is_reduced
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric

__all__ = ["ReleaseMetric"]


class ReleaseMetric(IgniteMetricHandler):
    """Give a metric releases, originals and conditions at every iteration; its figure is in ``engine.state.metrics``.

    No details are kept in the engine's state, where other handlers would write them to files.

    Args:
        metric: called as ``metric(releases, originals, condition=...)``, such as
            :class:`~monai_cadp.metrics.WithinClassCorrelation`.
        output_transform: from the engine's output to (releases, originals, condition), such as
            ``monai.handlers.from_engine(["released", "image", "label"])``.

    Example:
        >>> import torch
        >>> from ignite.engine import Engine
        >>> from monai_cadp.metrics import WithinClassCorrelation, shape_features
        >>> engine = Engine(lambda engine, images: (images, images, torch.zeros(len(images))))
        >>> ReleaseMetric(WithinClassCorrelation(shape_features)).attach(engine, "kept")
        >>> engine.run(torch.rand(4, 25, 1, 8, 8)).metrics["kept"]
        tensor([1., 1., 1., 1.])
    """

    def __init__(self, metric: CumulativeIterationMetric, output_transform: Callable = lambda output: output) -> None:
        super().__init__(metric, output_transform=output_transform, save_details=False)

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Take releases, originals and conditions of a batch."""
        released, original, condition = output
        self.metric_fn(released, original, condition=condition)
