# SPDX-License-Identifier: Apache-2.0
"""The architecture of the CADP paper, to reproduce its results and to measure speed against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from FrEIA.framework import ConditionNode, GraphINN, InputNode, Node, OutputNode
from FrEIA.modules import Flatten, GLOWCouplingBlock, IRevNetDownsampling, PermuteRandom
from torch import Tensor, nn

from monai_cadp.networks.base import InvertibleNetwork

__all__ = ["PaperINN"]

CONV_WIDTH = 128


class PaperINN(InvertibleNetwork):
    r"""Glow couplings on squeezed images, then dense couplings on the flattened image, as published.

    Every stage halves the image by an invertible squeeze and applies ``depth`` blocks of a fixed random permutation
    and a Glow coupling with three 3 x 3 convolutions of width 128; the embedded condition enters every block as
    constant extra channels. The flattened image passes dense couplings. The presets are :meth:`mnist` and
    :meth:`large`.

    Args:
        spatial_shape: (H, W), each a multiple of 2 to the number of stages.
        in_channels: number of image channels.
        num_classes: for conditions that are class indices (B,).
        condition_size: for conditions that are float vectors (B, condition_size).
        depths: Glow blocks of every stage.
        num_dense: dense couplings on the flattened image.
        dense_width: hidden features of the dense couplings.

    Raises:
        ValueError: if the images are not 2D, or a size is not divisible as the stages need.

    References:
        Toelle, Koethe, Andre, Meder, Engelhardt: Content-aware differential privacy with conditional invertible neural
        networks, MICCAI DeCaF 2022.

    Example:
        >>> import torch
        >>> inn = PaperINN((8, 8), 1, num_classes=3, depths=(1, 1), num_dense=1, dense_width=16)
        >>> z, log_det = inn.encode(torch.rand(2, 1, 8, 8), torch.tensor([0, 2]))
        >>> inn.decode(z, torch.tensor([0, 2])).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        spatial_shape: Sequence[int],
        in_channels: int = 1,
        num_classes: int | None = None,
        condition_size: int | None = None,
        *,
        depths: Sequence[int],
        num_dense: int,
        dense_width: int,
    ) -> None:
        super().__init__(spatial_shape, in_channels, num_classes, condition_size)
        if len(self.spatial_shape) != 2 or any(size % 2 ** len(depths) for size in self.spatial_shape):
            raise ValueError(
                f"The paper's network got spatial_shape {self.spatial_shape}; "
                f"expected (H, W), both multiples of {2 ** len(depths)}."
            )
        self.config |= {"depths": list(depths), "num_dense": num_dense, "dense_width": dense_width}
        embedding_size = self.condition_space.embedding_size
        self.map_shapes = [[size // 2**stage for size in self.spatial_shape] for stage in range(1, len(depths) + 1)]
        self.map_shapes.append([])
        conditions = [ConditionNode(embedding_size, *shape) for shape in self.map_shapes] if embedding_size else []

        # FrEIA's permutations, made with their nodes, reseed NumPy's global generator, which is not ours to touch.
        state = np.random.get_state()
        nodes = [InputNode(in_channels, *self.spatial_shape)]

        def add_block(stage: int, subnet: Callable[[int, int], nn.Module]) -> None:
            nodes.append(Node(nodes[-1], PermuteRandom, {"seed": len(nodes)}))
            arguments = {"subnet_constructor": subnet, "clamp": 2.0}
            condition = conditions[stage] if conditions else None
            nodes.append(Node(nodes[-1], GLOWCouplingBlock, arguments, conditions=condition))

        for stage, depth in enumerate(depths):
            nodes.append(Node(nodes[-1], IRevNetDownsampling, {}))
            for _ in range(depth):
                add_block(stage, _conv_subnet)
        nodes.append(Node(nodes[-1], Flatten, {}))
        for _ in range(num_dense):
            add_block(len(depths), partial(_dense_subnet, width=dense_width))
        nodes.append(OutputNode(nodes[-1]))
        self.graph = GraphINN([*nodes, *conditions], verbose=False)
        np.random.set_state(state)

    @classmethod
    def mnist(cls, num_classes: int = 10) -> PaperINN:
        """Return the network of the paper's MNIST experiment: 5.3 million parameters."""
        return cls((28, 28), 1, num_classes=num_classes, depths=(4, 4), num_dense=2, dense_width=392)

    @classmethod
    def large(cls, num_classes: int = 4) -> PaperINN:
        """Return the network of the paper's OCT and chest X-ray experiments, 128 x 128: 220 million parameters."""
        return cls((128, 128), 1, num_classes=num_classes, depths=(4, 4, 4, 4), num_dense=4, dense_width=1024)

    def _encode(self, x: Tensor, embedding: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        return self.graph(x, c=self._maps(embedding))

    def _decode(self, z: Tensor, embedding: Tensor, group: Tensor) -> Tensor:
        x, _ = self.graph(z, c=self._maps(embedding), rev=True, jac=False)
        return x

    def _maps(self, embedding: Tensor) -> list[Tensor]:
        """Spread the condition over the pixels of every stage."""
        batch_size, size = embedding.shape
        if size == 0:
            return []
        return [
            embedding.reshape(batch_size, size, *(1 for _ in shape)).expand(batch_size, size, *shape)
            for shape in self.map_shapes
        ]


def _conv_subnet(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, CONV_WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(CONV_WIDTH, CONV_WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(CONV_WIDTH, out_channels, 3, padding=1),
    )


def _dense_subnet(in_features: int, out_features: int, *, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(in_features, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, out_features),
    )
