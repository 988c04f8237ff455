# SPDX-License-Identifier: Apache-2.0
"""One training on several processes: every batch is shared out, and all of them take the same step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_cadp.networks import InvertibleNetwork

__all__ = ["add_gradients", "own_part", "share_network", "sum_over_ranks"]


def own_part(loader: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Return a loader of this process's part of every batch; of one process, the loader itself.

    All processes draw the same order, which comes from torch's generator, and take every n-th item of each batch.

    Args:
        loader: a ``DataLoader`` of a map-style data set, with the batch size of all processes together.

    Raises:
        ValueError: if there are several processes and the loader cannot be shared out.
    """
    if idist.get_world_size() == 1:
        return loader
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        raise ValueError(
            f"The loader is a {type(loader).__name__}; expected a DataLoader of a map-style data set, whose batches "
            "can be shared out among processes."
        )
    return DataLoader(
        loader.dataset,
        batch_sampler=_Part(loader.batch_sampler),  # type: ignore[arg-type]
        num_workers=loader.num_workers,
        collate_fn=partial(_collate, loader.collate_fn),
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
    )


def _collate(collate: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    """Of a batch with fewer items than processes, some get nothing."""
    return collate(items) if items else {}


def sum_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replace every tensor by its sum over all processes; of one process, do nothing."""
    if idist.get_world_size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    flat = idist.all_reduce(flat)  # type: ignore[assignment]
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


@torch.no_grad()
def share_network(network: InvertibleNetwork) -> None:
    """Give all processes the tensors of the first one, while they learn; of one process, do nothing."""
    if idist.get_world_size() > 1:
        for tensor in network.state_dict().values():
            if isinstance(tensor, Tensor):
                tensor.copy_(idist.broadcast(tensor.clone(), src=0))  # type: ignore[arg-type]
        network.derive()


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every parameter the sum of its gradients in all processes; of one process, do nothing."""
    if idist.get_world_size() == 1:
        return
    gradients = []
    for parameter in parameters:
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    sum_over_ranks(gradients)


class _Part:
    """Every n-th index of each batch."""

    def __init__(self, batches: Iterable[list[int]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        rank, count = idist.get_rank(), idist.get_world_size()
        for batch in self.batches:
            yield batch[rank::count]
