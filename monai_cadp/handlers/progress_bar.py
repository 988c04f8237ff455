# SPDX-License-Identifier: Apache-2.0
"""How far a training has come."""

from __future__ import annotations

from ignite.engine import Engine
from ignite.handlers import ProgressBar as IgniteProgressBar

__all__ = ["ProgressBar"]


class ProgressBar:
    """Show epoch, iterations and the loss in bits per dimension."""

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        bar = IgniteProgressBar(desc="training")
        bar.attach(engine, output_transform=lambda output: {"bits": output["loss"]})
