# SPDX-License-Identifier: Apache-2.0
"""Files that hold everything a release needs: the network, its content basis, and how it was trained."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from monai_cadp import networks
from monai_cadp.networks import ContentBasis, InvertibleNetwork
from monai_cadp.privacy import Mechanism, PriorOnly, RandomizedResponse
from monai_cadp.privacy.private_files import new_private
from monai_cadp.release.privatizer import Privatizer

__all__ = ["KEY", "load_network", "load_privatizer", "save_privatizer", "write_file"]

# The key under which MONAI's ckpt_export finds the weights.
KEY = "privatizer"
# Long orthonormal columns, most of a file's size. Half precision changes their products by about 1e-5.
STORED_IN_HALF = ("inn.whitening.basis", "content.directions")
LARGE = 2**20
NETWORK = "inn."

# On MONAI's command line None overrides nothing.
ANY_FILE = "any"


def save_privatizer(privatizer: Privatizer, path: str | Path) -> None:
    """Write a privatizer's network and content basis; a reader meets the whole file or the one before.

    Bases of more than a million numbers are stored in half precision, and the privatizer takes over what was stored: it
    is the one that a reader will load.

    Args:
        privatizer: with a content basis; its mechanism is not written, for the budget is chosen at the time of release.
        path: of the file; its folder is made if need be.

    Raises:
        ValueError: if the content is declared, which is code and not data.
    """
    if not isinstance(privatizer.content, ContentBasis):
        raise ValueError("The privatizer has declared content, which is code; save one with a ContentBasis.")
    halved = [name for name, tensor in privatizer.state_dict().items() if name in STORED_IN_HALF and _is_large(tensor)]
    for name in halved:
        if name.startswith(NETWORK):
            privatizer.inn.round_to_half(name.removeprefix(NETWORK))
        else:
            tensor = privatizer.state_dict()[name]
            tensor.copy_(tensor.half())
    state = privatizer.state_dict()
    write_file({KEY: state | {name: state[name].half() for name in halved}}, path)


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


def _is_large(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.numel() > LARGE


def load_privatizer(
    path: str | Path,
    mechanism: Mechanism,
    label_epsilon: float | None = None,
    sha256: str | None = None,
    stated: Mapping[str, Any] | None = None,
    **options: Any,
) -> Privatizer:
    """Read a privatizer; the file says which network to build.

    Args:
        path: file of :func:`save_privatizer`; only tensors and plain data are read from it.
        mechanism: what spends the budget.
        label_epsilon: budget of the class label, spent by randomized response; None declares labels public.
        sha256: of the file, where it is known: any other file is refused before it is read; None or "any" for no check.
        stated: options by their names, of which those that describe the network (``spatial_shape``, ``num_classes``,
            ``num_directions``, ``inn#rank`` ...) must be those of the file; all others are passed over.
        options: further arguments of :class:`Privatizer`; ``content`` replaces the basis of the file.

    Returns:
        The privatizer.

    Raises:
        ValueError: if the file is missing, damaged, not a privatizer's, not the one with this SHA-256, or holds another
            network than is stated.

    Example:
        >>> import tempfile
        >>> from monai_cadp.networks import ConditionalINN
        >>> from monai_cadp.privacy import PriorOnly, SubsetSelection
        >>> inn = ConditionalINN(spatial_shape=(8, 8))
        >>> path = Path(tempfile.mkdtemp()) / "model.pt"
        >>> save_privatizer(Privatizer(inn, PriorOnly(), ContentBasis.leading(inn, 4)), path)
        >>> load_privatizer(path, SubsetSelection(epsilon=2.0)).guarantee.epsilon
        2.0
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
        state = torch.load(path, map_location="cpu", weights_only=True)[KEY]
        description = state["inn._extra_state"]
        directions, weights = state["content.directions"], state["content.weights"]
        kind = getattr(networks, description["kind"])
        if not issubclass(kind, InvertibleNetwork):
            raise TypeError
        inn = kind(**{**kind.later_options, **description["config"]})
        inn.load_state_dict({name.removeprefix(NETWORK): v for name, v in state.items() if name.startswith(NETWORK)})
        content = ContentBasis(directions.float(), weights, inn.num_latents)
    except Exception:
        # What the inner errors say names the path.
        raise ValueError(
            "The checkpoint could not be read; expected an undamaged file that this package has written."
        ) from None
    _check_stated(stated or {}, inn, content)
    if label_epsilon is not None:
        if inn.condition_space.num_classes is None:
            raise ValueError("A label_epsilon was given, but the network takes no class labels; leave it out.")
        options["label_mechanism"] = RandomizedResponse(label_epsilon, inn.condition_space.num_groups)
    return Privatizer(inn, mechanism, options.pop("content", content), **options)


def load_network(
    path: str | Path, sha256: str | None = None, stated: Mapping[str, Any] | None = None
) -> InvertibleNetwork:
    """Read the network of a checkpoint, to train it further.

    Args:
        path: file of :func:`save_privatizer`.
        sha256: as for :func:`load_privatizer`.
        stated: as for :func:`load_privatizer`; without ``num_directions``, for a basis is fitted anew.

    Returns:
        The network, which knows how it was trained.

    Raises:
        ValueError: as :func:`load_privatizer` does.

    Example:
        >>> import tempfile
        >>> from monai_cadp.networks import ConditionalINN
        >>> from monai_cadp.privacy import PriorOnly
        >>> inn = ConditionalINN(spatial_shape=(8, 8))
        >>> path = Path(tempfile.mkdtemp()) / "model.pt"
        >>> save_privatizer(Privatizer(inn, PriorOnly(), ContentBasis.leading(inn, 4)), path)
        >>> load_network(path).fingerprint() == inn.fingerprint()
        True
    """
    described = {name: value for name, value in (stated or {}).items() if name != "num_directions"}
    return load_privatizer(path, PriorOnly(), sha256=sha256, stated=described).inn


def _check_stated(stated: Mapping[str, Any], inn: InvertibleNetwork, content: ContentBasis) -> None:
    held = {**inn.config, "num_directions": len(content.weights)}
    for option, value in stated.items():
        name = option.removeprefix("network#").removeprefix("inn#")
        if name in held and not isinstance(value, str) and _plain(value) != _plain(held[name]):
            raise ValueError(
                f"The option {option!r} is {_plain(value)}, but the checkpoint has {_plain(held[name])}; leave "
                "the option out, or give the checkpoint that was trained so."
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
