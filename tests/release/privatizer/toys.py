# SPDX-License-Identifier: Apache-2.0
"""Small privatizers, their parts, and mechanisms that show what they were given."""

from __future__ import annotations

import torch

from monai_cadp.networks import ContentBasis, DeclaredContent
from monai_cadp.privacy import (
    GaussianMechanism,
    LaplaceMechanism,
    Mechanism,
    PriorOnly,
    SubsetSelection,
)

SHAPE = (1, 4, 4)
CONDITIONS = {"none": {}, "class": {"num_classes": 3}, "vector": {"condition_size": 2}}


class Recorder(Mechanism):
    """Returns what it is told to, and remembers what it was given; promises nothing."""

    epsilon = 1.0

    def __init__(self, answer):
        self.answer = answer
        self.seen = []

    def _randomize(self, latents, generator):
        self.seen.append(latents.clone())
        return self.answer(latents)


def constant():
    return Recorder(torch.zeros_like)


def identity():
    return Recorder(torch.clone)


def images(count, seed=0, shape=SHAPE):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def conditions(kind, count):
    generator = torch.Generator().manual_seed(7)
    return {
        "none": None,
        "class": torch.arange(count) % 3,
        "vector": torch.randn(count, 2, generator=generator),
    }[kind]


def basis(inn, k=5):
    return ContentBasis.fit(inn, k, num_samples=128)


def mean_and_deviation(x):
    return torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], dim=1)


def declared(num_candidates=256):
    return DeclaredContent(mean_and_deviation, num_candidates=num_candidates)


MECHANISMS = {
    "SubsetSelection": lambda: SubsetSelection(epsilon=4.0, num_candidates=64),
    "GaussianMechanism": lambda: GaussianMechanism(epsilon=4.0, delta=1e-5, clipping_bound=2.0),
    "LaplaceMechanism": lambda: LaplaceMechanism(epsilon=4.0, clipping_bound=2.0),
    "PriorOnly": PriorOnly,
}
