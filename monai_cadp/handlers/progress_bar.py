# SPDX-License-Identifier: Apache-2.0
"""How far a training has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ignite.distributed as idist
from ignite.engine import Engine
from ignite.handlers import ProgressBar as IgniteProgressBar

__all__ = ["ProgressBar"]


class ProgressBar:
    """Show epoch, iterations and the loss in bits per dimension, unless the loss is private."""

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        if idist.get_rank() == 0:
            bar = IgniteProgressBar(desc="training")
            bar.attach(engine, output_transform=_shown)


def _shown(output: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {"bits": output[0]["loss"]} if "loss" in output[0] else {}
