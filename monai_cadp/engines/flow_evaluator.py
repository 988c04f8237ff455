# SPDX-License-Identifier: Apache-2.0
"""The Ignite engine that measures a network's likelihood on held-out images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.evaluator import Evaluator
from torch import Tensor, nn

from monai_cadp.engines.flow_batch import flow_batches, prepare_flow_batch
from monai_cadp.engines.input_noise import GaussianNoise
from monai_cadp.metrics import BitsPerDimension
from monai_cadp.networks import InvertibleNetwork
from monai_cadp.networks.devices import usable_device
from monai_cadp.networks.moments import Batches

__all__ = ["FlowEvaluator"]


class FlowEvaluator(Evaluator):
    r"""Mean negative log-likelihood in bits per dimension, under the same noise at every evaluation.

    Beside the metric ``bits_per_dimension`` there is ``bits_of_part_0`` and so on, where the network has several parts:
    those of its flows add up to it, and that of a refiner is the error of its denoiser on the same scale.

    Args:
        network: a network, or the trainer's average of networks.
        val_data_loader: yields dictionaries with ``image`` (B, C, \*spatial) and ``label``.
        noise: the noise of the training.
        seed: of the noise.
        device: where to evaluate.
        val_handlers: Ignite handlers.
    """

    def __init__(
        self,
        network: nn.Module,
        val_data_loader: Iterable[Mapping[str, Any]],
        *,
        noise: Callable[..., Tensor] | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        val_handlers: Sequence[Any] = (),
    ) -> None:
        self.network = network
        num_parts = self._module.num_parts
        self.noise = noise or GaussianNoise()
        self.seed = seed
        self.generator = torch.Generator()
        super().__init__(
            device=usable_device(device),
            val_data_loader=val_data_loader,
            prepare_batch=prepare_flow_batch,
            key_val_metric={"bits_per_dimension": BitsPerDimension(output_transform=lambda output: output[0]["bits"])},
            additional_metrics={
                f"bits_of_part_{part}": BitsPerDimension(output_transform=lambda output, p=part: output[0]["parts"][p])
                for part in range(num_parts if num_parts > 1 else 0)
            },
            metric_cmp_fn=lambda current, best: current < best,
            val_handlers=list(val_handlers),
            decollate=False,
        )
        self.add_event_handler(Events.STARTED, self._rewind)

    def batches(self) -> Batches:
        """Return the images of validation with their noise and conditions, as ``calibrate_latents`` wants them."""
        return flow_batches(self.data_loader, self.noise, self.seed)

    def _rewind(self) -> None:
        self.generator.manual_seed(self.seed)

    @torch.no_grad()
    def _iteration(self, engine: Engine, batchdata: Mapping[str, Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        network = self._module
        network.eval()
        x, condition = prepare_flow_batch(batchdata)
        x = self.noise(x, generator=self.generator).to(self.state.device)
        condition = None if condition is None else condition.to(self.state.device)
        parts = [log_prob.cpu() for log_prob in network.part_log_probs(x, condition)]
        parts = [log_prob / (-math.log(2) * network.num_latents) for log_prob in parts]
        # A list, as MONAI's handlers expect of an engine whose batches are decollated.
        return [{"bits": torch.stack(parts[: network.num_flows]).sum(0), "parts": parts}]

    @property
    def _module(self) -> InvertibleNetwork:
        # torch's average of networks wraps the network.
        network = getattr(self.network, "module", self.network)
        assert isinstance(network, InvertibleNetwork)
        return network
