# SPDX-License-Identifier: Apache-2.0
"""Batches of a loader, noise added, as often as a fit needs them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from monai.data.utils import set_rnd
from monai.utils import MAX_SEED
from torch import Tensor

from monai_cadp.data.loader_batch import prepare_flow_batch
from monai_cadp.networks import InvertibleNetwork

__all__ = ["bits_per_dimension", "flow_batches", "prepare_flow_batch", "seed_loader"]

# Four gigabytes.
VALUES_KEPT = 2**30


def flow_batches(
    loader: Iterable[Mapping[str, Any]], noise: Callable[..., Tensor], seed: int = 0, epochs: int = 1
) -> Callable[[], Iterator[tuple[Tensor, Tensor | None]]]:
    """Return a function that runs over some epochs of a loader, the same images with the same noise at every pass, as
    ``fit_moments`` wants it; what fits into memory is read once."""
    kept: list[tuple[Tensor, Tensor | None]] = []
    complete = False

    def batches() -> Iterator[tuple[Tensor, Tensor | None]]:
        nonlocal complete
        if complete:
            yield from kept
            return
        seed_loader(loader, seed)
        generator = torch.Generator().manual_seed(seed)
        num_values = 0
        kept.clear()
        for batch in chain.from_iterable(loader for _ in range(epochs)):
            image, condition = prepare_flow_batch(batch)
            image = noise(image, generator=generator)
            num_values += image.numel()
            if num_values <= VALUES_KEPT:
                kept.append((image, condition))
            yield image, condition
        complete = num_values <= VALUES_KEPT

    return batches


def seed_loader(loader: Iterable[Mapping[str, Any]], seed: int) -> None:
    """Make what a loader draws next depend on a seed alone: its order and its random transforms."""
    # The order comes from torch's own generator, and so do the seeds of workers.
    torch.manual_seed(seed)
    set_rnd(getattr(loader, "dataset", None), seed % MAX_SEED)


def bits_per_dimension(network: InvertibleNetwork, x: Tensor, condition: Tensor | None) -> Tensor:
    """Return the negative log-likelihood (B,) of images in bits per dimension."""
    return network.log_prob(x, condition) / (-math.log(2) * network.num_latents)
