# SPDX-License-Identifier: Apache-2.0
"""From the path of an image to a tensor of a public shape and a public scale."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from torch import Tensor
from torch.nn import functional

from monai_cadp.data.decoding import decode_image

__all__ = ["ReadImage", "ReadImaged", "ReadImageD", "ReadImageDict", "fit_image"]

# ITU-R BT.601, as in every picture library.
LUMINANCE = (0.299, 0.587, 0.114)


class ReadImage(Transform):
    r"""Read one image file as a float32 tensor (in_channels, \*spatial_shape) with values in [0, 1].

    The scale is public: an intensity range fixed beforehand, to which values are clipped. It is never taken from the
    image itself, because scaling by an image's own extremes (or percentiles) is a data-dependent step outside the
    guarantee and makes one voxel of a patient decide all others. Nothing of the file but its voxels comes out: a plain
    tensor, no meta.

    Pictures (PNG, JPEG, BMP, TIFF), NIfTI, DICOM (a file, or the folder of one series), MetaImage and NRRD are read.
    Volumes are turned to point right, anterior, superior. The whole image is stretched to ``spatial_shape``.

    Args:
        spatial_shape: public size in voxels, (H, W) or three numbers.
        in_channels: 1 or 3 for pictures (gray and color are converted into each other), otherwise the channels of the
            file.
        intensity_range: the values (low, high) that become 0 and 1, in the units of the file (Hounsfield units for CT).
            May be left out for pictures of 8 bits (0, 255) and 16 bits (0, 65535); required for everything else. Values
            that are NaN or infinite become low.

    Raises:
        ValueError: if a parameter is out of range; when called, if the file is missing, damaged or of an unknown
            format, has another number of dimensions or channels, or needs an intensity range. Errors never hold a path
            or a name.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (12, 10), color=255).save(f"{folder}/a.png")
        ...     image = ReadImage(spatial_shape=(4, 4))(f"{folder}/a.png")
        >>> image.shape, round(float(image.min()), 4)
        (torch.Size([1, 4, 4]), 1.0)
    """

    def __init__(
        self,
        spatial_shape: Sequence[int],
        in_channels: int = 1,
        intensity_range: tuple[float, float] | None = None,
    ) -> None:
        self.spatial_shape = _checked_shape(spatial_shape)
        if in_channels < 1:
            raise ValueError(f"in_channels is {in_channels}; expected a positive number.")
        self.in_channels = in_channels
        self.intensity_range = None if intensity_range is None else _checked_range(intensity_range)

    def __call__(self, path: str | os.PathLike[str]) -> Tensor:
        r"""Read the file at ``path``; returns a tensor (in_channels, \*spatial_shape)."""
        decoded = decode_image(path, len(self.spatial_shape))
        intensity_range = self.intensity_range or decoded.format_range
        if intensity_range is None:
            raise ValueError(
                "An image has no public scale of its own; pass intensity_range=(low, high) in the units of the file."
            )
        low, high = intensity_range
        voxels = np.where(np.isfinite(decoded.voxels), decoded.voxels, np.float32(low))
        image = torch.from_numpy((voxels.clip(low, high) - low) / (high - low)).float()
        if decoded.is_inverted:
            image = 1 - image
        if len(image) != self.in_channels and not decoded.is_color and len(image) != 1:
            raise ValueError(f"An image has {len(image)} channels; expected {self.in_channels}, the in_channels given.")
        return fit_image(image, self.spatial_shape, self.in_channels)


class ReadImaged(MapTransform):
    r"""Dictionary form of :class:`ReadImage`: paths under ``keys`` are replaced by tensors; no key is added.

    Args:
        keys: keys of the paths.
        spatial_shape: public size in voxels.
        in_channels: channels of the tensors.
        intensity_range: the values (low, high) that become 0 and 1.
        allow_missing_keys: leave out keys that an item does not have.

    Raises:
        ValueError: as :class:`ReadImage`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (4, 4)).save(f"{folder}/a.png")
        ...     item = ReadImaged("image", spatial_shape=(4, 4))({"image": f"{folder}/a.png", "label": 3})
        >>> item["image"].shape, item["label"]
        (torch.Size([1, 4, 4]), 3)
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_shape: Sequence[int],
        in_channels: int = 1,
        intensity_range: tuple[float, float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.read_image = ReadImage(spatial_shape, in_channels, intensity_range)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with tensors in the place of paths."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.read_image(result[key])
        return result


ReadImageD = ReadImageDict = ReadImaged


def fit_image(image: Tensor, spatial_shape: Sequence[int] | None, in_channels: int | None) -> Tensor:
    r"""Bring an image to a public number of channels and a public size.

    One channel is repeated to three; three become their luminance. Sizes change by linear interpolation, which
    averages over all voxels where the image shrinks.

    Args:
        image: (C, \*spatial), values in [0, 1].
        spatial_shape: the size, or None to keep it.
        in_channels: the channels, or None to keep them.

    Returns:
        A plain contiguous tensor (in_channels, \*spatial_shape), values in [0, 1].

    Raises:
        ValueError: if the channels cannot be converted, or the numbers of dimensions differ.

    Example:
        >>> fit_image(torch.rand(1, 8, 8), spatial_shape=(4, 6), in_channels=3).shape
        torch.Size([3, 4, 6])
    """
    if in_channels is not None and len(image) != in_channels:
        if (len(image), in_channels) == (1, 3):
            image = image.repeat(3, *(1,) * (image.ndim - 1))
        elif (len(image), in_channels) == (3, 1):
            image = torch.einsum("c,c...->...", image.new_tensor(LUMINANCE), image)[None]
        else:
            raise ValueError(f"An image has {len(image)} channels; expected {in_channels}, the in_channels given.")
    if spatial_shape is not None and tuple(image.shape[1:]) != tuple(spatial_shape):
        if image.ndim - 1 != len(spatial_shape):
            raise ValueError(f"An image has {image.ndim - 1} spatial dimensions; expected {len(spatial_shape)}.")
        image = _resize(image, tuple(spatial_shape))
    return image.as_subclass(torch.Tensor).clamp(0, 1).contiguous()


def _resize(image: Tensor, spatial_shape: tuple[int, ...]) -> Tensor:
    # torch filters before it shrinks in two dimensions only, so a volume is resized in its last two axes, then in its
    # first. MONAI's anti-aliasing pads with zeros and would darken the border.
    height_width = spatial_shape[-2:]
    planes = image if image.ndim == 4 else image[None]
    planes = functional.interpolate(planes, height_width, mode="bilinear", antialias=True)
    if image.ndim == 3:
        return planes[0]
    columns = (spatial_shape[0], height_width[0] * height_width[1])
    volume = functional.interpolate(planes.flatten(2)[None], columns, mode="bilinear", antialias=True)
    return volume.reshape(len(image), *spatial_shape)


def _checked_shape(spatial_shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(int(size) for size in spatial_shape)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"spatial_shape is {shape}; expected two or three positive sizes.")
    return shape


def _checked_range(intensity_range: Sequence[float]) -> tuple[float, float]:
    values = tuple(float(value) for value in intensity_range)
    if len(values) != 2 or not all(math.isfinite(value) for value in values) or not values[0] < values[1]:
        raise ValueError(f"intensity_range is {values}; expected two finite numbers (low, high) with low < high.")
    return values[0], values[1]
