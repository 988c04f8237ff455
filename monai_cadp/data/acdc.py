# SPDX-License-Identifier: Apache-2.0
"""Hearts in magnetic resonance with five diagnoses, in the layout in which they are published."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, ResizeWithPadOrCrop, ScaleIntensityRangePercentiles, Spacing
from torch import Tensor
from torch.utils.data import Dataset

from monai_cadp.data.decoding import decode_image
from monai_cadp.data.item_code import item_code
from monai_cadp.data.silence import read_silently

__all__ = ["ACDC"]

GROUPS = ("NOR", "MINF", "DCM", "HCM", "RV")
# The end of the filling and of the contraction of the heart.
PHASES = ("ED", "ES")
FOLDERS = {"train": "training", "test": "testing"}


class ACDC(Dataset):
    r"""Items {"image": float32 (1, X, Y, Z) in [0, 1], "label", "mask", "subject", "item"} of every heart, twice.

    The folder is that of the publishers: ``training/patient001`` and so on, each with ``Info.cfg``,
    ``patient001_frame01.nii.gz`` and ``patient001_frame01_gt.nii.gz``. The frames at the end of diastole and of systole
    are brought to a public spacing and size around the middle of the scan, and from their 1st and 99th percentile to 0
    and 1; none of it comes out. The label is the diagnosis, 0 to 4 for NOR, MINF, DCM, HCM, RV; the mask has 0 for the
    background, 1 for the right ventricle, 2 for the myocardium, 3 for the left ventricle.

    Args:
        root: the folder.
        split: "train" or "test".
        spatial_shape: public size in voxels.
        spacing: public size of a voxel along each axis, in millimetres.
        slices: items are the slices of the volumes, (1, X, Y), in place of the volumes; a slice's item says which.

    Raises:
        ValueError: if the folder has no patient, or an ``Info.cfg`` is missing or damaged; when an item is read, if a
            file is missing, damaged or no volume. Errors name no patient.

    References:
        Bernard et al.: Deep learning techniques for automatic MRI cardiac multi-structures segmentation and diagnosis,
        IEEE Transactions on Medical Imaging 37, 2018.
    """

    num_classes = len(GROUPS)

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        spatial_shape: Sequence[int] = (128, 128, 8),
        spacing: Sequence[float] = (1.5, 1.5, 10.0),
        slices: bool = False,
    ) -> None:
        if split not in FOLDERS:
            raise ValueError(f"The split is {split!r}; expected one of {', '.join(FOLDERS)}.")
        if len(spatial_shape) != 3 or len(spacing) != 3 or not min(*spatial_shape, *spacing) > 0:
            raise ValueError(
                f"The size is {tuple(spatial_shape)} and the spacing {tuple(spacing)}; expected three positive numbers "
                "each."
            )
        self.spatial_shape, self.spacing, self.slices = tuple(spatial_shape), tuple(spacing), slices
        folder = Path(root) / FOLDERS[split]
        patients = read_silently(
            lambda: sorted(path for path in folder.glob("patient*") if path.is_dir()),
            "The folder could not be read; check its path and its permissions.",
        )
        if not patients:
            raise ValueError(f"The folder holds no patient; expected {FOLDERS[split]}/patient001 and so on in it.")
        self._frames = []
        for patient in patients:
            info = _info(patient / "Info.cfg")
            self._frames += [(patient, int(info[phase]), GROUPS.index(info["Group"])) for phase in PHASES]

    def __len__(self) -> int:
        """Return the number of volumes, or of slices."""
        return len(self._frames) * (self.spatial_shape[2] if self.slices else 1)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Read one volume or slice; returns it with its diagnosis, its mask where there is one, and whose it is."""
        if not 0 <= index < len(self):
            raise IndexError(f"There is no item {index}; there are {len(self)}.")
        depth = self.spatial_shape[2] if self.slices else 1
        (patient, frame, label), level = self._frames[index // depth], index % depth
        stem = f"{patient.name}_frame{frame:02d}"
        volumes = {"image": self._read(patient / f"{stem}.nii.gz", "bilinear")}
        mask = patient / f"{stem}_gt.nii.gz"
        if mask.exists():
            volumes["mask"] = self._read(mask, "nearest").round().long()
        if self.slices:
            volumes = {key: volume[..., level] for key, volume in volumes.items()}
        name = f"{stem}_{level}" if self.slices else stem
        return {**volumes, "label": torch.tensor(label), "subject": patient.name, "item": item_code(name)}

    def _read(self, path: Path, mode: str) -> Tensor:
        decoded = decode_image(path, 3)
        if decoded.affine is None or len(decoded.voxels) != 1:
            raise ValueError("A frame is not one volume; download the data again.")
        volume = MetaTensor(decoded.voxels.astype("float32"), affine=torch.as_tensor(decoded.affine))
        scaled = [ScaleIntensityRangePercentiles(1, 99, 0.0, 1.0, clip=True)] if mode == "bilinear" else []
        spaced = Spacing(self.spacing, mode=mode, padding_mode="zeros")
        steps = Compose([spaced, *scaled, ResizeWithPadOrCrop(self.spatial_shape)])
        return read_silently(
            lambda: steps(volume).as_tensor(), "A frame could not be brought to its size; download the data again."
        )


def _info(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        if info["Group"] in GROUPS and all(int(info[phase]) > 0 for phase in PHASES):
            return info
    except (OSError, UnicodeDecodeError, KeyError, ValueError):
        pass
    raise ValueError("An Info.cfg is missing or damaged; expected lines such as 'Group: DCM', 'ED: 1' and 'ES: 12'.")
