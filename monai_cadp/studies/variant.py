# SPDX-License-Identifier: Apache-2.0
"""What a study compares: ways to protect a data set, each at one budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from monai.data import DataLoader, Dataset
from torch import Tensor, nn

from monai_cadp.networks import DeclaredContent, TrainedModel
from monai_cadp.privacy import Mechanism, PrivacyGuarantee
from monai_cadp.privacy.exact_numbers import as_read
from monai_cadp.release import Privatizer, Releaser

__all__ = ["ORIGINALS", "Method", "Split", "StudyContext", "Variant"]

ORIGINALS = "originals"


class Split(NamedTuple):
    r"""Images and their public conditions.

    Args:
        x: (n, C, \*spatial) with intensities 0 to 1, or rows (n, C).
        y: class indices (n,) or float vectors (n, K).
    """

    x: Tensor
    y: Tensor

    def to(self, device: torch.device | str) -> Split:
        """Return the same on a device."""
        return Split(self.x.to(device), self.y.to(device))

    def loader(
        self, batch_size: int, shuffle: bool = False, transform: Sequence[Callable[..., Any]] = ()
    ) -> DataLoader:
        """Return a loader of dictionaries with ``image`` and ``label``, which pass some transforms."""
        items = [{"image": x, "label": y} for x, y in zip(self.x, self.y, strict=True)]
        return DataLoader(Dataset(items, list(transform) or None), batch_size=batch_size, shuffle=shuffle)


@dataclass(frozen=True)
class Variant:
    """One way to protect a data set, at one budget.

    Args:
        method: name for people.
        epsilon: true budget of one image; infinite where nothing is promised.
        delta: of one image.
        explanation: what is promised, in words.
        nominal_epsilon: what its authors call it, where that is something else.
        release: maps originals and conditions to releases; None where no images are released.
        classifier: trains a classifier on originals and labels, from a seed, where that is all that is released.
        settings: everything else that was chosen, as plain data: what makes two variants of one name different.
        public_columns: of a condition that is a vector, those that stay as they are; None for all.
        releaser: that releases the images, where one does.
    """

    method: str
    epsilon: float
    delta: float
    explanation: str
    nominal_epsilon: float | None = None
    release: Callable[[Tensor, Tensor], Tensor] | None = None
    classifier: Callable[[Tensor, Tensor, int], nn.Module] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    public_columns: tuple[int, ...] | None = None
    releaser: Releaser | None = None

    @property
    def name(self) -> str:
        """The method with its budget."""
        if self.nominal_epsilon is not None:
            return f"{self.method}, nominal epsilon {as_read(self.nominal_epsilon)}"
        if self.epsilon == 0 or math.isinf(self.epsilon):
            return self.method
        return f"{self.method}, epsilon {as_read(self.epsilon)}"

    @classmethod
    def promising(
        cls, method: str, guarantee: PrivacyGuarantee, release: Callable[[Tensor, Tensor], Tensor], **options: Any
    ) -> Variant:
        """Return a variant with the budget and the words of a guarantee."""
        return cls(method, guarantee.epsilon, guarantee.delta, guarantee.explain(), release=release, **options)

    @property
    def is_original(self) -> bool:
        """Whether nothing was done to the images."""
        return self.method == ORIGINALS


@dataclass(frozen=True)
class StudyContext:
    """What methods may build on.

    Args:
        model: the study's network, with its content basis.
        temperature: of the completion.
        unit: what one image is in guarantees.
        train: originals that releases learn from.
        state_dir: folder for what a method keeps between attempts, of this study only.
        quick: whether this is a short run, to see whether everything works.
    """

    model: TrainedModel
    temperature: float
    unit: str
    train: Split
    state_dir: Path
    quick: bool

    def privatizer(self, mechanism: Mechanism, content: DeclaredContent | None = None, **options: Any) -> Privatizer:
        """Return what releases with the study's network, on its content basis unless content is declared."""
        temperature, unit = self.temperature, self.unit
        return Privatizer(self.model, mechanism, content, temperature=temperature, unit=unit, **options)


class Method(Protocol):
    """Anything that a study can compare."""

    def variants(self, context: StudyContext) -> Sequence[Variant]:
        """Return the method at each of its budgets."""
