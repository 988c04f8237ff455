# SPDX-License-Identifier: Apache-2.0
"""Content in the user's own words: any public function of an image."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from monai_cadp.networks.base import InvertibleNetwork
from monai_cadp.networks.held_modules import held_modules
from monai_cadp.networks.training_record import as_events, as_texts, derived_event
from monai_cadp.networks.weights_snapshot import WeightsSnapshot

__all__ = ["CandidateTable", "DeclaredContent"]

# Latents are drawn in blocks of this size, so that one candidate can be made again without all the others.
BLOCK = 64
DECODED_AT_ONCE = 256
NUM_TARGETS = 256


@dataclass(frozen=True)
class CandidateTable:
    """Features of a condition's candidates, standardised by their own mean and deviation.

    Args:
        candidates: features (N, k).
        targets: features (T, k) of further prior samples, on which a mechanism may choose its parameters.
        mean: means (k,) of the candidates' raw features.
        deviation: standard deviations (k,) of them.
    """

    candidates: Tensor
    targets: Tensor
    mean: Tensor
    deviation: Tensor

    def standardise(self, features: Tensor) -> Tensor:
        """Bring raw features (B, k) to the scale of the table; what is not finite becomes the candidates' mean."""
        return torch.nan_to_num((features - self.mean) / self.deviation, nan=0.0, posinf=0.0, neginf=0.0)


class DeclaredContent(nn.Module):
    r"""Content that the user declares: features that must survive, as any public function of images.

    Candidates are whole samples :math:`z_j` of the network's prior, made from a public seed and decoded once for
    every condition to a table of their features. No image takes part in it, so the table costs no privacy. A
    mechanism picks a candidate by its features; the image is then made again from the seed.

    Args:
        features: maps images (B, C, \*spatial) to features (B, k). It must look at every image by itself.
        num_candidates: N, the number of candidates of every condition.
        seed: public seed of the candidates.
        training_events: all that the features have been learnt from, as :attr:`InvertibleNetwork.training_events` gives
            it, as long as nothing changes them. None, for what the modules that they compute with say of themselves:
            their own ``training_events`` if they have some; any other one with tensors counts as learnt from
            unprotected people, and code has learnt nothing.

    Raises:
        TypeError: if ``features`` cannot be called.
        ValueError: if there are fewer than two candidates, or the record is not usable.

    Example:
        >>> from monai_cadp.networks import ConditionalINN
        >>> inn = ConditionalINN(spatial_shape=(4, 4), in_channels=1)
        >>> brightness = DeclaredContent(lambda x: x.mean((1, 2, 3))[:, None], num_candidates=128)
        >>> brightness.table(inn, None).candidates.shape
        torch.Size([128, 1])
        >>> brightness.images(inn, torch.tensor([5, 5, 100]), None).shape
        torch.Size([3, 1, 4, 4])
    """

    def __init__(
        self,
        features: Callable[[Tensor], Tensor],
        *,
        num_candidates: int = 2**13,
        seed: int = 0,
        training_events: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        if not callable(features):
            raise TypeError(f"features is a {type(features).__name__}; expected a function from images to features.")
        if num_candidates < 2:
            raise ValueError(f"num_candidates is {num_candidates}; expected at least 2.")
        self.features = features
        self.num_candidates = num_candidates
        self.seed = seed
        self._stated = None if training_events is None else as_texts(training_events)
        held = [] if training_events is None else held_modules(features)
        self._stated_of = [WeightsSnapshot(module) for module in held]

    @property
    def training_events(self) -> tuple[dict[str, Any], ...]:
        """All that the features have been learnt from, as plain data."""
        held, events = held_modules(self.features), self._stated or frozenset()
        if self._stated is not None and _are_as_before(held, self._stated_of):
            return as_events(events)
        for module in held:
            own = getattr(module, "training_events", None)
            if own is not None:
                events |= as_texts(own)
            elif any(True for _ in itertools.chain(module.parameters(), module.buffers())):
                events |= as_texts([derived_event("declared features that were learnt", self.fingerprint())])
        return as_events(events)

    def fingerprint(self) -> str:
        """Return the name of the function and the numbers that define the candidates; code has no better one."""
        name = getattr(self.features, "__qualname__", type(self.features).__qualname__)
        return f"{self.features.__module__}.{name}, {self.num_candidates} candidates, seed {self.seed}"

    def latents(self, size: int, indices: Tensor) -> Tensor:
        """Make the latents (B, size) of these candidates (B,) again from the public seed.

        Raises:
            ValueError: while it is traced.
        """
        if torch.jit.is_tracing():
            raise ValueError(
                "Declared content cannot be traced, which would keep the candidates of one image; leave it out."
            )
        blocks = indices // BLOCK
        latents = torch.empty(len(indices), size)
        for block in blocks.unique().tolist():
            # Not torch's generator, which looks at 32 bits of a seed only: blocks of different seeds must not meet.
            generator = np.random.Generator(np.random.Philox(key=np.array([self.seed, block], dtype=np.uint64)))
            members = blocks == block
            samples = torch.from_numpy(generator.standard_normal((BLOCK, size), dtype=np.float32))
            latents[members] = samples[indices[members] % BLOCK]
        return latents

    @torch.no_grad()
    def images(
        self,
        inn: InvertibleNetwork,
        indices: Tensor,
        condition: Tensor | None,
        temper: Callable[[Tensor], Tensor] | None = None,
        *,
        refined: bool = True,
    ) -> Tensor:
        r"""Decode candidates.

        Args:
            inn: the network.
            indices: which candidates (B,).
            condition: their conditions, as ``inn.decode`` takes them.
            temper: maps latents (B, D) to those that are decoded; None for the same ones.
            refined: as for ``inn.draw``.

        Returns:
            Images (B, C, \*spatial).
        """
        device = inn.device
        latents = self.latents(inn.num_latents, indices.cpu()).to(device)
        return inn.draw(latents if temper is None else temper(latents), condition, refined=refined)

    @torch.no_grad()
    def table(
        self,
        inn: InvertibleNetwork,
        condition: Tensor | None,
        temper: Callable[[Tensor], Tensor] | None = None,
        progress: bool = False,
        *,
        refined: bool = True,
    ) -> CandidateTable:
        """Decode all candidates of one condition to their features.

        Args:
            inn: the network.
            condition: one condition, (1,) or (1, condition_size), or None.
            temper: as in :meth:`images`.
            progress: show a progress bar.
            refined: as in :meth:`images`.

        Returns:
            The table of this condition.

        Raises:
            ValueError: if the features of a batch are not (B, k).
        """
        total = self.num_candidates + NUM_TARGETS
        rows = []
        for indices in tqdm(torch.arange(total).split(DECODED_AT_ONCE), desc="candidates", disable=not progress):
            conditions = None if condition is None else condition.expand(len(indices), *condition.shape[1:])
            images = self.images(inn, indices, conditions, temper, refined=refined)
            rows.append(self.describe(images))
        raw = torch.cat(rows)
        candidates, targets = raw[: self.num_candidates], raw[self.num_candidates :]
        # What is not finite takes no part in the scale, and becomes the mean of the rest.
        finite = torch.where(candidates.isfinite(), candidates, torch.nan).double()
        mean = finite.nanmean(0)
        deviation = (finite - mean).square().nanmean(0).sqrt()
        deviation = torch.where(deviation > 0, deviation, torch.ones(()).to(deviation))
        table = CandidateTable(candidates, targets, torch.nan_to_num(mean).float(), deviation.float())
        return CandidateTable(table.standardise(candidates), table.standardise(targets), table.mean, table.deviation)

    def describe(self, images: Tensor) -> Tensor:
        """Return the features (B, k) of images, refusing what has another shape."""
        features = self.features(images)
        if features.ndim != 2 or len(features) != len(images):
            raise ValueError(
                f"The declared features of {len(images)} images have shape {tuple(features.shape)}; "
                f"expected ({len(images)}, k)."
            )
        return features.float()


def _are_as_before(modules: Sequence[nn.Module], before: Sequence[WeightsSnapshot]) -> bool:
    """Whether these are the modules of the snapshots, in their order, on whatever device and of whatever type."""
    return len(modules) == len(before) and all(map(WeightsSnapshot.matches_converted, before, modules))
