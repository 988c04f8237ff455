# SPDX-License-Identifier: Apache-2.0
"""What every network offers: encode, decode and likelihood of checked inputs."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_cadp.networks.condition import ConditionSpace, plain_sizes
from monai_cadp.networks.provenance import Provenance

__all__ = ["InvertibleNetwork"]


class InvertibleNetwork(nn.Module, ABC):
    r"""Base of exactly invertible networks between images and standard-normal latents, given a public condition.

    Args:
        spatial_shape: (), (H, W) or (D, H, W); () is a table row with ``in_channels`` columns.
        in_channels: number of image channels or table columns.
        num_classes: for conditions that are class indices (B,).
        condition_size: for conditions that are float vectors (B, condition_size).

    Raises:
        ValueError: if a size is not positive, or there are not 0, 2 or 3 of them.
    """

    def __init__(
        self,
        spatial_shape: Sequence[int],
        in_channels: int,
        num_classes: int | None,
        condition_size: int | None,
    ) -> None:
        super().__init__()
        spatial_shape = tuple(int(size) for size in spatial_shape)
        if len(spatial_shape) not in (0, 2, 3) or min(spatial_shape, default=1) < 1 or in_channels < 1:
            raise ValueError(
                f"The network got spatial_shape {spatial_shape} and in_channels {in_channels}; "
                "expected (), (H, W) or (D, H, W) of positive sizes and at least one channel."
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

        self.training_data = Provenance()

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
        self._check(z, (self.num_latents,), "latents")
        return self._decode(z, *self.embed(condition, z))

    def log_prob(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the log-likelihood (B,) of images, in nats."""
        self.check_images(x)
        return self.embedded_log_prob(x, *self.embed(condition, x))

    def embedded_log_prob(self, x: Tensor, embedding: Tensor, group: Tensor) -> Tensor:
        """Return what :meth:`log_prob` does of images that were checked and conditions that went through
        :meth:`embed`: nothing in it looks at values, so that ``torch.func`` can transform it."""
        z, log_det = self._encode(x, embedding, group)
        return log_det - 0.5 * (z.square().sum(1) + self.num_latents * math.log(2 * math.pi))

    def check_images(self, x: Tensor) -> None:
        """Raise ValueError or TypeError in one sentence if these are not images of this network."""
        self._check(x, (self.in_channels, *self.spatial_shape), "images")

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @abstractmethod
    def _encode(self, x: Tensor, embedding: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """Map checked images to latents (B, D) and log-determinants (B,)."""

    @abstractmethod
    def _decode(self, z: Tensor, embedding: Tensor, group: Tensor) -> Tensor:
        """Map checked latents to images."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of the architecture and of every tensor."""
        digest = hashlib.sha256(json.dumps([type(self).__name__, self.config], sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            if isinstance(tensor, Tensor):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def get_extra_state(self) -> dict[str, Any]:
        """Return what a checkpoint holds besides tensors: the architecture, and how the network was trained."""
        return {"kind": type(self).__name__, "config": self.config, "training_data": self.training_data.to_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Refuse the checkpoint of another architecture, and take over how the network was trained.

        Raises:
            ValueError: if the checkpoint was made by a network of another kind or other sizes.
        """
        if state["kind"] != type(self).__name__:
            raise ValueError(
                f"The checkpoint holds a {state['kind']}, but the network is a {type(self).__name__}; "
                "build the network that the checkpoint was trained with."
            )
        for name, value in self.config.items():
            trained = state["config"].get(name)
            if trained != value:
                raise ValueError(
                    f"The checkpoint was trained with {name} = {trained}, but the network was built with {value}; "
                    "build the network that the checkpoint was trained with."
                )
        self.training_data = Provenance(**state["training_data"])

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

    @staticmethod
    def _check(tensor: Tensor, shape: tuple[int, ...], what: str) -> None:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"The {what} are {kind}; expected a float tensor (B, {', '.join(map(str, shape))}).")
        found = plain_sizes(tensor.shape)
        if len(found) != len(shape) + 1 or found[1:] != shape or found[0] == 0:
            raise ValueError(
                f"The {what} have shape {found}; expected (B, {', '.join(map(str, shape))}) with at least one sample."
            )


def _rebuild(
    cls: type[InvertibleNetwork], config: dict[str, Any], state: dict[str, Tensor], training: bool
) -> InvertibleNetwork:
    network = cls(**config)
    network.load_state_dict(state)
    return network.train(training)
