# SPDX-License-Identifier: Apache-2.0
"""The transforms that put a release in place of an image, inside any MONAI pipeline."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends
from torch import Tensor

from monai_cadp.data import join_masks, split_masks
from monai_cadp.privacy import ItemId, PrivacyLedger
from monai_cadp.release import RecordedReleaser, Releaser
from monai_cadp.release.releaser import BaseReleaser, as_releaser

__all__ = ["Privatize", "PrivatizeD", "PrivatizeDict", "Privatized"]

# By how much intensities may lie beyond 0 to 1, and in which share of an image at most: interpolation carries edges a
# little beyond, percentiles the brightest spots. An image in other units lies far beyond, or in many places: one from
# which its mean was taken has half of its pixels below 0.
BEYOND = ((0.5, 0.0), (0.25, 0.01), (0.02, 0.3))
# Where the meta of MONAI's readers say what was read.
FILE = "filename_or_obj"
NOT_RECORDED = (
    "No release is recorded: every pass over the data releases every image again and spends its budget again. "
    "Give a ledger, which makes every release once."
)


class Privatize(Transform):
    r"""Release an image in place of the original.

    It is not one of MONAI's random transforms: its random draws come from the operating system and not from ``self.R``,
    which data loaders rewind, and no seed makes it repeat itself. It cannot be inverted and leaves no trace in
    ``applied_operations``.

    With a ledger a release is made, and paid for, once: in every epoch, worker, process and rank the same image of the
    same subject has the same release. Without one, every call spends the budget again, and the transform says so.

    Args:
        privatizer: the privatizer, or any other releaser; its guarantee is written to ``meta["privacy"]``.
        public_meta: keys of the source's meta that are declared public and kept, such as "affine"; all others are
            dropped.
        ledger: pays for every subject's releases, and keeps them; None to record nothing.

    Raises:
        TypeError: if the releaser or the ledger is not one.

    Example:
        >>> from monai_cadp.networks import ConditionalINN, ContentBasis
        >>> from monai_cadp.privacy import SubsetSelection
        >>> from monai_cadp.release import Privatizer
        >>> inn = ConditionalINN(spatial_shape=(8, 8))
        >>> privatizer = Privatizer(inn, SubsetSelection(epsilon=4.0, num_candidates=64), ContentBasis.leading(inn, 4))
        >>> warnings.simplefilter("ignore")  # this transform says that it records no release
        >>> released = Privatize(privatizer)(torch.rand(1, 8, 8))
        >>> released.shape, released.meta["privacy"]["epsilon"]
        (torch.Size([1, 8, 8]), 4.0)
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(
        self,
        privatizer: Releaser,
        public_meta: Sequence[str] = (),
        ledger: PrivacyLedger | None = None,
    ) -> None:
        self.releaser = as_releaser(privatizer)
        self.public_meta = tuple(public_meta)
        # Images that are known by their item, and by their pixels.
        self._by_item, self._by_pixels = (
            self.releaser if ledger is None else RecordedReleaser(privatizer, ledger, by_item=by_item)
            for by_item in (True, False)
        )
        if not self._by_item.needs_subjects:
            warnings.warn(NOT_RECORDED, stacklevel=2)

    @property
    def needs_subjects(self) -> bool:
        """Whether releases are recorded, so that images come with subjects."""
        return self._by_item.needs_subjects

    def _chosen(self, by_item: bool) -> BaseReleaser:
        return self._by_item if by_item else self._by_pixels

    def __call__(
        self, img: np.ndarray | Tensor, condition: Any = None, subject: Any = None, item: Any = None
    ) -> np.ndarray | MetaTensor:
        r"""Release one image.

        Args:
            img: original (C, \*spatial); NumPy array, tensor or MetaTensor of a real type.
            condition: its class, its float vector (K,), or None.
            subject: whose image it is, for the ledger: a text, even where it looks like a number.
            item: which image of the subject it is, for the ledger: a path, another text or a number that says nothing
                about its pixels; None to know it by its pixels.

        Returns:
            The release (C, \*spatial), float32: an array for an array, otherwise a MetaTensor whose meta holds the
            guarantee.

        Raises:
            ValueError: if a shape, a class or a subject does not fit, or intensities are far from 0 to 1; nothing is
                released then, and nothing spent.
            TypeError: if a type does not.
            BudgetExceededError: if the subject would be over its cap; nothing is released then, and nothing spent.
        """
        return self.release(img, condition, subject, item)[0]

    def release(
        self, img: np.ndarray | Tensor, condition: Any = None, subject: Any = None, item: Any = None
    ) -> tuple[np.ndarray | MetaTensor, Any]:
        """Release one image, and return the condition that it was made for as well."""
        return self.release_together([img], condition, subject, None if item is None else [item])[0]

    def release_together(
        self, images: Sequence[np.ndarray | Tensor], condition: Any, subject: Any, items: Sequence[Any] | None
    ) -> list[tuple[np.ndarray | MetaTensor, Any]]:
        """Release images of one subject and one condition, all of them or none; as :meth:`release` each.

        With a ledger the budget of all of them is reserved at once, before any of them is drawn.
        """
        tensors, batched = [_as_image(img) for img in images], _as_condition(condition)
        known = items is not None
        releaser = self._chosen(known)
        # Each by itself, so that the error is about the one that does not fit.
        checked = [releaser.inputs(tensor[None], batched) for tensor in tensors]
        for tensor in tensors:
            _check_scale(tensor)
        x = torch.cat([tensor for tensor, _ in checked])
        conditions = None if checked[0][1] is None else torch.cat([one for _, one in checked if one is not None])
        names = None if items is None else [_as_plain(item) for item in items]
        released, used = releaser.draw(x, conditions, [_as_plain(subject)] * len(x), names)
        return [
            (self.like(img, released[i].to(tensors[i].device), known), None if used is None else used[i].cpu())
            for i, img in enumerate(images)
        ]

    def like(self, img: np.ndarray | Tensor, released: Tensor, by_item: bool) -> np.ndarray | MetaTensor:
        """Return a release as the type of its original, with the public part of its meta and the guarantee.

        Args:
            img: the original, of which nothing else is looked at.
            released: the release.
            by_item: whether the original is known by its item.
        """
        if isinstance(img, np.ndarray):
            return released.numpy()
        source = img.meta if isinstance(img, MetaTensor) else {}
        meta: dict[str, Any] = {key: source[key] for key in self.public_meta if key in source}
        meta["privacy"] = self.guarantee(by_item)
        return MetaTensor(released, affine=meta.get("affine"), meta=meta)

    def guarantee(self, by_item: bool = False) -> dict[str, Any]:
        """Return the guarantee of one release as plain data, without entries that say nothing."""
        return _without_blanks(self._chosen(by_item).guarantee.to_dict())


class Privatized(MapTransform):
    r"""Dictionary-based :class:`Privatize`: releases stand in the place of originals.

    Every key is a release of its own, and spends a budget of its own; all keys of an item are released, or none. An
    image and its mask are one release under one budget where ``mask_key`` is given: a mask tells of its image. Meta
    dictionaries of a source are removed: ``image_meta_dict``, ``image_transforms``, and every dictionary with the
    ``filename_or_obj`` that MONAI's readers write which stands under a key that begins with ``image_``, or names the
    same file as the image's own meta. So are the subject and the item. With a label mechanism the randomized label
    replaces the original one. What stands under other keys is passed on as it is.

    Args:
        keys: of the images.
        privatizer: the privatizer, or any other releaser.
        condition_key: of the condition; None where the network takes none.
        public_meta: as in :class:`Privatize`.
        ledger: as in :class:`Privatize`.
        subject_key: where an item says whose images it holds, as a text; needed with a ledger, the releaser's own too.
        item_key: where an item says which of the subject's images it holds. An image is known by it, as in the bundles,
            and where there are several keys also by its own; other pixels under a known name are refused. Without it
            images are known by their pixels, so that it shows which images of a subject are identical; the guarantee
            then lists this among the public facts.
        allow_missing_keys: as in MONAI's transforms.
        mask_key: which of two keys is the mask of the other one: classes (1, \*spatial), 0 for the background. Both are
            released together by a network for images with their masks, as bundles/cadp_3d trains it; the mask keeps its
            type. None where no key is a mask.
        num_mask_classes: with the background; needed with a mask_key.
        reach: of the distances that the network knows masks by, as in :class:`~monai_cadp.data.WithMasks`.

    Raises:
        TypeError: as in :class:`Privatize`.
        ValueError: if one of ledger and subject_key is given without the other, or item_key without them, or if there
            are not two keys with a mask_key and num_mask_classes.

    Example:
        >>> from monai_cadp.networks import ConditionalINN, ContentBasis
        >>> from monai_cadp.privacy import SubsetSelection
        >>> from monai_cadp.release import Privatizer
        >>> inn = ConditionalINN(spatial_shape=(8, 8), num_classes=2)
        >>> privatizer = Privatizer(inn, SubsetSelection(epsilon=4.0, num_candidates=64), ContentBasis.leading(inn, 4))
        >>> warnings.simplefilter("ignore")  # this transform says that it records no release
        >>> transform = Privatized(keys="image", privatizer=privatizer, condition_key="label")
        >>> transform({"image": torch.rand(1, 8, 8), "label": 1})["image"].shape
        torch.Size([1, 8, 8])

        An image and its mask of two classes are channels of one network:

        >>> inn = ConditionalINN(spatial_shape=(8, 8), in_channels=2)
        >>> privatizer = Privatizer(inn, SubsetSelection(epsilon=4.0, num_candidates=64), ContentBasis.leading(inn, 4))
        >>> transform = Privatized(["image", "label"], privatizer, mask_key="label", num_mask_classes=2)
        >>> pair = transform({"image": torch.rand(1, 8, 8), "label": torch.ones(1, 8, 8)})
        >>> pair["image"].shape, pair["label"].shape
        (torch.Size([1, 8, 8]), torch.Size([1, 8, 8]))
    """

    backend = Privatize.backend

    def __init__(
        self,
        keys: KeysCollection,
        privatizer: Releaser,
        condition_key: Hashable | None = None,
        public_meta: Sequence[str] = (),
        ledger: PrivacyLedger | None = None,
        subject_key: Hashable | None = None,
        item_key: Hashable | None = None,
        allow_missing_keys: bool = False,
        mask_key: Hashable | None = None,
        num_mask_classes: int | None = None,
        reach: float | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key, self.num_mask_classes, self.reach = mask_key, num_mask_classes, reach
        self._check_masks()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.transform = Privatize(privatizer, public_meta, ledger)
        recorded = self.transform.needs_subjects
        if recorded != (subject_key is not None):
            given, other = ("ledger", "subject_key") if recorded else ("subject_key", "ledger")
            raise ValueError(f"A {given} was given without a {other}; give both, or neither.")
        if item_key is not None and not recorded:
            raise ValueError("An item_key was given without a ledger; give both, or neither.")
        self.condition_key, self.subject_key, self.item_key = condition_key, subject_key, item_key
        if self.transform.releaser.condition_space.is_randomized and condition_key is None:
            raise ValueError("The label is private, but no condition_key says where it is; give one.")
        if not recorded:
            # Said once, and about the line that made this transform.
            warnings.warn(NOT_RECORDED, stacklevel=2)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with releases and, where it is not public, the randomized condition.

        Raises:
            KeyError: if the condition or the subject is missing.
            ValueError: as in :class:`Privatize`.
            TypeError: as in :class:`Privatize`.
            BudgetExceededError: as in :class:`Privatize`.
        """
        released = dict(data)
        named = ((self.condition_key, "condition"), (self.subject_key, "subject"), (self.item_key, "number or name"))
        for key, what in named:
            if key is not None and key not in data:
                raise KeyError(f"The data have no key {key!r}; expected the {what} of the image there.")
        subject = None if self.subject_key is None else released.pop(self.subject_key)
        condition = None if self.condition_key is None else data[self.condition_key]
        randomized = self.transform.releaser.condition_space.is_randomized
        keys = list(self.key_iterator(released))
        masks = () if self.mask_key is None else (self.mask_key,)
        if masks and len(keys) == 1:
            raise KeyError("An image came without its mask, or a mask without its image; expected both, or neither.")
        # With a mask the image alone names their one release.
        keys = [key for key in keys if key not in masks]
        if randomized and len(keys) > 1:
            raise ValueError(
                f"{len(keys)} images share one private label; release them by a transform each, with a label each."
            )
        item = None if self.item_key is None else ItemId(_as_plain(released.pop(self.item_key))).canonical
        single = len(self.keys) - len(masks) == 1
        names = None if item is None else [item if single else _of_key(key, item) for key in keys]
        images = [self._joined(data[key], data[masks[0]]) if masks else data[key] for key in keys]
        together = self.transform.release_together(images, condition, subject, names) if keys else []
        for key, (release, used) in zip(keys, together, strict=True):
            parts = {key: release}
            if masks:
                parts = self._split(release, {one: data[one] for one in (key, *masks)}, item is not None)
            released |= parts
            for one in parts:
                for name in [name for name, value in released.items() if _is_header(name, value, one, data[one])]:
                    del released[name]
            if randomized:
                released[self.condition_key] = used
        return released

    def _check_masks(self) -> None:
        if self.mask_key is None:
            if self.num_mask_classes is not None or self.reach is not None:
                raise ValueError("num_mask_classes or reach was given without a mask_key; say which key is the mask.")
            return
        if len(self.keys) != 2 or self.mask_key not in self.keys:
            raise ValueError(f"mask_key is {self.mask_key!r}; expected one of two keys, of an image and of its mask.")
        if self.num_mask_classes is None or self.num_mask_classes < 2:
            raise ValueError(
                f"num_mask_classes is {self.num_mask_classes}; expected two or more, with the background, for the mask."
            )

    def _joined(self, image: Any, mask: Any) -> Tensor:
        """Return an image with the channels of its mask, without what either carries along."""
        parts = [_as_image(part)[None] for part in (image, mask)]
        return join_masks(parts[0], parts[1].to(parts[0].device), cast(int, self.num_mask_classes), self.reach)[0]

    def _split(self, release: Any, sources: Mapping[Hashable, Any], by_item: bool) -> dict[Hashable, Any]:
        """Return the image and the mask of a release, of the types that their sources have."""
        joined, num_classes = release.as_tensor()[None], cast(int, self.num_mask_classes)
        # The mask of what a released folder would hold, whose channels are clipped.
        parts = split_masks(joined, num_classes)[0], split_masks(joined.clamp(0, 1), num_classes)[1]
        found = {}
        for (key, source), (part,) in zip(sources.items(), parts, strict=True):
            if key == self.mask_key:
                part = part.to(torch.as_tensor(source).device, torch.as_tensor(source).dtype)
            found[key] = self.transform.like(source, part, by_item)
        return found


PrivatizeD = PrivatizeDict = Privatized


def _of_key(key: Hashable, item: str) -> str:
    """Return the name of one image of an item that holds several; with its length before it no key runs over."""
    text = _as_text(key)
    return f"{len(text)} {text} {item}"


def _is_header(name: Hashable, value: Any, key: Hashable, source: Any) -> bool:
    """Return whether an entry of an item is meta of the source that stands under a key."""
    prefix = f"{_as_text(key)}_"
    if _as_text(name) in (f"{prefix}meta_dict", f"{prefix}transforms"):
        return True
    if not isinstance(value, Mapping) or FILE not in value:
        return False
    meta = source.meta if isinstance(source, MetaTensor) else {}
    return _as_text(name).startswith(prefix) or (FILE in meta and str(value[FILE]) == str(meta[FILE]))


def _as_text(key: Hashable) -> str:
    """Return a key as text; of a text what it is, and not what a subclass of it says about itself."""
    return str.__str__(key) if isinstance(key, str) else str(key)


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


def _check_scale(image: Tensor) -> None:
    """Refuse an image in other units than the networks know: its release would be of a white or a black one."""
    if image.ndim == 1:
        return  # a row of a table
    finite = image[torch.isfinite(image)]
    if not len(finite):
        raise ValueError("An image has no intensity that is a number; read it again, or leave it out.")
    beyond = torch.maximum(-finite, finite - 1)
    if any(float((beyond > by).float().mean()) > share for by, share in BEYOND):
        raise ValueError(
            "An image has intensities beyond 0 to 1; bring it there by a public range before its release, as "
            "ScaleIntensityRanged with clip=True does."
        )


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
    # A class may come as a number or as an array of one number; several whole numbers are labels that apply or do not.
    return tensor.reshape(1) if tensor.numel() == 1 else tensor.float()[None]


def _as_plain(value: Any) -> Any:
    """Return the number or text that an array or tensor of one element holds; the ledger refuses all but these."""
    if isinstance(value, np.ndarray | np.generic | Tensor) and np.asarray(value).size == 1:
        return value.item()
    return value


def _without_blanks(plain: Any) -> Any:
    """Leave out None and what is empty: a loader's collation refuses the one, and decollation loses the other."""
    if isinstance(plain, dict):
        return {key: _without_blanks(value) for key, value in plain.items() if value not in (None, [], {})}
    return [_without_blanks(value) for value in plain] if isinstance(plain, list) else plain
