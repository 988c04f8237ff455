# SPDX-License-Identifier: Apache-2.0
"""One public volume beside what is released in its place, at several epsilons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_cadp.data import PublicGrid, save_image_grid
from monai_cadp.networks import TrainedModel
from monai_cadp.privacy import SubsetSelection
from monai_cadp.release.folder_release import release_folder
from monai_cadp.release.privatizer import Privatizer

__all__ = ["epsilon_sweep"]


def epsilon_sweep(
    model: TrainedModel,
    volumes: Dataset,
    output_dir: str | Path,
    epsilons: Sequence[float],
    grid: PublicGrid,
    **options: Any,
) -> Path:
    """Release one public volume at several epsilons, and draw it beside its releases.

    The new folder holds ``epsilon_<epsilon>`` with the release and its card, as :func:`release_folder` writes them, and
    ``releases.png``: three slices of the original in the first row, of one release in every other. It shows an
    original, and several releases of it: it is for a volume that anybody may see.

    Args:
        model: releases the volume, on its content basis.
        volumes: one item {"image": (1, X, Y, Z)}.
        output_dir: the new folder.
        epsilons: budgets of one volume; each release spends its own.
        grid: the public grid on which the volume lies.
        options: further arguments of :class:`~monai_cadp.release.Privatizer`.

    Returns:
        The folder.

    Raises:
        ValueError: if there is not exactly one volume, an epsilon is not usable, or the folder exists.
    """
    count = len(volumes)  # type: ignore[arg-type]
    if count != 1:
        raise ValueError(f"A sweep got {count} volumes; expected one, which anybody may see.")
    privatizers = [Privatizer(model, SubsetSelection(float(epsilon)), **options) for epsilon in epsilons]
    output_dir = Path(output_dir)
    rows: list[Tensor] = [volumes[0]["image"]]
    for one in privatizers:
        folder = release_folder(one, volumes, output_dir / f"epsilon_{one.mechanism.epsilon:g}", grid=grid)
        (file,) = folder.glob("*.nii.gz")
        released = np.asarray(nibabel.load(file).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
        rows.append(torch.from_numpy(released)[None])
    picture = output_dir / "releases.png"
    save_image_grid(torch.stack(rows), picture, columns=1)
    print(f"The original, first row, and its releases: {picture}")
    return output_dir
