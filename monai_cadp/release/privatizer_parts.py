# SPDX-License-Identifier: Apache-2.0
"""Whether the parts of a privatizer fit each other."""

from __future__ import annotations

from typing import Any

from monai_cadp.networks import ContentBasis, DeclaredContent, InvertibleNetwork, TrainedModel
from monai_cadp.privacy import AttributeResponse, Mechanism, RandomizedResponse, SubsetSelection

__all__ = ["check_parts", "chosen_parts"]


def chosen_parts(network: Any, content: Any) -> tuple[Any, Any]:
    """Return the network of a trained model and the content basis that was chosen of it; other parts as they are."""
    if not isinstance(network, TrainedModel):
        return network, content
    if content is None:
        return network.network, network.content
    if isinstance(content, str):
        if content not in network.bases:
            raise ValueError(f"content is {content!r}; expected one of the bases {', '.join(network.bases)}.")
        return network.network, network.bases[content]
    return network.network, content


def check_parts(inn: object, mechanism: object, content: object, label_mechanism: object) -> None:
    """Raise TypeError or ValueError in one sentence if the parts of a privatizer do not fit each other."""
    for part, kinds, name in (
        (inn, InvertibleNetwork, "inn"),
        (mechanism, Mechanism, "mechanism"),
        (content, (ContentBasis, DeclaredContent), "content"),
        (label_mechanism, (RandomizedResponse, AttributeResponse, type(None)), "label_mechanism"),
    ):
        if not isinstance(part, kinds):
            expected = " or ".join(k.__name__ for k in (kinds if isinstance(kinds, tuple) else (kinds,)))
            raise TypeError(f"{name} is a {type(part).__name__}; expected {expected}.")
    assert isinstance(inn, InvertibleNetwork)
    if isinstance(content, ContentBasis) and content.num_latents != inn.num_latents:
        raise ValueError(
            f"The basis has directions of length {content.num_latents}, but the network has {inn.num_latents} latents; "
            "fit the basis to this network."
        )
    if isinstance(content, DeclaredContent) and not isinstance(mechanism, SubsetSelection):
        raise TypeError(f"The mechanism is a {type(mechanism).__name__}; declared content needs SubsetSelection.")
    space = inn.condition_space
    if isinstance(label_mechanism, RandomizedResponse):
        _check_labels("class labels", "classes", label_mechanism.num_classes, space.num_classes)
    if isinstance(label_mechanism, AttributeResponse):
        _check_labels("attributes", "attributes", label_mechanism.num_attributes, space.condition_size)


def _check_labels(kind: str, counted: str, own: int, of_network: int | None) -> None:
    if of_network is None:
        raise ValueError(f"A label mechanism was given, but the network takes no {kind}; leave it out.")
    if own != of_network:
        raise ValueError(
            f"The label mechanism has {own} {counted}, but the network has {of_network}; give both the same."
        )
