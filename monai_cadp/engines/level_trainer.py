# SPDX-License-Identifier: Apache-2.0
"""The Ignite engine that trains the levels of a network side by side, each for as long as it learns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_cadp.engines.flow_batch import flow_batches, prepare_flow_batch
from monai_cadp.engines.flow_trainer import FlowTrainer
from monai_cadp.engines.ranks import add_gradients, sum_over_ranks
from monai_cadp.networks import (
    ConditionalINN,
    InvertibleNetwork,
    calibrate_edges,
    calibrate_format,
    calibrate_histogram,
    calibrate_latents,
    calibrate_spectrum,
    refit_moments,
)
from monai_cadp.networks.moments import Batches

__all__ = ["LevelTrainer"]

FEWEST_IMAGES = 4


class LevelTrainer(FlowTrainer):
    r"""Train coarse image, levels and refiners of a network at once, each with images and an end of its own.

    The parts of a :class:`ConditionalINN` share no parameter. A fine level learns from few images at a time and never
    overfits; a coarse one needs many and overfits a few hundred images within minutes. So part p sees
    ``images_per_part[p]`` images of a batch, its rate falls to zero at the share ``ends[p]`` of the training, and what
    time it leaves is the finer levels'. Gradients are clipped part by part.

    Details are predicted from coarser images that are drawn, and no coarser image that is drawn has just the noise of
    the training images: in training it has between none and ``context_noise`` times as much.

    Augmentation helps the likelihood, and makes samples vary more than the images do. So a finished network gets the
    moments of the coarse image from the images as they are (:func:`refit_moments`). Each part is calibrated on the
    images of validation, if there are any (:func:`calibrate_latents`), and what is drawn gets the grain, the range, the
    edges, the format and the histogram of the images as they are (:func:`calibrate_spectrum`, :func:`calibrate_edges`,
    :func:`calibrate_format`, :func:`calibrate_histogram`).

    Args:
        network: as for :class:`FlowTrainer`; one with several parts.
        train_data_loader: as for :class:`FlowTrainer`.
        images_per_part: coarse image first; None takes a batch for the coarse image, the first level and the refiners,
            and half as many (in 3D a quarter) for every finer level, but at least four.
        ends: share of the training after which a part is done, above 0 and at most 1; None for 1 everywhere.
        context_noise: see above.
        plain_data_loader: the same images without augmentation; None to keep the moments of the augmented ones.
        options: all others of :class:`FlowTrainer`.

    Raises:
        ValueError: if a number is out of range, or there is not one for every part.
    """

    def __init__(
        self,
        network: Any,
        train_data_loader: Any,
        *,
        images_per_part: Sequence[int] | None = None,
        ends: Sequence[float] | None = None,
        context_noise: float = 2.0,
        plain_data_loader: Iterable[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        ends = [1.0] * network.num_parts if ends is None else list(ends)
        if len(ends) != network.num_parts or not all(0 < end <= 1 for end in ends):
            raise ValueError(f"ends is {ends}; expected {network.num_parts} numbers above 0 and at most 1.")
        counts = None if images_per_part is None else list(images_per_part)
        if counts is not None and (len(counts) != network.num_parts or min(counts) < 1):
            raise ValueError(f"images_per_part is {counts}; expected {network.num_parts} positive numbers.")
        if not context_noise >= 0:
            raise ValueError(f"context_noise is {context_noise}; expected a number of at least 0.")
        self.ends, self.images_per_part, self.context_noise = ends, counts, context_noise
        self.plain_data_loader = plain_data_loader
        super().__init__(network, train_data_loader, **options)

    def finish(self, network: InvertibleNetwork, progress: bool = False, held_out: Batches | None = None) -> None:
        """Do what a network needs after its training, as :class:`FlowTrainer` does, refit moments and calibrate."""
        super().finish(network, progress)
        if not isinstance(network, ConditionalINN):
            return
        if self.plain_data_loader is not None:
            batches = flow_batches(self.plain_data_loader, self.noise, self.seed)
            refit_moments(network, batches, training_data=self.training_event(), progress=progress)
        if held_out is not None and network.knows_noise:
            calibrate_latents(network, held_out, training_data=self.training_event(), progress=progress)
        if self.plain_data_loader is not None and network.knows_noise:
            plain = flow_batches(self.plain_data_loader, _without_noise, self.seed)
            event = self.training_event()
            calibrate_spectrum(network, plain, training_data=event, progress=progress)
            if len(network.spatial_shape) == 2:
                calibrate_edges(network, plain, training_data=event, progress=progress)
            calibrate_format(network, plain, training_data=event, progress=progress)
            calibrate_histogram(network, plain, training_data=event, progress=progress)

    def _parameter_groups(self) -> list[list[nn.Parameter]]:
        groups: list[list[nn.Parameter]] = [[] for _ in self.ends]
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                groups[self.network.part_of(name)].append(parameter)
        return groups

    def _progress_of_groups(self) -> list[float]:
        return [min(1.0, self.progress / end) for end in self.ends]

    def _counts(self, batch_size: int) -> list[int]:
        """Return how many images of a batch each part sees now."""
        counts = self.images_per_part
        if counts is None:
            fewer = 2 ** (len(self.network.spatial_shape) - 1)
            counts = [max(FEWEST_IMAGES, batch_size // fewer ** max(part - 1, 0)) for part in range(len(self.ends))]
            counts[self.network.num_flows :] = [batch_size] * (self.network.num_parts - self.network.num_flows)
        return [0 if self.progress > end else min(n, batch_size) for n, end in zip(counts, self.ends, strict=True)]

    def _backward(self, batchdata: Mapping[str, Any]) -> dict[str, float]:
        sums, numbers = torch.zeros(len(self.ends)), torch.zeros(len(self.ends))
        parts: list[Tensor] = []
        if batchdata:
            x, condition = prepare_flow_batch(batchdata, self.state.device)
            noisy = self.noise(x, generator=self.noise_generator)
            share = torch.rand(len(x), generator=self.noise_generator, device=x.device) * self.context_noise
            context = x + share.reshape(-1, *(1 for _ in x.shape[1:])) * (noisy - x)
            counts = self._counts(len(x))
            parts = self.network.part_log_probs(noisy, condition, num_samples=counts, context=context)
            parts = [log_prob / (-math.log(2) * self.network.num_latents) for log_prob in parts]
            sums = torch.stack([part.detach().sum().cpu() for part in parts])
            numbers = torch.tensor([float(len(part)) for part in parts])
        sum_over_ranks([sums, numbers])
        means = sums / numbers.clamp(min=1)
        self._check_finite(float(means.sum()), "loss")
        # Bits per dimension, in which refiners have no share.
        loss = float(means[: self.network.num_flows].sum())
        # Of a process whose part of the last batch is empty, there are none.
        losses = [part.sum() / n for part, n in zip(parts, numbers.tolist(), strict=bool(parts)) if len(part)]
        if losses:
            torch.stack(losses).sum().backward()
        add_gradients(self.network.parameters())
        for group in self.optimizer.param_groups:
            norm = torch.nn.utils.clip_grad_norm_(group["params"], self.largest_gradient)
            self._check_finite(norm.item(), "gradient")
        return {"loss": loss}


def _without_noise(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    return x
