# SPDX-License-Identifier: Apache-2.0
"""The methods of this package, and the simple ones that people would use instead, as studies compare them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_cadp.baselines import PixelNoise, train_private_classifier
from monai_cadp.networks import ContentBasis, DeclaredContent
from monai_cadp.privacy import AttributeResponse, LaplaceMechanism, PriorOnly, SubsetSelection
from monai_cadp.privacy.exact_numbers import as_read
from monai_cadp.release import Privatizer, Releaser, as_releaser
from monai_cadp.studies.description import described
from monai_cadp.studies.variant import ORIGINALS, StudyContext, Variant

__all__ = [
    "CellNoise",
    "ChosenAttributes",
    "LatentLaplace",
    "NetworkContent",
    "PrivateTraining",
    "UserContent",
    "WithoutGuarantee",
    "control_variants",
]

BATCH_SIZE = 256
# Of declared content, in a short run.
QUICK_CANDIDATES = 256


def control_variants(context: StudyContext) -> list[Variant]:
    """Return the originals, which are the ceiling, and the prior alone, which every claim of kept content must beat."""
    ceiling = Variant(
        ORIGINALS, math.inf, 0.0, "The originals themselves: nothing is protected.", release=lambda x, y: x
    )
    return [ceiling, of_releaser("prior only", context.privatizer(PriorOnly()))]


def of_releaser(method: str, releaser: Releaser, public_columns: tuple[int, ...] | None = None) -> Variant:
    """Return the variant of a releaser."""
    guarantee, identity = as_releaser(releaser).description
    return Variant.promising(
        method,
        guarantee,
        in_batches(releaser.release),
        # Of the network, the content, the mechanism and the temperatures.
        settings={"identity": identity.hex()},
        public_columns=public_columns,
        releaser=releaser,
    )


def in_batches(release: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Release many images, batch by batch."""

    def released(x: Tensor, y: Tensor) -> Tensor:
        parts = zip(x.split(BATCH_SIZE), y.split(BATCH_SIZE), strict=True)
        return torch.cat([release(images, condition) for images, condition in parts])

    return released


class NetworkContent:
    """Subset selection on the network's own content.

    Args:
        epsilons: budgets of one image.

    Raises:
        ValueError: if an epsilon is not usable.
    """

    def __init__(self, epsilons: Sequence[float]) -> None:
        self.mechanisms = [SubsetSelection(float(epsilon)) for epsilon in epsilons]

    def variants(self, context: StudyContext) -> list[Variant]:
        """Return the method at each of its budgets."""
        privatizers = [context.privatizer(mechanism) for mechanism in self.mechanisms]
        return [of_releaser("content basis", privatizer) for privatizer in privatizers]


class UserContent:
    r"""Subset selection on content that the user declares.

    Args:
        features: maps images (B, C, \*spatial) to features (B, k).
        epsilons: budgets of one image.

    Raises:
        ValueError: if an epsilon is not usable.
    """

    def __init__(self, features: Callable[[Tensor], Tensor], epsilons: Sequence[float]) -> None:
        self.features = features
        self.mechanisms = [SubsetSelection(float(epsilon)) for epsilon in epsilons]

    def variants(self, context: StudyContext) -> list[Variant]:
        """Return the method at each of its budgets; candidate tables are shared among them."""
        options: dict[str, Any] = {"num_candidates": QUICK_CANDIDATES} if context.quick else {}
        content = DeclaredContent(self.features, **options)
        variants: list[Variant] = []
        declared: Privatizer | None = None
        for mechanism in self.mechanisms:
            if declared is None:
                declared = context.privatizer(mechanism, content)
            privatizer = declared.with_mechanism(mechanism)
            variants.append(of_releaser("declared content", privatizer))
        return variants


class ChosenAttributes:
    """Chosen attributes are kept, the others are answered by randomized response, and the image is released for these.

    Args:
        names: of all attributes, in the order of the conditions.
        kept: names of the chosen ones, which are public.
        epsilons: budgets of one image, half for the image and half for the other attributes.

    Raises:
        ValueError: if a name is unknown, or an epsilon is not usable.
    """

    def __init__(self, names: Sequence[str], kept: Sequence[str], epsilons: Sequence[float]) -> None:
        unknown = sorted(set(kept) - set(names))
        if unknown:
            raise ValueError(f"The attribute {unknown[0]!r} is unknown; expected some of {', '.join(names)}.")
        self.kept = [list(names).index(name) for name in kept]
        halves = [float(epsilon) / 2 for epsilon in epsilons]
        self.parts = [(SubsetSelection(half), AttributeResponse(half, len(names), self.kept)) for half in halves]

    def variants(self, context: StudyContext) -> list[Variant]:
        """Return the method at each of its budgets."""
        privatizers = [context.privatizer(mechanism, label_mechanism=response) for mechanism, response in self.parts]
        return [of_releaser("chosen attributes", p, tuple(self.kept)) for p in privatizers]


class LatentLaplace:
    """The paper's mechanism on the study's network, with its true sensitivity: Laplace noise on every latent.

    Args:
        epsilons: budgets of one image.
        bound: of the L1 norm of the latents.

    Raises:
        ValueError: if a number is not usable.
    """

    def __init__(self, epsilons: Sequence[float], bound: float = 4.0) -> None:
        self.mechanisms = [LaplaceMechanism(float(epsilon), bound) for epsilon in epsilons]

    def variants(self, context: StudyContext) -> list[Variant]:
        """Return the method at each of its budgets."""
        network = context.model.network
        size = network.num_latents
        everything = ContentBasis(torch.eye(size), torch.ones(size), training_events=())
        privatizers = [Privatizer(network, mechanism, everything, unit=context.unit) for mechanism in self.mechanisms]
        name = "Laplace on all latents, true sensitivity"
        return [of_releaser(name, privatizer) for privatizer in privatizers]


class CellNoise:
    """Laplace noise on pixels, or on the means of cells of pixels (DP-Pix).

    Args:
        epsilons: budgets of one image.
        cell: pixels a side of a cell.

    Raises:
        ValueError: if a number is not usable.
    """

    def __init__(self, epsilons: Sequence[float], cell: int = 1) -> None:
        self.noises = [PixelNoise(float(epsilon), cell) for epsilon in epsilons]

    def variants(self, context: StudyContext) -> list[Variant]:
        """Return the method at each of its budgets."""
        return [
            Variant.promising(
                "pixel Laplace" if noise.cell == 1 else f"DP-Pix, cells of {noise.cell}",
                noise.guarantee,
                in_batches(noise),
                settings={"cell": noise.cell},
            )
            for noise in self.noises
        ]


class WithoutGuarantee:
    """Something that is called anonymisation and promises nothing, such as blur.

    Args:
        name: for people.
        transform: maps images and conditions to images.
    """

    def __init__(self, name: str, transform: nn.Module) -> None:
        self.name, self.transform = name, transform

    def variants(self, context: StudyContext) -> list[Variant]:
        """Return the one variant that there is."""
        words = "No guarantee: every release is a function of its original, and no epsilon is large enough."
        settings = {"transform": described(self.transform)}
        return [Variant(self.name, math.inf, 0.0, words, release=in_batches(self.transform), settings=settings)]


class PrivateTraining:
    """A classifier trained on the originals with DP-SGD: for those who want nothing but a classifier.

    Args:
        num_classes: number of classes, or of labels.
        epsilons: budgets of the classifier.
        delta: of each.
        options: further arguments of :func:`~monai_cadp.baselines.train_private_classifier`.
    """

    def __init__(self, num_classes: int, epsilons: Sequence[float], delta: float, **options: Any) -> None:
        self.num_classes, self.delta, self.options = num_classes, delta, options
        self.epsilons = [float(epsilon) for epsilon in epsilons]

    def variants(self, context: StudyContext) -> list[Variant]:
        """Return the method at each of its budgets."""
        return [self._variant(epsilon, context) for epsilon in self.epsilons]

    def _variant(self, epsilon: float, context: StudyContext) -> Variant:
        def classifier(x: Tensor, y: Tensor, seed: int) -> nn.Module:
            options = {**self.options, "batch_size": min(self.options.get("batch_size", 2048), len(x))}
            model = train_private_classifier(
                x, y, self.num_classes, epsilon=epsilon, delta=self.delta, seed=seed, progress=True, **options
            )
            return model

        words = (
            f"The classifier as a whole keeps (epsilon {as_read(epsilon)}, delta {as_read(self.delta)}) for the "
            "replacement of one image; no image is released, and who trains it must be trusted with the originals."
        )
        name = "DP-SGD classifier"
        return Variant(name, epsilon, self.delta, words, classifier=classifier, settings=dict(self.options))
