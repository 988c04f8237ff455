# SPDX-License-Identifier: Apache-2.0
"""Whether a scan shows a head, or a brain without its skull."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from monai_cadp.data.brain_registration import T1_CONTRAST, register_brain
from monai_cadp.data.public_grid import PublicGrid
from monai_cadp.data.resampling import resampled
from monai_cadp.data.silence import Refusal
from monai_cadp.data.volume_reading import Scan

__all__ = ["INPUT_KINDS", "detect_input_kind"]

#: What a scan may show.
INPUT_KINDS = ("head", "brain")
# Looked at within a cube around the centre of mass; compared with the template on somewhat larger voxels.
LOOK, LOOK_SPACING, SPACING = (80, 80, 80), 4.0, 4.8
# The largest piece that is not background, without its holes, in millilitres. Children's heads are larger than that,
# and the brain of the template is not much smaller.
BRAIN, HEAD = (700.0, 3000.0), (2000.0, 9000.0)
# Overlap of that piece with the template's brain after affine registration. Brains have .90 or more, on voxels of 7 mm
# too; heads, from which no affine map takes the face and the neck, and halves of brains .85 or less.
OVERLAP_OF_BRAINS, OVERLAP_OF_HEADS = 0.89, 0.86
# Of the affine map, along its most stretched axis against the least: halves and slabs need more to fit.
STRETCH = 1.5


def detect_input_kind(scan: Scan) -> str:
    """Tell the T1 scan of a head from that of a skull-stripped brain, by rules that are the same for everybody.

    Of the largest piece that is not background, size, overlap with the template and T1 contrast are looked at. What
    cannot be told is refused; whether a head is one, its extraction and registration tell further.

    Args:
        scan: what is told.

    Returns:
        "head" or "brain".

    Raises:
        Refusal: if it is neither, or cannot be told.
    """
    look = PublicGrid(LOOK, LOOK_SPACING, scan.mass_centre.tolist()).affine
    seen = resampled(scan.voxels, scan.affine, look, LOOK, outside=0.0)
    piece = _largest_piece(resampled(scan.head.astype(np.float32), scan.affine, look, LOOK, outside=0.0) > 0.5)
    volume = piece.sum() * LOOK_SPACING**3 / 1000
    if volume < BRAIN[0]:
        raise _refusal("something smaller than a brain")
    if volume > HEAD[1]:
        raise _refusal("something larger than a head")
    if volume > BRAIN[1]:
        return "head"
    brain = register_brain(seen, piece, look, SPACING)
    if brain.dice >= OVERLAP_OF_BRAINS and brain.stretch <= STRETCH:
        if brain.white_to_gray < T1_CONTRAST:
            raise _refusal("the shape of a brain without T1 contrast")
        return "brain"
    if brain.dice > OVERLAP_OF_HEADS or volume < HEAD[0]:
        raise _refusal("what is neither surely a head nor surely a brain")
    return "head"


def _largest_piece(found: np.ndarray) -> np.ndarray:
    pieces, count = ndimage.label(found)
    if not count:
        return found
    largest = np.bincount(pieces[pieces > 0]).argmax()
    return ndimage.binary_fill_holes(pieces == largest)


def _refusal(what: str) -> Refusal:
    return Refusal(
        f"A scan shows {what}; expected the T1 scan of a whole head or brain: if it is one, say which by input_kind."
    )
