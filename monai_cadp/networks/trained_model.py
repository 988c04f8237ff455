# SPDX-License-Identifier: Apache-2.0
"""What a training leaves, and what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_cadp.networks.base import InvertibleNetwork
from monai_cadp.networks.content_basis import ContentBasis
from monai_cadp.networks.training_record import as_events, as_texts

__all__ = ["TrainedModel"]

# Where MONAI's ckpt_export finds the weights, by the names that they have in a privatizer; what else there is, and how
# a single basis is called.
WEIGHTS, MODEL, FIRST = "privatizer", "model", "content"
# Long orthonormal columns, most of a file's size. Half precision changes their products by about 1e-5.
LONG_OF_NETWORK = ("whitening.basis",)
LARGE = 2**20
# Of what a checkpoint holds beside the network: 2 with the records of bases.
VERSION = 2
# Whoever looks into a file finds short tensors as they are.
SMALL = 2**10


class TrainedModel:
    """A network with everything that was learnt or declared about it: a releaser is built from it, given a mechanism.

    Args:
        network: the network, which carries the record of what it has learnt from.
        bases: its content bases by name, the usual one first; a single one is called "content".
        condition_names: of the classes, or of the entries of a condition, in their order; None where they have none.
        schema: what the numbers mean, as plain data: of rows as ``TableSchema.to_dict`` says it, of images the public
            options by which they were read, such as ``spacing``; None where nobody has said it.

    Raises:
        TypeError: if a part is of the wrong kind.
        ValueError: if the parts do not fit each other.

    Example:
        >>> from monai_cadp.networks import ConditionalINN
        >>> inn = ConditionalINN(spatial_shape=(8, 8), num_classes=2)
        >>> model = TrainedModel(inn, ContentBasis.leading(inn, 4), condition_names=["healthy", "ill"])
        >>> TrainedModel.from_dict(model.to_dict()).fingerprint() == model.fingerprint()
        True
    """

    def __init__(
        self,
        network: InvertibleNetwork,
        bases: ContentBasis | Mapping[str, ContentBasis],
        *,
        condition_names: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(network, InvertibleNetwork):
            raise TypeError(f"network is a {type(network).__name__}; expected an InvertibleNetwork.")
        named = {FIRST: bases} if not isinstance(bases, Mapping) else dict(bases)
        if not named:
            raise ValueError("The model has no content basis; give one at least.")
        for basis in named.values():
            if not isinstance(basis, ContentBasis):
                raise TypeError(f"A basis is a {type(basis).__name__}; expected a ContentBasis, for others are code.")
            if basis.num_latents != network.num_latents:
                raise ValueError(
                    f"The basis has directions of length {basis.num_latents}, but the network has "
                    f"{network.num_latents} latents; fit the basis to this network."
                )
        size = network.condition_space.embedding_size
        if condition_names is not None and len(condition_names) != size:
            raise ValueError(f"There are {len(condition_names)} condition_names for {size} conditions; give one each.")
        if condition_names is not None and len(set(condition_names)) != size:
            raise ValueError("Two conditions have the same name; give every one its own.")
        self.network, self.bases = network, named
        self.condition_names = None if condition_names is None else [str(name) for name in condition_names]
        self.schema = None if schema is None else dict(schema)

    @property
    def content(self) -> ContentBasis:
        """The usual content basis."""
        return next(iter(self.bases.values()))

    @property
    def training_events(self) -> tuple[dict[str, Any], ...]:
        """All that the network and its bases have learnt from, as plain data."""
        learnt: list[InvertibleNetwork | ContentBasis] = [self.network, *self.bases.values()]
        return as_events(frozenset().union(*(as_texts(part.training_events) for part in learnt)))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the network: of its architecture and of every tensor."""
        return self.network.fingerprint()

    def round_to_half(self) -> None:
        """Round long matrices to numbers of half precision, in which :meth:`to_dict` then stores them."""
        state = self.network.state_dict()
        for name in LONG_OF_NETWORK:
            if _is_large(state.get(name)):
                self.network.round_to_half(name)
        for basis in self.bases.values():
            if _is_large(basis.directions):
                basis.round_to_half()

    def to_dict(self) -> dict[str, Any]:
        """Return tensors of the CPU and plain data; what half precision holds exactly is stored in it."""
        state: dict[str, Any] = {f"inn.{name}": _compact(value) for name, value in self.network.state_dict().items()}
        parts = {name: _stored(basis) for name, basis in self.bases.items()}
        first, *others = parts
        state |= {f"content.{key}": value for key, value in parts[first].items()}
        model = {
            "name": first,
            "bases": {name: parts[name] for name in others},
            "condition_names": self.condition_names,
            "schema": self.schema,
            "version": VERSION,
        }
        return {WEIGHTS: state, MODEL: model}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrainedModel:
        """Return the model that :meth:`to_dict` has written, or an older version without names.

        Raises:
            Exception: of any kind, if these are no such data.
        """
        from monai_cadp import networks

        state, model = plain[WEIGHTS], plain.get(MODEL, {})
        description = state["inn._extra_state"]
        kind = getattr(networks, description["kind"])
        if not issubclass(kind, InvertibleNetwork):
            raise TypeError
        network = kind(**{**kind.later_options, **description["config"]})
        network.load_state_dict({n.removeprefix("inn."): v for n, v in state.items() if n.startswith("inn.")})
        first = {n.removeprefix("content."): v for n, v in state.items() if n.startswith("content.")}
        stored = {model.get("name", FIRST): first} | model.get("bases", {})
        # Of an older version a basis has no record; it was made by this network.
        has_records = model.get("version", 1) >= VERSION
        bases = {
            name: ContentBasis(
                part["directions"].float(),
                part["weights"].float(),
                network.num_latents,
                training_events=part["_extra_state"]["training_events"] if has_records else network.training_events,
            )
            for name, part in stored.items()
        }
        return cls(network, bases, condition_names=model.get("condition_names"), schema=model.get("schema"))


def _stored(basis: ContentBasis) -> dict[str, Any]:
    return {name: _compact(value) for name, value in basis.state_dict().items()}


def _compact(value: Any) -> Any:
    """Return a tensor on the CPU, which every reader has, and in half precision if it loses nothing."""
    value = value.cpu() if isinstance(value, Tensor) else value
    if not isinstance(value, Tensor) or value.dtype != torch.float32 or value.numel() < SMALL:
        return value
    half = value.half()
    return half if torch.equal(half.float(), value) else value


def _is_large(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.numel() > LARGE
