# SPDX-License-Identifier: Apache-2.0
"""What is measured, and how: the fastest of many steps, which other work on the machine disturbs least."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import torch
from torch import Tensor

from monai_cadp.engines import bits_per_dimension
from monai_cadp.networks import InvertibleNetwork

__all__ = ["fastest_step", "peak_bytes", "training_step"]


def fastest_step(step: Callable[[], object], seconds: float) -> float:
    """Return the seconds of the fastest step, after one that is not counted."""
    step()
    fastest, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < seconds:
        begin = time.perf_counter()
        step()
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest


def peak_bytes() -> float:
    """Return the most memory that this process has taken so far."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def training_step(network: InvertibleNetwork, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a step of maximum likelihood on these images."""
    optimizer = torch.optim.AdamW(network.parameters())
    network.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        bits_per_dimension(network, images, labels).mean().backward()
        optimizer.step()

    return step
