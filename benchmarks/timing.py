# SPDX-License-Identifier: Apache-2.0
"""What is measured, and how: the fastest of many steps, which other work on the machine disturbs least."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from monai_cadp.engines import bits_per_dimension
from monai_cadp.networks import InvertibleNetwork

__all__ = ["fastest_step", "matmul_rate", "operations", "peak_bytes", "training_step"]

MATRIX = 2048


def fastest_step(step: Callable[[], object], seconds: float) -> float:
    """Return the seconds of the fastest step, after one that is not counted."""
    step()
    fastest, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < seconds:
        begin = time.perf_counter()
        step()
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest


def matmul_rate(seconds: float = 5.0) -> float:
    """Return the floating-point operations of a second in which large float32 matrices are multiplied."""
    a, b = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, MATRIX)
    return 2 * MATRIX**3 / fastest_step(lambda: a @ b, seconds)


def operations(step: Callable[[], object]) -> float | None:
    """Return the floating-point operations of matrix products and convolutions in a step.

    None where the step takes a gradient within itself, as denoising does: torch's counter cannot follow that.
    """
    try:
        with FlopCounterMode(display=False) as counter:
            step()
    except RuntimeError:
        return None
    return float(counter.get_total_flops())


def peak_bytes() -> float:
    """Return the most memory that this process has taken so far."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def training_step(network: InvertibleNetwork, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a step of maximum likelihood on these images."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    network.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        bits_per_dimension(network, images, labels).mean().backward()
        optimizer.step()

    return step
