# SPDX-License-Identifier: Apache-2.0
"""From the T1 scan of a head, or of a brain without its skull, to the public grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_cadp.data.brain_detection import INPUT_KINDS, detect_input_kind
from monai_cadp.data.brain_extraction import extract_brain
from monai_cadp.data.brain_registration import T1_CONTRAST, register_brain
from monai_cadp.data.decoded_image import DecodedImage
from monai_cadp.data.public_grid import PublicGrid
from monai_cadp.data.silence import Refusal
from monai_cadp.data.volume_reading import ReadVolume, Scan, scan_of

__all__ = ["ReadBrain"]

# Overlap of an extracted brain with the template after registration; three real heads have .95 to .97.
OVERLAP, TOLERANCE = 0.94, 0.01


class ReadBrain(ReadVolume):
    r"""Read the T1 scan of a brain as a float32 tensor (1, \*grid.spatial_shape) with values in [0, 1].

    A skull-stripped brain is read as :class:`ReadVolume` reads it. Of a head the brain is extracted
    (:func:`~monai_cadp.data.brain_extraction.extract_brain`), registered to the public template by an affine map
    (:func:`~monai_cadp.data.brain_registration.register_brain`), and sampled on the grid, which lies in the template's
    space. Mask and map are content of the scan: both are dropped, and nothing but the plain tensor comes out. All of it
    looks at this one scan alone, before the mechanism.

    Args:
        grid: the public grid, in the space of the template.
        mass_centre: where the centre of mass of a skull-stripped brain goes, in millimetres from the grid's middle.
        bright: what the 99th percentile of the brain becomes.
        kind: what all scans are, "head" or "brain"; None to detect it for each
            (:func:`~monai_cadp.data.brain_detection.detect_input_kind`).

    Raises:
        ValueError: if the kind is another; when called, as :class:`ReadVolume`, if it cannot be told what a scan shows,
            or a head is refused: without a whole brain of an adult's size that fits the template, or without T1
            contrast.

    Example:
        >>> from monai_cadp.data import brain_template_file
        >>> grid = PublicGrid((12, 15, 12), spacing=14.4, centre=(0.0, -17.0, 5.0))
        >>> bool((ReadBrain(grid)(brain_template_file()) == ReadVolume(grid)(brain_template_file())).all())
        True
    """

    def __init__(
        self,
        grid: PublicGrid,
        mass_centre: Sequence[float] = (0.0, 0.0, 0.0),
        bright: float = 0.85,
        kind: str | None = None,
    ) -> None:
        super().__init__(grid, mass_centre, bright)
        if kind not in (None, *INPUT_KINDS):
            raise ValueError(f"input_kind is {kind!r}; expected head or brain, or null to detect it.")
        self.kind = kind

    def _on_grid(self, decoded: DecodedImage) -> Tensor:
        if self.kind == "brain":
            return super()._on_grid(decoded)
        scan = scan_of(decoded)
        if self.kind is None and detect_input_kind(scan) == "brain":
            return super()._on_grid(decoded)
        mask = extract_brain(scan.voxels, scan.affine)
        voxels = Scan(scan.voxels, mask & scan.head, scan.affine).brightened(self.bright)
        brain = register_brain(voxels, mask, scan.affine)
        if brain.dice < OVERLAP - TOLERANCE:
            raise Refusal(
                f"The brain of a head does not fit the template; expected an overlap (Dice) of {OVERLAP}, give or take "
                f"{TOLERANCE}, after registration."
            )
        if brain.white_to_gray < T1_CONTRAST:
            raise Refusal("A head has no T1 contrast, in which white matter is brighter than gray; give a T1 scan.")
        return torch.from_numpy(brain.on_grid(self.grid).clip(0, 1))[None]
