# SPDX-License-Identifier: Apache-2.0
"""Where markers of a phantom come to lie that is written in many ways, and how many ways are refused by name.

python -m benchmarks.reading --out results/reading.json
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import center_of_mass, label
from scipy.optimize import linear_sum_assignment

from benchmarks.reading_phantom import CENTRE, GRID, MARKERS, VARIANTS, Variant, phantom, places, write_mask
from benchmarks.report import print_table, write_json
from monai_cadp.data import ReadLabelledVolume, ReadVolume

__all__ = ["Outcome", "outcome"]

# The middle voxel of the grid is that of the volume.
MIDDLE = (np.array(GRID.spatial_shape) - 1) // 2
# Brighter than the body, and darker than the weakest marker.
BETWEEN = 450
READ_PAIR = ReadLabelledVolume(GRID, num_mask_classes=2, percentiles=(0, 100))
READ_SCAN = ReadVolume(GRID, bright=0.5)


@dataclass(frozen=True)
class Outcome:
    """What the readers made of a variant.

    Args:
        refusals: what each reader said in place of an image.
        error: of the marker that is farthest from its place, in voxels of the grid; infinite if a marker is missing.
        correlation: with the phantom at the voxels of the grid.
    """

    refusals: tuple[str, ...] = ()
    error: float | None = None
    correlation: float | None = None

    def holds(self, variant: Variant, largest_error: float = 0.5, least_correlation: float = 0.98) -> bool:
        """Return whether that is what is asked of it."""
        if variant.refusal is not None:
            return len(self.refusals) == 2 and all(variant.refusal in one for one in self.refusals)
        if self.refusals or self.error is None or self.correlation is None:
            return False
        return self.error <= largest_error and (not variant.is_linear or self.correlation >= least_correlation)


def outcome(variant: Variant, folder: Path) -> Outcome:
    """Write a variant into an empty folder, and read it by both readers of volumes: with a mask, and alone."""
    path, mask = variant.write(folder), folder / "mask.nii.gz"
    write_mask(mask)
    errors, refusals, correlation = [], [], None
    try:
        image, classes = (part[0].numpy() for part in READ_PAIR(path, mask))
        errors.append(_apart(_markers(image), MARKERS, MIDDLE))
        errors.append(float(np.abs(np.argwhere(classes).mean(0) - MIDDLE - MARKERS[-1] / GRID.spacing).max()))
        correlation = float(np.corrcoef(image.ravel(), _truth().ravel())[0, 1])
    except ValueError as refusal:
        refusals.append(str(refusal))
    try:
        # A scan alone is moved by its centre of mass.
        found = _markers(READ_SCAN(path)[0].numpy())
        errors.append(_apart(found, MARKERS, found.mean(0) - MARKERS.mean(0) / GRID.spacing))
    except ValueError as refusal:
        refusals.append(str(refusal))
    return Outcome(tuple(refusals), max(errors, default=None), correlation)


def _markers(image: np.ndarray) -> np.ndarray:
    """Return the places of what is brighter than anything else, in voxels (n, 3)."""
    bright = np.clip(image - np.quantile(image, 1 - np.mean(_truth() > BETWEEN)), 0, None)
    pieces, count = label(bright > 0)
    return np.array(center_of_mass(bright, pieces, range(1, count + 1))).reshape(-1, 3)


@cache
def _truth() -> np.ndarray:
    """Return the phantom at the voxels of the grid."""
    affine = np.diag([GRID.spacing] * 3 + [1.0])
    affine[:3, 3] = CENTRE - GRID.spacing * MIDDLE
    return phantom(places(affine, GRID.spatial_shape))


def _apart(found: np.ndarray, markers: np.ndarray, middle: np.ndarray) -> float:
    if len(found) != len(markers):
        return float("inf")
    distances = np.linalg.norm(found[:, None] - middle - markers / GRID.spacing, axis=-1)
    return float(distances[linear_sum_assignment(distances)].max())


def summarised(found: Sequence[tuple[Variant, Outcome]]) -> dict[str, Any]:
    """Return the figures of each format and of the tilts, and what does not hold."""
    rows = []
    for kind in dict.fromkeys(variant.kind for variant, _ in found):
        ours = [(variant, one) for variant, one in found if variant.kind == kind]
        errors = [one.error for _, one in ours if not one.refusals and one.error is not None]
        rows.append(
            {
                "format": kind,
                "variants": len(ours),
                "read": len(errors),
                "refused": sum(len(one.refusals) == 2 for _, one in ours),
                "largest error, voxels": round(max(errors), 3),
            }
        )
    tilts = {variant.name: one.correlation for variant, one in found if variant.tilt is not None}
    return {
        "variants": len(found),
        "by_format": rows,
        "least_correlation": round(
            min(one.correlation for variant, one in found if variant.is_linear and one.correlation is not None), 4
        ),
        "correlation_of_tilts": {name: None if value is None else round(value, 4) for name, value in tilts.items()},
        "not as asked": [f"{variant.kind}, {variant.name}" for variant, one in found if not one.holds(variant)],
    }


def main() -> None:
    """Read all variants and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = []
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            found.append((variant, outcome(variant, Path(folder))))
    result = summarised(found)
    print_table(result["by_format"])
    write_json(options.out, result)


if __name__ == "__main__":
    main()
