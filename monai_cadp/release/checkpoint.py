# SPDX-License-Identifier: Apache-2.0
"""Files that hold everything a release needs: the network, its content basis, and how it was trained."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from monai_cadp.data.stage import check_output
from monai_cadp.networks import ConditionSpace, ContentBasis, InvertibleNetwork, TrainedModel
from monai_cadp.networks.devices import usable_device
from monai_cadp.privacy import AttributeResponse, Mechanism, RandomizedResponse
from monai_cadp.privacy.private_files import new_private
from monai_cadp.release.privatizer import Privatizer

__all__ = ["check_file", "load_model", "load_network", "load_privatizer", "save_model", "write_file"]

# On MONAI's command line None overrides nothing.
ANY_FILE = "any"


def save_model(model: TrainedModel, path: str | Path) -> None:
    """Write a trained model; a reader finds the whole file or the one before.

    Matrices of more than a million numbers are stored in half precision, and the model takes over what was stored: it
    is the one that a reader will load.

    Args:
        model: network and content bases; there is no mechanism in it, for the budget is chosen at the time of release.
        path: of the file; its folder is made if need be.

    Example:
        >>> import tempfile
        >>> from monai_cadp.networks import ConditionalINN
        >>> inn = ConditionalINN(spatial_shape=(8, 8))
        >>> path = Path(tempfile.mkdtemp()) / "model.pt"
        >>> save_model(TrainedModel(inn, ContentBasis.leading(inn, 4)), path)
        >>> load_model(path).fingerprint() == inn.fingerprint()
        True
    """
    model.round_to_half()
    write_file(model.to_dict(), path)


def write_file(content: dict[str, Any], path: str | Path) -> None:
    """Write a file that ``torch.load`` reads, as :func:`~monai_cadp.privacy.private_files.new_private` does.

    Args:
        content: tensors and plain data.
        path: of the file; its folder is made if need be.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_private(path) as file:
        torch.save(content, file)


def check_file(path: str | Path) -> None:
    """Raise ValueError where :func:`write_file` could never write, before a training is begun for it."""
    if os.path.isdir(path):
        raise ValueError("A checkpoint is to be written where a folder is; give the name of a new file.")
    check_output(Path(path))


def load_model(
    path: str | Path,
    sha256: str | None = None,
    stated: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    schema: Mapping[str, Any] | None = None,
) -> TrainedModel:
    """Read a trained model; the file says which network to build.

    Args:
        path: file of :func:`save_model`; only tensors and plain data are read from it.
        sha256: of the file, where it is known: any other file is refused before it is read; None or "any" for no check.
        stated: options by their names, of which those that describe the network (``spatial_shape``, ``num_classes``,
            ``num_directions``, ``inn#rank`` ...) must be those of the file; all others are passed over.
        device: where the network works.
        schema: public options by which the inputs are read, such as the spacing of their voxels, which must be those of
            the training where the file knows them; None for no check.

    Returns:
        The model.

    Raises:
        ValueError: if the file is missing, damaged, not a model's, not the one with this SHA-256, or holds another
            network than is stated, if inputs are read otherwise than in its training, or if the device cannot be used.
    """
    if sha256 not in (None, ANY_FILE) and _sha256(Path(path)) != sha256:
        raise ValueError(
            "The checkpoint is not the one that was shipped: it is missing, damaged or another file; restore it, or "
            "say any in place of its SHA-256 if it is yours."
        )
    try:
        # torch writes checksums and does not look at them.
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise ValueError
        model = TrainedModel.from_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception:
        # What the inner errors say names the path.
        raise ValueError(
            "The checkpoint could not be read; expected an undamaged file that this package has written."
        ) from None
    _check_stated(stated or {}, model.network, model.content)
    _check_schema(schema or {}, model.schema or {})
    model.network.to(usable_device(device))
    return model


def load_privatizer(
    path: str | Path,
    mechanism: Mechanism,
    label_epsilon: float | None = None,
    sha256: str | None = None,
    stated: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    class_names: Sequence[str] | None = None,
    schema: Mapping[str, Any] | None = None,
    **options: Any,
) -> Privatizer:
    """Read a privatizer; the file says which network to build.

    Args:
        path: file of :func:`save_model`; only tensors and plain data are read from it.
        mechanism: what spends the budget.
        label_epsilon: budget of the class label, spent by randomized response, or of several yes-or-no labels together
            (:class:`~monai_cadp.privacy.AttributeResponse`); None declares labels public.
        sha256: of the file, where it is known: any other file is refused before it is read; None or "any" for no check.
        stated: options by their names, of which those that describe the network (``spatial_shape``, ``num_classes``,
            ``num_directions``, ``inn#rank`` ...) must be those of the file; all others are passed over.
        device: where images are released.
        class_names: what class folders are called, in the order of the classes, for a file that has no names of
            them, or has blanks where folders have underscores; None for the names of the file.
        schema: as for :func:`load_model`.
        options: further arguments of :class:`Privatizer`; ``content`` replaces the basis of the file, or names another
            one that it holds.

    Returns:
        The privatizer.

    Raises:
        ValueError: if the file is missing, damaged, not a privatizer's, not the one with this SHA-256, or holds another
            network than is stated, if inputs are read otherwise than in its training, if the device cannot be used, or
            if it has other names of classes.

    Example:
        >>> import tempfile
        >>> from monai_cadp.networks import ConditionalINN
        >>> from monai_cadp.privacy import SubsetSelection
        >>> inn = ConditionalINN(spatial_shape=(8, 8))
        >>> path = Path(tempfile.mkdtemp()) / "model.pt"
        >>> save_model(TrainedModel(inn, ContentBasis.leading(inn, 4)), path)
        >>> load_privatizer(path, SubsetSelection(epsilon=2.0)).guarantee.epsilon
        2.0
    """
    model = load_model(path, sha256, stated, device, schema)
    _check_names(model, class_names)
    if class_names is not None:
        model = TrainedModel(model.network, model.bases, condition_names=class_names, schema=model.schema)
    if label_epsilon is not None:
        options["label_mechanism"] = _label_mechanism(model.network.condition_space, label_epsilon)
    return Privatizer(model, mechanism, **options)


def _label_mechanism(space: ConditionSpace, epsilon: float) -> RandomizedResponse | AttributeResponse:
    if space.num_classes is not None:
        return RandomizedResponse(epsilon, space.num_classes)
    if space.condition_size is not None:
        return AttributeResponse(epsilon, space.condition_size)
    raise ValueError("A label_epsilon was given, but the network takes no labels; leave it out.")


def load_network(
    path: str | Path,
    sha256: str | None = None,
    stated: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    schema: Mapping[str, Any] | None = None,
) -> InvertibleNetwork:
    """Read the network of a checkpoint, to train it further.

    Args:
        path: file of :func:`save_model`.
        sha256: as for :func:`load_privatizer`.
        stated: as for :func:`load_privatizer`; without ``num_directions``, for a basis is fitted anew.
        class_names: of the images that it is trained on, in the order of their labels; None where they have none.
        schema: as for :func:`load_model`.

    Returns:
        The network, which knows how it was trained.

    Raises:
        ValueError: as :func:`load_privatizer` does.

    Example:
        >>> import tempfile
        >>> from monai_cadp.networks import ConditionalINN
        >>> inn = ConditionalINN(spatial_shape=(8, 8))
        >>> path = Path(tempfile.mkdtemp()) / "model.pt"
        >>> save_model(TrainedModel(inn, ContentBasis.leading(inn, 4)), path)
        >>> load_network(path).fingerprint() == inn.fingerprint()
        True
    """
    described = {name: value for name, value in (stated or {}).items() if name != "num_directions"}
    model = load_model(path, sha256, described, schema=schema)
    _check_names(model, class_names)
    return model.network


def _check_stated(stated: Mapping[str, Any], inn: InvertibleNetwork, content: ContentBasis) -> None:
    held = {**inn.config, "num_directions": len(content.weights)}
    for option, value in stated.items():
        name = option.removeprefix("network#").removeprefix("inn#")
        if name in held and not isinstance(value, str) and _plain(value) != _plain(held[name]):
            raise ValueError(
                f"The option {option!r} is {_plain(value)}, but the checkpoint has {_plain(held[name])}; leave "
                "the option out, or give the checkpoint that was trained so."
            )


def _check_schema(schema: Mapping[str, Any], learnt: Mapping[str, Any]) -> None:
    for option, value in schema.items():
        if option in learnt and _plain(value) != _plain(learnt[option]):
            raise ValueError(
                f"The option {option!r} is {_plain(value)}, but the network has learnt from inputs that were read with "
                f"{_plain(learnt[option])}; read these in the same way."
            )


def _check_names(model: TrainedModel, class_names: Sequence[str] | None) -> None:
    known = model.condition_names
    if class_names is not None and known is not None and _blank(class_names) != _blank(known):
        raise ValueError(
            f"Other names of classes were given, but those of the checkpoint are {', '.join(known)}, in this order; "
            "call them and order them as it does."
        )


def _blank(names: Sequence[str]) -> list[str]:
    return [name.replace("_", " ") for name in names]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
