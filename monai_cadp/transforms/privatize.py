# SPDX-License-Identifier: Apache-2.0
"""The transforms that put a release in place of an image, inside any MONAI pipeline."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends
from torch import Tensor

from monai_cadp.privatizer import Privatizer

__all__ = ["Privatize", "PrivatizeD", "PrivatizeDict", "Privatized"]

NOT_RECORDED = (
    "No release is recorded: every pass over the data releases every image again and spends its budget again. "
    "Use a CacheDataset, or privatize into a folder once."
)


class Privatize(Transform):
    r"""Release an image in place of the original.

    It is not one of MONAI's random transforms: its coins come from the operating system and not from ``self.R``,
    which data loaders rewind, and no seed makes it repeat itself. For the same reason CacheDataset keeps its
    releases, which is what one
    wants: a release is made, and paid for, once. It cannot be inverted and leaves no trace in ``applied_operations``.

    Args:
        privatizer: the privatizer; its guarantee is written to ``meta["privacy"]``.
        public_meta: keys of the source's meta that are declared public and kept, such as "affine"; all others are
            dropped.

    Raises:
        TypeError: if the privatizer is not one.

    Example:
        >>> from monai_cadp.networks import ConditionalINN, ContentBasis
        >>> from monai_cadp.privacy import SubsetSelection
        >>> inn = ConditionalINN(spatial_shape=(8, 8))
        >>> privatizer = Privatizer(inn, SubsetSelection(epsilon=4.0, num_candidates=64), ContentBasis.leading(inn, 4))
        >>> warnings.simplefilter("ignore")  # this transform says that it records no release
        >>> released = Privatize(privatizer)(torch.rand(1, 8, 8))
        >>> released.shape, released.meta["privacy"]["epsilon"]
        (torch.Size([1, 8, 8]), 4.0)
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(self, privatizer: Privatizer, public_meta: Sequence[str] = ()) -> None:
        if not isinstance(privatizer, Privatizer):
            raise TypeError(f"privatizer is a {type(privatizer).__name__}; expected a Privatizer.")
        self.privatizer = privatizer
        self.public_meta = tuple(public_meta)
        self._guarantee: dict[str, Any] | None = None
        warnings.warn(NOT_RECORDED, stacklevel=2)

    def __call__(self, img: np.ndarray | Tensor, condition: Any = None) -> np.ndarray | MetaTensor:
        r"""Release one image.

        Args:
            img: original (C, \*spatial); NumPy array, tensor or MetaTensor of a real type.
            condition: its class, its float vector (K,), or None.

        Returns:
            The release (C, \*spatial), float32: an array for an array, otherwise a MetaTensor whose meta holds the
            guarantee.

        Raises:
            ValueError: if a shape or a class does not fit the network; nothing is released then.
            TypeError: if a type does not.
        """
        return self.release(img, condition)[0]

    def release(self, img: np.ndarray | Tensor, condition: Any = None) -> tuple[np.ndarray | MetaTensor, Any]:
        """Release one image, and return the condition that it was made for as well."""
        image, batched = _as_image(img), _as_condition(condition)
        released, used = self.privatizer.release(image[None], batched)
        used = None if used is None else used[0].cpu()
        released = released[0].cpu()
        if isinstance(img, np.ndarray):
            return released.numpy(), used
        source = img.meta if isinstance(img, MetaTensor) else {}
        meta: dict[str, Any] = {key: source[key] for key in self.public_meta if key in source}
        meta["privacy"] = self.guarantee()
        return MetaTensor(released, affine=meta.get("affine"), meta=meta), used

    def guarantee(self) -> dict[str, Any]:
        """Return the guarantee of one release as plain data, without entries that say nothing."""
        if self._guarantee is None:
            self._guarantee = _without_blanks(self.privatizer.guarantee.to_dict())
        return copy.deepcopy(self._guarantee)


class Privatized(MapTransform):
    """Dictionary-based :class:`Privatize`: releases stand in the place of originals.

    Every key is a release of its own, and spends a budget of its own. Meta dictionaries of a source
    (``image_meta_dict``, ``image_transforms``) are removed. With a label mechanism the randomized label replaces the
    original one.

    Args:
        keys: of the images.
        privatizer: the privatizer.
        condition_key: of the condition; None where the network takes none.
        public_meta: as in :class:`Privatize`.
        allow_missing_keys: as in MONAI's transforms.

    Example:
        >>> from monai_cadp.networks import ConditionalINN, ContentBasis
        >>> from monai_cadp.privacy import SubsetSelection
        >>> inn = ConditionalINN(spatial_shape=(8, 8), num_classes=2)
        >>> privatizer = Privatizer(inn, SubsetSelection(epsilon=4.0, num_candidates=64), ContentBasis.leading(inn, 4))
        >>> warnings.simplefilter("ignore")  # this transform says that it records no release
        >>> transform = Privatized(keys="image", privatizer=privatizer, condition_key="label")
        >>> transform({"image": torch.rand(1, 8, 8), "label": 1})["image"].shape
        torch.Size([1, 8, 8])
    """

    backend = Privatize.backend

    def __init__(
        self,
        keys: KeysCollection,
        privatizer: Privatizer,
        condition_key: Hashable | None = None,
        public_meta: Sequence[str] = (),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.condition_key = condition_key
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.transform = Privatize(privatizer, public_meta)
        # Said once, and about the line that made this transform.
        warnings.warn(NOT_RECORDED, stacklevel=2)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with releases and, where it is not public, the randomized condition.

        Raises:
            KeyError: if the condition is missing.
            ValueError: as in :class:`Privatize`.
            TypeError: as in :class:`Privatize`.
        """
        released = dict(data)
        if self.condition_key is not None and self.condition_key not in data:
            raise KeyError(f"The data have no key {self.condition_key!r}; expected the condition of the image there.")
        condition = None if self.condition_key is None else data[self.condition_key]
        randomized = self.transform.privatizer.label_mechanism is not None
        keys = list(self.key_iterator(released))
        if randomized and len(keys) > 1:
            raise ValueError(
                f"{len(keys)} images share one private label; release them by a transform each, with a label each."
            )
        for key in keys:
            released[key], used = self.transform.release(data[key], condition)
            for suffix in ("meta_dict", "transforms"):
                released.pop(f"{key}_{suffix}", None)
            if randomized:
                released[self.condition_key] = used
        return released


PrivatizeD = PrivatizeDict = Privatized


def _as_image(img: Any) -> Tensor:
    if not isinstance(img, (np.ndarray, Tensor)):
        raise TypeError(f"The image is a {type(img).__name__}; expected an array or a tensor (C, *spatial).")
    if isinstance(img, np.ndarray):
        if img.dtype.kind not in "fiu":
            raise TypeError(f"The image has dtype {img.dtype}; expected real numbers.")
        return torch.as_tensor(img.astype(np.float32))
    if img.is_complex() or img.dtype == torch.bool:
        raise TypeError(f"The image has dtype {img.dtype}; expected real numbers.")
    return (img.as_tensor() if isinstance(img, MetaTensor) else img).float()


def _as_condition(condition: Any) -> Tensor | None:
    if condition is None:
        return None
    try:
        tensor = torch.as_tensor(condition)
    except (TypeError, ValueError, RuntimeError):
        # What the inner error says may hold the value itself.
        raise TypeError(f"The condition is a {type(condition).__name__}; expected numbers.") from None
    tensor = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
    if tensor.is_floating_point():
        return tensor.float()[None]
    # A class may come as a number or as an array of one number.
    return tensor.reshape(1) if tensor.numel() == 1 else tensor[None]


def _without_blanks(plain: Any) -> Any:
    """Leave out None and what is empty: a loader's collation refuses the one, and decollation loses the other."""
    if isinstance(plain, dict):
        return {key: _without_blanks(value) for key, value in plain.items() if value not in (None, [], {})}
    return [_without_blanks(value) for value in plain] if isinstance(plain, list) else plain
