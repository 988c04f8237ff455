# SPDX-License-Identifier: Apache-2.0
"""Encode, randomize the content, complete from the prior, decode."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_cadp.networks import (
    CandidateTable,
    ConditionalINN,
    ContentBasis,
    DeclaredContent,
    InvertibleNetwork,
    TrainedModel,
    WeightsSnapshot,
)
from monai_cadp.privacy import (
    AttributeResponse,
    Mechanism,
    PrivacyGuarantee,
    RandomizedResponse,
    SubsetSelection,
    TrainingData,
    check_unit,
    compose,
)
from monai_cadp.privacy.randomness import random_normal
from monai_cadp.privacy.subset_selection import choose_subset_size, select_candidates
from monai_cadp.privacy.threshold import acceptance_threshold
from monai_cadp.release.condition_space import ReleaseConditionSpace
from monai_cadp.release.privatizer_parts import check_parts, chosen_parts
from monai_cadp.release.releaser import BaseReleaser

__all__ = ["Privatizer"]

# By epsilon and the subset size that is fixed, if one is: the subset size, and the threshold of its draws.
Choices = dict[tuple[float, int | None], tuple[int, int]]


class Privatizer(BaseReleaser, nn.Module):
    r"""Release images in place of images, each with the guarantee of its mechanism.

    With a :class:`ContentBasis` the content :math:`u = P^T z` of an image's latents z is all that the mechanism sees;
    what it returns, v, is completed by fresh noise :math:`\xi` from the network's prior, :math:`z' = P v + (I - P
    P^T) \xi`, and decoded. With :class:`DeclaredContent` the features of the image only rank the public candidates of
    a subset selection, and the candidate that comes out is decoded.

    Proof. The mechanism's input is a function of one image (and of the public condition); every pixel of the result
    is a function of the mechanism's output, the condition and noise that is independent of the image. So the result
    is post-processing, and inherits epsilon and delta (Dwork and Roth 2014, proposition 2.1). What is not finite is
    set to 0 before the image is encoded. With a ``label_mechanism`` the label is randomized first, and encoding and
    decoding see the randomized label only: for each of its values the image's guarantee holds, and the two compose:
    epsilons add.

    Do not train the network while it releases: candidate tables are made once.

    Args:
        inn: the network, or a trained model; put in evaluation mode.
        mechanism: what spends the budget.
        content: what the budget is spent on; of a trained model the name of a basis, or None for its usual one.
        condition: public condition of a sample, () or (condition_size,), for calls that give none.
        label_mechanism: randomizes class labels, or attributes; None declares the condition public.
        temperature: factor on the completion, 0 to 1; less is nearer to the average. Post-processing.
        detail_temperature: a further factor on what the completion holds of details, 0 to 1; less is smoother.
        refined: whether images pass the network's refiner, if it has one; without it they are the plain inverse.
        unit: what one image is in the guarantee: "image", "volume", "row" or "patient".

    Attributes:
        schema: of what a trained model has learnt from; see :class:`~monai_cadp.networks.TrainedModel`.

    Raises:
        TypeError: if a part is of the wrong kind.
        ValueError: if the parts do not fit each other.

    References:
        Toelle, Koethe, Andre, Meder, Engelhardt: Content-aware differential privacy with conditional invertible neural
        networks, MICCAI DeCaF 2022.

    Example:
        >>> from monai_cadp.networks import ConditionalINN
        >>> inn = ConditionalINN(spatial_shape=(8, 8), in_channels=1, num_classes=3)
        >>> content = ContentBasis.leading(inn, num_directions=8)
        >>> privatizer = Privatizer(inn, SubsetSelection(epsilon=4.0, num_candidates=256), content)
        >>> privatizer(torch.rand(2, 1, 8, 8), torch.tensor([0, 2])).shape
        torch.Size([2, 1, 8, 8])
        >>> privatizer.guarantee.epsilon
        4.0
    """

    default_condition: Tensor | None

    def __init__(
        self,
        inn: InvertibleNetwork | TrainedModel,
        mechanism: Mechanism,
        content: ContentBasis | DeclaredContent | str | None = None,
        *,
        condition: int | Sequence[float] | Tensor | None = None,
        label_mechanism: RandomizedResponse | AttributeResponse | None = None,
        temperature: float = 1.0,
        detail_temperature: float = 1.0,
        refined: bool = True,
        unit: str = "image",
    ) -> None:
        super().__init__()
        network, chosen = chosen_parts(inn, content)
        check_parts(network, mechanism, chosen, label_mechanism)
        for name, value in (("temperature", temperature), ("detail_temperature", detail_temperature)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; expected a number from 0 to 1.")
        if detail_temperature != 1 and not network.has_details:
            raise ValueError(
                f"detail_temperature was given, but this {type(network).__name__} has no details; leave it out."
            )
        if not refined and not network.has_refiner:
            raise ValueError("refined is False, but the network has no refiner; leave it out.")
        self.inn: InvertibleNetwork = network.eval()
        self.content: ContentBasis | DeclaredContent = chosen.to(network.device)
        self.label_mechanism = label_mechanism
        default = None if condition is None else torch.as_tensor(condition)
        if default is not None and default.ndim > 0:
            default = default.float()
        if default is not None:
            ReleaseConditionSpace(network.condition_space, None, label_mechanism).check(default[None], 1)
        # A tensor that moves with the module, and an argument of the constructor and not of a checkpoint.
        self.register_buffer("default_condition", default, persistent=False)
        self.temperature, self.detail_temperature, self.refined = temperature, detail_temperature, refined
        self.unit = check_unit(unit)
        self._names = inn.condition_names if isinstance(inn, TrainedModel) else None
        self.schema = inn.schema if isinstance(inn, TrainedModel) else None
        self._description: tuple[tuple[Any, ...], tuple[PrivacyGuarantee, bytes]] | None = None
        self._described_content: WeightsSnapshot | None = None
        self._configured_for: tuple[float, ...] = ()
        self.train()
        self.mechanism = mechanism
        self._configure()
        # For every class its candidates, and for every epsilon (and fixed size) how one of them is chosen.
        self._tables: dict[tuple[float, ...], tuple[CandidateTable, Choices]] = {}
        # In a tuple, for it is no second part of the module.
        self._tables_are_of = (self.inn,)
        # A loaded basis has weights of its own, and a loaded network candidates of its own.
        self.register_load_state_dict_post_hook(_after_loading)

    def train(self, mode: bool = True) -> Privatizer:
        """Stay in evaluation mode: in the other one, declared features may mix the images of a batch."""
        return super().train(False)

    @property
    def guarantee(self) -> PrivacyGuarantee:
        """What one call promises for each image, with everything a reader needs to judge it."""
        return self.description[0]

    @property
    def condition_space(self) -> ReleaseConditionSpace:
        """The network's conditions, with their names, the default one, and the mechanism that randomizes them."""
        space = self.inn.condition_space
        return ReleaseConditionSpace(space, self.default_condition, self.label_mechanism, self._names)

    @property
    def image_shape(self) -> tuple[int, ...]:
        r"""(C, \*spatial) of an image."""
        return (self.inn.in_channels, *self.inn.spatial_shape)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.inn.device

    @property
    def core(self) -> Privatizer:
        """The privatizer itself."""
        return self

    def config(self) -> dict[str, Any]:
        """Return the guarantee, with its mechanism and the network's fingerprint, and all that is chosen besides."""
        return {
            "releaser": type(self).__name__,
            "guarantee": self.guarantee.without_derived().to_dict(),
            "content": self.content.fingerprint(),
            **self.drawing,
        }

    @property
    def drawing(self) -> dict[str, Any]:
        """How images are drawn from the latents that are released: post-processing, stated on every card."""
        return {
            "temperature": self.temperature,
            "detail_temperature": self.detail_temperature,
            "refined": self.refined and self.inn.has_refiner,
        }

    @property
    def description(self) -> tuple[PrivacyGuarantee, bytes]:
        """Guarantee and identity, of one state of the network."""
        # The network compares its weights with what it has hashed, for hashing takes longer than a batch.
        fingerprint, events = self.inn.identity()
        parts = (self.mechanism, self.label_mechanism, self.content, self.inn)
        drawing: tuple[Any, ...] = (self.temperature, self.detail_temperature)
        if self.inn.has_refiner:
            drawing += (self.refined,)
        state = (parts, self.unit, drawing, fingerprint, events, self._content_events)
        content = self._described_content
        if (
            self._description is None
            or content is None
            or self._description[0] != state
            or not content.matches(self.content)
        ):
            self._described_content = WeightsSnapshot(self.content)
            guarantee = self._describe(fingerprint, TrainingData.of(events) | TrainingData.of(self._content_events))
            defining = [guarantee.without_derived().to_dict(), drawing, self.content.fingerprint()]
            identity = hashlib.sha256(json.dumps(defining, sort_keys=True).encode()).digest()
            self._description = (state, (guarantee, identity))
        return self._description[1]

    @property
    def training_data(self) -> TrainingData:
        """All that the network and the basis of its content have learnt from."""
        return TrainingData.of(self.inn) | TrainingData.of(self._content_events)

    @property
    def _content_events(self) -> tuple[dict[str, Any], ...]:
        """Directions may be of another network, and declared features of one."""
        return self.content.training_events

    def _describe(self, fingerprint: str, training_data: TrainingData) -> PrivacyGuarantee:
        space = self.inn.condition_space
        public = [] if self.label_mechanism is not None or space.embedding_size == 0 else ["condition"]
        if isinstance(self.label_mechanism, AttributeResponse) and self.label_mechanism.kept:
            public = [f"attribute {index}" for index in self.label_mechanism.kept]
        guarantees = [
            mechanism.guarantee(
                unit=self.unit,
                public=tuple(public),
                training_data=training_data,
                fingerprint=fingerprint,
            )
            for mechanism in (self.mechanism, self.label_mechanism)
            if mechanism is not None
        ]
        return guarantees[0] if len(guarantees) == 1 else compose(guarantees)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        r"""Release images (B, C, \*spatial), as :meth:`release` does; every call spends the budget of every image."""
        return self.release(x, condition)

    @torch.no_grad()
    def draw(
        self,
        images: Tensor,
        conditions: Tensor | None,
        subjects: Sequence[str] | None = None,
        items: Sequence[str | int] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Release what ``inputs`` has returned, and the conditions that it was made for."""
        if self.label_mechanism is not None and conditions is not None:
            conditions = self.label_mechanism(conditions)
        if isinstance(self.content, ContentBasis):
            return self._release_directions(images, conditions), conditions
        return self._release_declared(images, conditions), conditions

    def with_mechanism(self, mechanism: Mechanism) -> Privatizer:
        """Return a privatizer with another mechanism and all else the same; both share the candidates they make."""
        other = Privatizer(
            self.inn,
            mechanism,
            self.content,
            condition=self.default_condition,
            label_mechanism=self.label_mechanism,
            temperature=self.temperature,
            detail_temperature=self.detail_temperature,
            refined=self.refined,
            unit=self.unit,
        )
        other._names, other.schema = self._names, self.schema
        if self._tables_are_of[0] is self.inn:
            other._tables = self._tables
        return other

    def prepare(self, progress: bool = True) -> Privatizer:
        """Make the candidate tables of all classes now, and not at the first image of each class."""
        if isinstance(self.content, DeclaredContent) and self.inn.condition_space.condition_size is None:
            classes = self.inn.condition_space.num_classes
            for label in [None] if classes is None else torch.arange(classes).split(1):
                self._table(label, progress)
        return self

    def _release_directions(self, x: Tensor, condition: Tensor | None) -> Tensor:
        assert isinstance(self.content, ContentBasis)
        z, _ = self.inn.encode(x, condition)
        # Pixels of any size reach the mechanism as finite content.
        content = self.mechanism(self.content.project(torch.nan_to_num(z, nan=0.0, posinf=0.0, neginf=0.0)))
        completed = self.content.complete(content, self._temper(random_normal(z)))
        return self.inn.draw(completed, condition, refined=self.refined)

    def _temper(self, latents: Tensor) -> Tensor:
        if self.detail_temperature != 1:
            assert isinstance(self.inn, ConditionalINN)
            latents = self.inn.with_details(latents, self.detail_temperature)
        return latents * self.temperature

    def _release_declared(self, x: Tensor, condition: Tensor | None) -> Tensor:
        assert isinstance(self.content, DeclaredContent)
        # One by one: whatever the features are, no image has an influence on another.
        features = torch.cat([self.content.describe(image) for image in x.split(1)])
        groups = torch.zeros(len(x), dtype=torch.long)
        rows: list[Tensor | None] = [None]
        if condition is not None:
            distinct, groups = condition.unique(dim=0, return_inverse=True)
            rows = list(distinct.split(1))
        indices = torch.empty(len(x), dtype=torch.long, device=x.device)
        for group, row in enumerate(rows):
            table, subset_size, threshold = self._table(row)
            members = groups == group
            scores = torch.cdist(table.standardise(features[members]), table.candidates)
            indices[members] = select_candidates(scores, subset_size, threshold)
        return self.content.images(self.inn, indices, condition, self._temper, refined=self.refined)

    def _table(self, condition: Tensor | None, progress: bool = False) -> tuple[CandidateTable, int, int]:
        assert isinstance(self.content, DeclaredContent) and isinstance(self.mechanism, SubsetSelection)
        if self._tables_are_of[0] is not self.inn:
            self._tables, self._tables_are_of = {}, (self.inn,)
        key, epsilon = () if condition is None else tuple(condition.flatten().tolist()), self.mechanism.epsilon
        table, choices = self._tables.get(key) or (
            self.content.table(self.inn, condition, self._temper, progress, refined=self.refined),
            {},
        )
        choice = epsilon, self.mechanism.subset_size
        if choice not in choices:
            ones = torch.ones(table.candidates.shape[1])
            size = choice[1] or choose_subset_size(table.targets.cpu(), table.candidates.cpu(), ones, epsilon)
            choices[choice] = size, acceptance_threshold(epsilon, len(table.candidates), size)
        if self.inn.condition_space.condition_size is None:  # A continuous condition hardly ever comes back.
            self._tables[key] = table, choices
        return table, *choices[choice]

    def _configure(self) -> None:
        if isinstance(self.content, ContentBasis):
            weights = self.content.weights.detach().cpu()
            if self._configured_for != tuple(weights.tolist()):
                self.mechanism = self.mechanism.configured(len(weights), weights)
                self._configured_for = tuple(weights.tolist())
        elif isinstance(self.mechanism, SubsetSelection):
            # One choice among the candidates of the content; each table has its own subset size, unless one is fixed.
            num, size = self.content.num_candidates, self.mechanism.subset_size
            if size is not None and self.mechanism.num_candidates != num:
                raise ValueError(
                    f"The subset size is fixed for {self.mechanism.num_candidates} candidates, but the declared "
                    f"content has {num}; give both the same number."
                )
            self.mechanism = SubsetSelection(self.mechanism.epsilon, num, 1, self.content.seed, size)


def _after_loading(privatizer: nn.Module, incompatible_keys: object) -> None:
    assert isinstance(privatizer, Privatizer)
    privatizer._tables.clear()
    privatizer._configure()
