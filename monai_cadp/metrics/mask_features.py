# SPDX-License-Identifier: Apache-2.0
"""What a mask says of its volume: size, surface, place, and how bright it is inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from monai_cadp.data import split_masks

__all__ = ["MASK_FEATURES", "MaskFeatures"]


def _volume(image: Tensor, mask: Tensor, spacing: float) -> Tensor:
    return mask.sum((1, 2, 3)) * spacing**3 / 1000


def _surface(image: Tensor, mask: Tensor, spacing: float) -> Tensor:
    # The integral of the gradient's length is the surface (coarea formula); steps of voxels alone would count too much.
    smooth = avg_pool3d(torch.nn.functional.pad(mask, (2, 2) * 3)[:, None], 3, stride=1)[:, 0]
    slopes = torch.gradient(smooth, dim=(1, 2, 3))
    return torch.stack(slopes).square().sum(0).sqrt().sum((1, 2, 3)) * spacing**2 / 100


def _offset(axis: int) -> Callable[[Tensor, Tensor, float], Tensor]:
    def offset(image: Tensor, mask: Tensor, spacing: float) -> Tensor:
        size = mask.shape[axis + 1]
        places = (torch.arange(size, device=mask.device) - (size - 1) / 2) * spacing
        along = mask.sum([other + 1 for other in range(3) if other != axis])
        return (along * places).sum(1) / along.sum(1).clamp(min=1)

    return offset


def _intensity(image: Tensor, mask: Tensor, spacing: float) -> Tensor:
    return (image * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)


MEASURES = {
    "volume": _volume,
    "surface": _surface,
    "offset_x": _offset(0),
    "offset_y": _offset(1),
    "offset_z": _offset(2),
    "intensity": _intensity,
}
#: What can be measured of a class.
MASK_FEATURES = tuple(MEASURES)
# Of the classes, in the place of a number.
ALL = "all"


class MaskFeatures:
    r"""Numbers of the classes of a mask that is released with its volume, to be declared as content or compared.

    ``volume_1`` is the volume of class 1 in millilitres, ``surface_1`` its surface in square centimetres,
    ``offset_x_1`` (y, z) how far its centre lies right (anterior, superior) of the middle of the grid in millimetres,
    and ``intensity_1`` the mean intensity within it; ``volume_all`` and so on are those of all classes together. All of
    a class that is nowhere are 0.

    Args:
        names: what to measure, one of :data:`MASK_FEATURES` with the number of a class, or ``all``, each.
        num_mask_classes: with the background.
        spacing: of the public grid, in millimetres.

    Raises:
        ValueError: if a name is unknown, or there is none; when called, if the volumes have too few channels.

    Example:
        >>> features = MaskFeatures(["volume_1", "offset_x_1"], num_mask_classes=2, spacing=10.0)
        >>> volumes = torch.zeros(1, 2, 4, 4, 4)
        >>> volumes[:, 1, 3] = 1.0
        >>> features(volumes)
        tensor([[16., 15.]])
    """

    def __init__(self, names: Sequence[str], num_mask_classes: int, spacing: float) -> None:
        labels = [*range(1, num_mask_classes), ALL]
        known = {f"{name}_{label}": (name, label) for label in labels for name in MEASURES}
        if isinstance(names, str) or not names or not set(names) <= set(known):
            raise ValueError(
                f"The features of masks are {names!r}; expected a list of {', '.join(MEASURES)}, each with _ and the "
                f"number of a class, 1 to {num_mask_classes - 1}, or {ALL}."
            )
        if not spacing > 0:
            raise ValueError(f"spacing is {spacing}; expected a positive number of millimetres.")
        self.names, self.num_mask_classes, self.spacing = tuple(names), num_mask_classes, spacing
        self._measured = [known[name] for name in names]
        # By which guarantees and caches know the function.
        self.__qualname__ = f"MaskFeatures({', '.join(names)}; spacing {spacing:g})"

    def __call__(self, volumes: Tensor) -> Tensor:
        """Return features (B, k) of volumes (B, C, D, H, W) whose last channels hold their masks."""
        images, masks = split_masks(volumes.float(), self.num_mask_classes)
        columns = []
        for name, label in self._measured:
            mask = masks[:, 0] > 0 if label == ALL else masks[:, 0] == label
            columns.append(MEASURES[name](images[:, 0], mask.float(), self.spacing))
        return torch.stack(columns, dim=1)
