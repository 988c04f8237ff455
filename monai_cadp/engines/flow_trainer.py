# SPDX-License-Identifier: Apache-2.0
"""The Ignite engine that trains an invertible network by maximum likelihood."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines.trainer import Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from monai_cadp.engines.flow_batch import bits_per_dimension, flow_batches, prepare_flow_batch, seed_loader
from monai_cadp.engines.input_noise import GaussianNoise
from monai_cadp.engines.ranks import add_gradients, own_part, share_network, sum_over_ranks
from monai_cadp.networks import ConditionalINN, InvertibleNetwork, fit_moments, new_event, refit_subspace
from monai_cadp.networks.devices import usable_device
from monai_cadp.networks.moments import Batches

__all__ = ["FlowTrainer", "NonFiniteLossError"]

WARMUP_STEPS = 100


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the last checkpoint is from before."""


class FlowTrainer(Trainer):
    r"""Minimise the negative log-likelihood in bits per dimension, with AdamW, a cosine rate and an average of weights.

    A new :class:`ConditionalINN` first gets its linear parts fitted to the data (:func:`fit_moments`). The rate rises
    over the first 100 steps and falls as a half cosine to zero at ``max_epochs`` or ``max_minutes``, whichever comes
    first. Every epoch draws its order, its noise and its augmentations from a seed of its own, so a run resumed at the
    end of an epoch from :meth:`state_dict` is the uninterrupted run, bit for bit (with ``max_minutes``, up to the
    clock).

    The run is recorded in the network, and in its average, before it looks at an image. Resumed, it keeps its identity
    there, and the less safe of both declarations holds for it.

    Args:
        network: trained in place; :attr:`averaged_network` has the average to use afterwards.
        train_data_loader: yields dictionaries with ``image`` (B, C, \*spatial) and ``label`` (B,) or (B, K).
        max_epochs: passes over the data.
        max_minutes: stop after this time, within an epoch if need be; a resumed run goes on with the time that it had
            left.
        learning_rate: highest rate.
        weight_decay: of AdamW.
        noise: called with images and ``generator``, adds the input noise.
        largest_gradient: norm to which the gradient of all parameters is clipped.
        moment_epochs: epochs from which the linear parts are fitted; more than one only adds something where every
            epoch draws images of its own.
        averaging: weight of the past in the exponential average of weights, reached gradually.
        training_data: how the images of this run are protected: "public" if anybody may see them, or "unprotected".
            What the network has learnt before stays in its record.
        reversible: recompute what couplings were given instead of storing it (:meth:`ConditionalINN.set_reversible`).
        seed: of orders and noise; public.
        device: where to train.
        train_handlers: Ignite handlers.

    Attributes:
        handler_states: what handlers know of earlier epochs, by name, with ``state_dict`` and ``load_state_dict``.

    Raises:
        ValueError: if a number is out of range, or the device cannot be used.
        NonFiniteLossError: while running, as soon as a loss is NaN or infinite, before the weights are touched.
    """

    declarable: tuple[str, ...] = ("public", "unprotected")
    kind = "flow"

    def __init__(
        self,
        network: InvertibleNetwork,
        train_data_loader: Iterable[Mapping[str, Any]],
        *,
        max_epochs: int,
        max_minutes: float | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        noise: Callable[..., Tensor] | None = None,
        largest_gradient: float = 1.0,
        moment_epochs: int = 1,
        averaging: float = 0.998,
        training_data: str = "unprotected",
        reversible: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
        train_handlers: Sequence[Any] = (),
    ) -> None:
        minutes = 1.0 if max_minutes is None else max_minutes
        if not (
            max_epochs >= 1
            and moment_epochs >= 1
            and 0 < learning_rate < math.inf
            and minutes > 0
            and largest_gradient > 0
        ):
            raise ValueError(
                f"The trainer got max_epochs {max_epochs}, moment_epochs {moment_epochs}, learning_rate "
                f"{learning_rate}, max_minutes {max_minutes}, largest_gradient {largest_gradient}; expected positive "
                "numbers."
            )
        if not (0 <= averaging < 1 and weight_decay >= 0):
            raise ValueError(
                f"The trainer got averaging {averaging} and weight_decay {weight_decay}; expected numbers of 0 or "
                "more, and averaging below 1."
            )
        if training_data not in self.declarable:
            raise ValueError(
                f"training_data is {training_data!r}; expected {' or '.join(map(repr, self.declarable))}: how the "
                "images of this run are protected."
            )
        if max_minutes is not None and idist.get_world_size() > 1:
            raise ValueError("max_minutes was given for several processes, whose clocks differ; give max_epochs alone.")
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ValueError(
                "The network has nothing that a training learns, neither couplings nor levels; expected even sizes of "
                "the images, or num_couplings above 0."
            )
        if isinstance(network, ConditionalINN):
            network.set_reversible(reversible)
        elif reversible:
            raise ValueError(f"The network is a {type(network).__name__}; only a ConditionalINN trains reversibly.")
        self.network = network.to(usable_device(device))
        self.averaged = AveragedModel(network, multi_avg_fn=_gradual_average(averaging), use_buffers=False)
        groups = [{"params": group} for group in self._parameter_groups()]
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)
        self.learning_rate, self.largest_gradient, self.seed = learning_rate, largest_gradient, seed
        self.max_minutes, self.moment_epochs = max_minutes, moment_epochs
        self.noise = noise or GaussianNoise()
        self.noise_generator: torch.Generator | None = None
        self.clock = 0.0
        self.handler_states: dict[str, Any] = {}
        self.protection = training_data
        self._runs_on = False
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=own_part(train_data_loader),
            prepare_batch=prepare_flow_batch,
        )
        # The whole of it, for the moments.
        self.data_loader = train_data_loader
        self.state.training_event, self.state.minutes = None, 0.0
        self.state_dict_user_keys.extend(["training_event", "minutes"])
        # Before the handlers: they may load the state of an earlier run.
        self.add_event_handler(Events.STARTED, self._start)
        self.attach_all(train_handlers)
        self.add_event_handler(Events.EPOCH_STARTED, self._record)
        self.add_event_handler(Events.EPOCH_STARTED, self._reseed)
        self.add_event_handler(Events.ITERATION_COMPLETED, self._stop_on_time)

    @property
    def progress(self) -> float:
        """Share of the training that is over, 0 to 1."""
        total = self.state.max_epochs * self.state.epoch_length
        done = self.state.iteration / total
        if self.max_minutes is not None:
            done = max(done, self.state.minutes / self.max_minutes)
        return min(done, 1.0)

    @property
    def averaged_network(self) -> InvertibleNetwork:
        """The network with averaged weights."""
        return cast(InvertibleNetwork, self.averaged.module)

    def parameters(self) -> dict[str, Any]:
        """Return what was chosen for this training, as plain data."""
        chosen = {"model": type(self.network).__name__, "learning_rate": self.learning_rate, "seed": self.seed}
        return chosen | {f"network_{name}": value for name, value in self.network.config.items()}

    def run(self) -> None:  # type: ignore[override]
        """Train; with the state of a training that is over, only run its handlers again, as at its end."""
        event = self.training_event()
        with self.network.learning(event), self.averaged_network.learning(event):
            # Ignite would begin anew.
            if self.state.iteration > 0 and self.state.epoch >= self.state.max_epochs:
                self.fire_event(Events.STARTED)
                self.fire_event(Events.COMPLETED)
            else:
                super().run()

    def training_event(self) -> dict[str, Any]:
        """Return the record of this run, which begins with the first call, or goes on with a loaded state."""
        earlier = self.state.training_event
        if earlier is None or not self._runs_on:
            self.state.training_event = new_event(self.kind, self.protection, self.guarantee, resumes=earlier)
            self._runs_on = True
        else:
            self.state.training_event = earlier | {"guarantee": self.guarantee}
        return self.state.training_event

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with a training, and with its record."""
        # A state of an older version has none, and its network says so.
        super().load_state_dict({"training_event": None, "minutes": 0.0, **state_dict})
        self._runs_on = False

    def attach_all(self, handlers: Sequence[Any]) -> FlowTrainer:
        """Attach handlers that were made after the trainer, and return the trainer."""
        for handler in handlers:
            handler.attach(self)
        return self

    def training_state(self) -> dict[str, Any]:
        """Return the objects whose state resumes the training, by the names that a checkpoint gives them."""
        # The trainer first: it may refuse the state of another one.
        return {"trainer": self, "network": self.network, "averaged": self.averaged, "optimizer": self.optimizer}

    def moment_batches(self) -> Callable[[], Iterator[tuple[Tensor, Tensor | None]]]:
        """Return a function that runs over the images from which linear parts are fitted, with their noise.

        Before the training and after it they are other draws, where every epoch draws images of its own.
        """
        seed = self.seed * 1_000_003 + (self.state.epoch + 1 if self.state.iteration else 0)
        return flow_batches(self.data_loader, self.noise, seed, self.moment_epochs)

    @property
    def guarantee(self) -> dict[str, Any] | None:
        """What the training promises to the people whose images it looks at; None where it promises nothing."""
        return None

    def finish(self, network: InvertibleNetwork, progress: bool = False, held_out: Batches | None = None) -> None:
        """Do what a network needs after its training.

        Args:
            network: with the weights to keep, changed in place.
            progress: show a progress bar, if it takes more than a moment.
            held_out: batches of images from which the network has not learnt, if there are any.
        """
        if isinstance(network, ConditionalINN):
            refit_subspace(network, self.moment_batches(), training_data=self.training_event(), progress=progress)

    def _iteration(self, engine: Engine, batchdata: Mapping[str, Any]) -> list[dict[str, float]]:  # type: ignore[override]
        warm = self.learning_rate * min(1.0, self.state.iteration / WARMUP_STEPS)
        for group, progress in zip(self.optimizer.param_groups, self._progress_of_groups(), strict=True):
            group["lr"] = warm * 0.5 * (1 + math.cos(math.pi * progress))
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        seen = self._backward(batchdata)
        self.optimizer.step()
        self.averaged.update_parameters(self.network)
        # A list, as MONAI's handlers expect of an engine whose batches are decollated.
        return [{**seen, "learning_rate": self.optimizer.param_groups[-1]["lr"]}]

    def _parameter_groups(self) -> list[list[nn.Parameter]]:
        """Return the parameters that are trained; each group has a rate of its own."""
        return [[parameter for parameter in self.network.parameters() if parameter.requires_grad]]

    def _progress_of_groups(self) -> list[float]:
        """Return the share of its training that is over, 0 to 1, of every group of parameters."""
        return [self.progress]

    def _backward(self, batchdata: Mapping[str, Any]) -> dict[str, float]:
        """Give every parameter its gradient; return what may be logged of the batch."""
        # Of all processes together.
        count, loss = torch.zeros(()), torch.zeros(())
        bits: Tensor | None = None
        if batchdata:
            x, condition = prepare_flow_batch(batchdata, self.state.device)
            bits = bits_per_dimension(self.network, self.noise(x, generator=self.noise_generator), condition)
            count, loss = torch.tensor(float(len(bits))), bits.detach().sum().cpu()
        sum_over_ranks([count, loss])
        loss /= count
        self._check_finite(loss.item(), "loss")
        if bits is not None:
            (bits.sum() / count.item()).backward()
        add_gradients(self.network.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.largest_gradient)
        self._check_finite(norm.item(), "gradient")
        return {"loss": loss.item()}

    def _check_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"The {what} became {value} at iteration {self.state.iteration}; the last checkpoint is from before: "
                "resume from it with a lower learning rate, or look for images that are not finite."
            )

    def _start(self) -> None:
        self.clock = time.monotonic()
        if self.state.iteration == 0:
            if isinstance(self.network, ConditionalINN) and self.network.knows_noise:
                self.network.input_noise.fill_(getattr(self.noise, "deviation", 0.0))
            self._fit_moments()
            # They may have been built from other random numbers.
            share_network(self.network)
            # The average starts as the network, and its buffers are those of the fit.
            self.averaged.module.load_state_dict(self.network.state_dict())

    def _fit_moments(self) -> None:
        if isinstance(self.network, ConditionalINN) and self.network.is_new:
            fit_moments(self.network, self.moment_batches(), training_data=self.training_event(), progress=True)

    def _record(self) -> None:
        """Record what this epoch looks at, before it does: whoever trains longer than planned looks more often."""
        for network in (self.network, self.averaged_network):
            network.add_training_events([self.training_event()])

    def _reseed(self) -> None:
        seed_loader(self.data_loader, self.seed * 1_000_003 + self.state.epoch)
        # The loader draws its order when an iterator is made.
        self.set_data(own_part(self.data_loader))
        if idist.get_world_size() > 1:
            # All processes draw the same order, and must not draw the same noise.
            seed = (self.seed * 1_000_003 + self.state.epoch) * 65_537 + idist.get_rank() + 1
            self.noise_generator = torch.Generator(self.state.device).manual_seed(seed)

    def _stop_on_time(self) -> None:
        now = time.monotonic()
        self.state.minutes += (now - self.clock) / 60
        self.clock = now
        if self.max_minutes is not None and self.progress >= 1.0:
            self.terminate()


def _gradual_average(averaging: float) -> Callable[[Any, Any, Any], None]:
    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        if not averaged[0].is_floating_point():  # FrEIA's permutations are parameters, and stay as they are
            return
        past = min(averaging, (1 + int(num_averaged)) / (10 + int(num_averaged)))
        torch._foreach_lerp_(list(averaged), list(current), 1 - past)

    return update
