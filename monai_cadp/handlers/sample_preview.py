# SPDX-License-Identifier: Apache-2.0
"""Pictures of what the network has learnt so far."""

from __future__ import annotations

from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from monai_cadp.data.image_grid import save_image_grid
from monai_cadp.engines.flow_trainer import FlowTrainer

__all__ = ["SamplePreview"]


class SamplePreview:
    """Save a grid of prior samples of the averaged network; the same latents every time, so that one sees them grow.

    Args:
        output_dir: folder of the pictures, ``samples_epoch_0001.png`` and so on.
        num_samples: samples of every class, or of the prior where there are no classes.
        every: number of epochs between pictures.

    Raises:
        ValueError: if a number is not positive.
    """

    def __init__(self, output_dir: str | Path, num_samples: int = 8, every: int = 1) -> None:
        if num_samples < 1 or every < 1:
            raise ValueError(f"num_samples is {num_samples} and every is {every}; expected positive numbers.")
        self.output_dir, self.num_samples, self.every = Path(output_dir), num_samples, every

    def attach(self, engine: Engine) -> None:
        """Attach to a :class:`FlowTrainer`."""
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self)

    @torch.no_grad()
    def __call__(self, engine: FlowTrainer) -> None:
        """Draw, decode and save."""
        network = engine.averaged_network
        space = network.condition_space
        rows = space.num_classes or 1
        count = rows * self.num_samples
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(count, network.num_latents, generator=generator).to(engine.state.device)
        condition = (
            torch.arange(rows).repeat_interleave(self.num_samples)
            if space.num_classes
            else space.sample(count, generator)
        )
        images = network.draw(z, None if condition is None else condition.to(z.device))
        save_image_grid(
            images.cpu(), self.output_dir / f"samples_epoch_{engine.state.epoch:04d}.png", columns=self.num_samples
        )
