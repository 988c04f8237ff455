# SPDX-License-Identifier: Apache-2.0
"""The scans that come with nibabel are read the right way up, and every other file is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.processing import resample_from_to

from monai_cadp.data import PublicGrid, ReadVolume

FOLDER = Path(nibabel.__file__).parent / "tests" / "data"
SCANS = ("anatomical.nii", "reoriented_anat_moved.nii", "standard.nii.gz")
GRID = PublicGrid((64, 64, 64), spacing=2.0)


@pytest.mark.parametrize("name", ["anatomical.nii", "reoriented_anat_moved.nii"])
def test_a_scan_lies_as_nibabel_resamples_it(name):
    image = nibabel.load(FOLDER / name)
    head = np.argwhere(image.get_fdata() > 0.15 * np.percentile(image.get_fdata(), 99.9))
    affine = GRID.affine
    affine[:3, 3] += nibabel.affines.apply_affine(image.affine, head.mean(0)) - GRID.centre
    expected = resample_from_to(image, (GRID.spatial_shape, affine), order=1).get_fdata()
    volume = ReadVolume(GRID)(FOLDER / name)[0].numpy()
    # The two treat the half voxels at the border of a scan differently.
    inner = (slice(20, 44),) * 3
    expected, volume = expected[inner], volume[inner]
    same, *flipped = (np.corrcoef(expected.ravel(), np.flip(volume, axis).ravel())[0, 1] for axis in [(), 0, 1, 2])
    assert same > 0.99 and max(flipped) < 0.9


def test_every_file_is_read_or_refused_with_a_reason(refused):
    read = []
    for path in sorted(FOLDER.iterdir()):
        try:
            volume = ReadVolume(GRID)(path)
        except ValueError as refusal:
            assert "; " in str(refusal) and path.name not in str(refusal) and refusal.__cause__ is None
        else:
            assert volume.shape == (1, *GRID.spatial_shape) and volume.max() > 0
            read.append(path.name)
    assert tuple(read) == SCANS
