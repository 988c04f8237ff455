# SPDX-License-Identifier: Apache-2.0
"""What every network offers: encode, decode and likelihood of checked inputs."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from monai_cadp.networks.condition import ConditionSpace, check_samples
from monai_cadp.networks.training_record import as_events, as_texts, derived_event, new_event
from monai_cadp.networks.weights_snapshot import WeightsSnapshot

__all__ = ["InvertibleNetwork"]

UNRECORDED = "a change of weights outside of every recorded training"
OLDER = "a checkpoint of an older version"


class _RecordedFromTheStart(ABCMeta):
    """Take note of the weights as soon as the last constructor is through."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        network = super().__call__(*args, **options)
        network._seal()
        return network


class InvertibleNetwork(nn.Module, metaclass=_RecordedFromTheStart):
    r"""Base of exactly invertible networks between images and standard-normal latents, given a public condition.

    A network carries a record of all that it has learnt from (:attr:`training_events`), which only grows: it travels in
    every state dict, copy and pickle, and to load a state dict adds the record that comes with it. Whatever trains a
    network opens :meth:`learning` before it looks at data. Weights that were changed in any other way, however that
    was, are noticed and count as trained on unprotected data, for nobody knows better.

    Args:
        spatial_shape: (), (H, W) or (D, H, W); () is a table row with ``in_channels`` columns.
        in_channels: number of image channels or table columns.
        num_classes: for conditions that are class indices (B,).
        condition_size: for conditions that are float vectors (B, condition_size).

    Raises:
        ValueError: if a size is not positive, or there are not 0, 2 or 3 of them.

    Attributes:
        later_options: arguments of the constructor that checkpoints of older versions do not state, with the values
            that these have; they leave no trace in a fingerprint.
        later_tensors: buffers that checkpoints of older versions do not hold, with the value that they have there; with
            it they leave no trace in a fingerprint.
    """

    later_options: ClassVar[Mapping[str, Any]] = {}
    later_tensors: ClassVar[Mapping[str, float]] = {}

    def __init__(
        self,
        spatial_shape: Sequence[int],
        in_channels: int,
        num_classes: int | None,
        condition_size: int | None,
    ) -> None:
        super().__init__()
        sizes, spatial_shape = tuple(spatial_shape), tuple(int(size) for size in spatial_shape)
        is_whole = sizes == spatial_shape and isinstance(in_channels, Integral)
        if not is_whole or len(sizes) not in (0, 2, 3) or min(sizes, default=1) < 1 or in_channels < 1:
            raise ValueError(
                f"The network got spatial_shape {sizes} and in_channels {in_channels}; "
                "expected (), (H, W) or (D, H, W) of positive whole sizes and at least one channel."
            )
        self.condition_space = ConditionSpace(num_classes, condition_size)
        self.spatial_shape, self.in_channels = spatial_shape, in_channels
        self.num_latents = in_channels * math.prod(spatial_shape)
        # All arguments of the constructor; a subclass adds its own. With the tensors they are the whole network.
        self.config: dict[str, Any] = {
            "spatial_shape": list(spatial_shape),
            "in_channels": in_channels,
            "num_classes": num_classes,
            "condition_size": condition_size,
        }

        self._events: frozenset[str] = frozenset()
        self._runs = 0  # that are learning now
        self._sealed: WeightsSnapshot | None = None
        self._fingerprint: str | None = None
        self._incoming: dict[str, Any] | None = None
        self.register_load_state_dict_pre_hook(_before_loading)
        self.register_load_state_dict_post_hook(_after_loading)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode; see :meth:`encode`."""
        return self.encode(x, condition)

    def encode(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Map images to latents.

        Args:
            x: images (B, C, \*spatial), float.
            condition: None, class indices (B,) or float vectors (B, condition_size), as the network was built.

        Returns:
            Latents (B, D) and the log-determinant (B,) of their Jacobian, in nats.

        Raises:
            ValueError: if a shape or a class does not fit the network.
            TypeError: if a dtype does not.
        """
        self.check_images(x)
        return self._encode(x, *self.embed(condition, x))

    def decode(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        r"""Map latents back to images, the exact inverse of :meth:`encode`.

        Args:
            z: latents (B, D), float.
            condition: as in :meth:`encode`.

        Returns:
            Images (B, C, \*spatial).

        Raises:
            ValueError: if a shape or a class does not fit the network.
            TypeError: if a dtype does not.
        """
        check_samples(z, (self.num_latents,), "latents")
        return self._decode(z, *self.embed(condition, z))

    def draw(self, z: Tensor, condition: Tensor | None = None, *, refined: bool = True) -> Tensor:
        r"""Map latents to images as they are released: decoded, without the noise that training added to images.

        Args:
            z: latents (B, D), float.
            condition: as in :meth:`encode`.
            refined: whether images pass the network's refiner, if it has one.

        Returns:
            Images (B, C, \*spatial); those of :meth:`decode` where the network knows of no noise and has no refiner.

        Raises:
            ValueError: if a shape or a class does not fit the network.
            TypeError: if a dtype does not.
        """
        check_samples(z, (self.num_latents,), "latents")
        return self._draw(z, *self.embed(condition, z), refined)

    @property
    def has_details(self) -> bool:
        """Whether latents hold details that can be drawn more smoothly than the rest."""
        return False

    @property
    def has_refiner(self) -> bool:
        """Whether what is drawn passes a refiner that has learnt something."""
        return False

    def log_prob(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the log-likelihood (B,) of images, in nats."""
        self.check_images(x)
        return self.embedded_log_prob(x, *self.embed(condition, x))

    @property
    def num_parts(self) -> int:
        """Number of parts that share no parameter, each of which can be trained for itself."""
        return self.num_flows

    @property
    def num_flows(self) -> int:
        """Number of parts whose log-likelihoods add up to that of the image, the first ones."""
        return 1

    def part_of(self, name: str) -> int:
        """Return the part to which a tensor of the state dict belongs, by its name."""
        return 0

    def part_log_probs(
        self,
        x: Tensor,
        condition: Tensor | None = None,
        *,
        num_samples: Sequence[int] | None = None,
        context: Tensor | None = None,
    ) -> list[Tensor]:
        r"""Return what each part is to make large: the log-likelihoods of the flows, which add up to :meth:`log_prob`.

        Of a refiner, which has none, it is minus the error of its denoiser, times the number of latents.

        Args:
            x: images (B, C, \*spatial).
            condition: as in :meth:`encode`.
            num_samples: how many of the images each part sees, the first ones; all if left out. Finer levels cost more
                and learn more from one image.
            context: images (B, C, \*spatial) whose coarser images take the place of those of x where details are
                predicted, such as x with other noise; x itself if left out.

        Returns:
            For each part a tensor (min(B, num_samples),), in nats.

        Raises:
            ValueError: if a shape does not fit, or ``num_samples`` has not one number a part.
        """
        self.check_images(x)
        counts = [len(x)] * self.num_parts if num_samples is None else list(num_samples)
        if len(counts) != self.num_parts or min(counts) < 0:
            raise ValueError(f"num_samples is {counts}; expected {self.num_parts} numbers of 0 or more.")
        if context is not None:
            self.check_images(context)
        return self._part_log_probs(x, *self.embed(condition, x), counts, x if context is None else context)

    def _part_log_probs(
        self, x: Tensor, embedding: Tensor, group: Tensor, counts: Sequence[int], context: Tensor
    ) -> list[Tensor]:
        return [self.embedded_log_prob(x[: counts[0]], embedding[: counts[0]], group[: counts[0]])]

    def embedded_log_prob(self, x: Tensor, embedding: Tensor, group: Tensor) -> Tensor:
        """Return what :meth:`log_prob` does of images that were checked and conditions that went through
        :meth:`embed`: nothing in it looks at values, so that ``torch.func`` can transform it."""
        z, log_det = self._encode(x, embedding, group)
        return log_det - 0.5 * (z.square().sum(1) + self.num_latents * math.log(2 * math.pi))

    def check_images(self, x: Tensor) -> None:
        """Raise ValueError or TypeError in one sentence if these are not images of this network."""
        check_samples(x, (self.in_channels, *self.spatial_shape), "images")

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @abstractmethod
    def _encode(self, x: Tensor, embedding: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """Map checked images to latents (B, D) and log-determinants (B,)."""

    def _draw(self, z: Tensor, embedding: Tensor, group: Tensor, refined: bool) -> Tensor:
        return self._decode(z, embedding, group)

    @abstractmethod
    def _decode(self, z: Tensor, embedding: Tensor, group: Tensor) -> Tensor:
        """Map checked latents to images."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of the architecture and of every tensor, as they are now, whatever has changed them.

        Buffers that are derived from others are made again where a change is noticed; all others count.
        """
        self._notice_changes()
        if self._fingerprint is None or self._runs:
            self._fingerprint = self._digest()
        return self._fingerprint

    def _digest(self) -> str:
        later = self.later_options
        config = {name: value for name, value in self.config.items() if name not in later or value != later[name]}
        digest = hashlib.sha256(json.dumps([type(self).__name__, config], sort_keys=True).encode())
        derived = {
            f"{prefix}.{name}" for prefix, module in self.named_modules() for name in getattr(module, "derived", ())
        }
        parameters = self.named_parameters(remove_duplicate=False)
        buffers = self.named_buffers(remove_duplicate=False)
        for name, tensor in sorted(itertools.chain(parameters, buffers)):
            if name in self.later_tensors and bool((tensor == self.later_tensors[name]).all()):
                continue
            if name not in derived:
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def training_events(self) -> tuple[dict[str, Any], ...]:
        """All that the network has learnt from, as plain data; of an untrained one, nothing.

        What it means together is said by :class:`monai_cadp.privacy.TrainingData`. Nothing is ever taken away from it.
        """
        self._notice_changes()
        return as_events(self._events)

    def identity(self) -> tuple[str, tuple[dict[str, Any], ...]]:
        """Return :meth:`fingerprint` and :attr:`training_events`, for one look at the weights."""
        fingerprint = self.fingerprint()
        return fingerprint, as_events(self._events)

    @contextmanager
    def learning(
        self, training_data: str | Mapping[str, Any] = "unprotected", kind: str = "training"
    ) -> Iterator[None]:
        """Record a training before it begins; what changes the weights inside of ``with`` counts as this training.

        Args:
            training_data: how the data of this training are protected: "public" or "unprotected"; or its whole record
                (:func:`~monai_cadp.networks.new_event`).
            kind: what is done, in a word.

        Raises:
            ValueError: if the word is another one.

        Example:
            >>> from monai_cadp.networks import ConditionalINN
            >>> inn = ConditionalINN(spatial_shape=(8, 8))
            >>> with inn.learning("public"), torch.no_grad():
            ...     _ = next(inn.parameters()).add_(0.1)
            >>> [event["protection"] for event in inn.training_events]
            ['public']
        """
        event = new_event(kind, training_data) if isinstance(training_data, str) else training_data
        with self.receiving([event]):
            yield

    @contextmanager
    def receiving(self, events: Iterable[Mapping[str, Any]]) -> Iterator[None]:
        """Add to the record before it is needed; what changes the weights inside of ``with`` counts as these events.

        Args:
            events: of the weights that are taken over, as :attr:`training_events` gives them.

        Raises:
            ValueError: if they are no such records, or there is none.
        """
        events = list(events)
        if not events:
            raise ValueError("Weights are to be taken over that have learnt from nothing; give the record of them.")
        self.add_training_events(events)
        self._runs += 1
        # What is compared afterwards is what the training leaves.
        self._sealed = self._fingerprint = None
        try:
            yield
        finally:
            self._runs -= 1
            if not self._runs:
                self.derive()
                self._seal()

    def add_training_events(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Add to the record what weights that will be taken over have learnt from.

        Args:
            events: as :attr:`training_events` gives them.

        Raises:
            ValueError: if they are no such records.
        """
        self._notice_changes()
        self._events |= as_texts(events)

    def derive(self) -> None:
        """Make the buffers again that are derived from others."""
        for module in self.modules():
            if hasattr(module, "derived"):
                module.derive()  # type: ignore[operator]

    def round_to_half(self, name: str) -> None:
        """Round a tensor to the numbers of half precision, in place; whoever stores it may store it as such.

        Args:
            name: of the tensor, as in the state dict.
        """
        self._notice_changes()
        tensor = self.state_dict()[name]
        tensor.copy_(tensor.half())
        self.derive()
        if not self._runs:
            self._seal()

    def _seal(self) -> None:
        self._sealed, self._fingerprint = WeightsSnapshot(self), None

    def _notice_changes(self) -> None:
        """Record a change of weights that nobody has recorded."""
        if self._runs or self._sealed is None or self._sealed.matches(self):
            return
        self.derive()
        self._seal()
        self._fingerprint = self._digest()
        self._events |= as_texts([derived_event(UNRECORDED, self._fingerprint)])

    def _apply(self, fn: Any, recurse: bool = True) -> InvertibleNetwork:
        """Follow a move to another device or type, which changes weights and adds nothing that was learnt."""
        if self._runs or self._sealed is None:
            return super()._apply(fn, recurse)
        self._notice_changes()
        before = self._sealed
        super()._apply(fn, recurse)
        if before.matches_converted(self):
            self._seal()
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Return what a checkpoint holds besides tensors: the architecture, and what the network has learnt from."""
        fingerprint, events = self.identity()
        record = {"events": list(events), "fingerprint": fingerprint}
        return {"kind": type(self).__name__, "config": self.config, "training_data": record}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Refuse the checkpoint of another architecture, and add what it has learnt from.

        Raises:
            ValueError: if the checkpoint was made by a network of another kind or other sizes, or its record is
                damaged.
        """
        if state["kind"] != type(self).__name__:
            raise ValueError(
                f"The checkpoint holds a {state['kind']}, but the network is a {type(self).__name__}; "
                "build the network that the checkpoint was trained with."
            )
        for name, value in self.config.items():
            trained = {**self.later_options, **state["config"]}.get(name)
            if trained != value:
                raise ValueError(
                    f"The checkpoint was trained with {name} = {trained}, but the network was built with {value}; "
                    "build the network that the checkpoint was trained with."
                )
        record = state.get("training_data")
        if not isinstance(record, Mapping) or "events" not in record:
            record = {"events": None, "fingerprint": None}
        self._events |= as_texts(record["events"] or [])
        self._incoming = dict(record)

    def __reduce__(self) -> tuple[Any, ...]:
        # FrEIA's own blocks hold functions that do not pickle; a description and the tensors always do.
        return _rebuild, (type(self), self.config, self.state_dict(), self.training)

    def embed(self, condition: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Check a condition; return it as a float matrix (B, E) and as the index (B,) of its group of moments.

        Args:
            condition: as in :meth:`encode`.
            like: images or latents, of as many samples, on the network's device.
        """
        batch_size = like.shape[0]
        embedding = self.condition_space.embed(condition, batch_size).to(like)
        return embedding, self.condition_space.groups(condition, batch_size).to(like.device)


def _rebuild(
    cls: type[InvertibleNetwork], config: dict[str, Any], state: dict[str, Tensor], training: bool
) -> InvertibleNetwork:
    network = cls(**config)
    weights = [tensor for tensor in state.values() if isinstance(tensor, Tensor) and tensor.is_floating_point()]
    if weights:
        network.to(weights[0].device, weights[0].dtype)
    network.load_state_dict(state)
    return network.train(training)


def _before_loading(network: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    assert isinstance(network, InvertibleNetwork)
    # A whole network brings its description; of parts of one, what does not come is not touched.
    if f"{prefix}_extra_state" in state:
        for name, tensor in network.named_buffers():
            if name in network.later_tensors:
                state.setdefault(prefix + name, torch.full_like(tensor, network.later_tensors[name]))
    # Of what is overwritten now, too.
    network._notice_changes()
    network._incoming = None


def _after_loading(network: nn.Module, _: object) -> None:
    assert isinstance(network, InvertibleNetwork)
    record, network._incoming = network._incoming, None
    if record is None and not network._runs:
        # Without a record, what came is what somebody has changed.
        network._notice_changes()
        return
    network.derive()
    fingerprint = network._digest()
    if record is None or record["fingerprint"] != fingerprint:
        kind = OLDER if record is not None and record["events"] is None else UNRECORDED
        network._events |= as_texts([derived_event(kind, fingerprint)])
        if kind == OLDER:
            warnings.warn(
                "The checkpoint is of an older version, which took the caller's word for how a network was trained and "
                "forgot what it had learnt before; it counts as trained on unprotected data. Train it again to have "
                "a record.",
                stacklevel=2,
            )
    if not network._runs:
        network._seal()
        network._fingerprint = fingerprint
