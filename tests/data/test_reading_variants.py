# SPDX-License-Identifier: Apache-2.0
"""A phantom in every format, orientation, shear, tilt, unit and code is read where it lies, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.reading import outcome
from benchmarks.reading_phantom import RAS, SPACING, VARIANTS, Variant, nifti, rotation, sheared
from tests.conftest import assert_one_sentence


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: f"{variant.kind}, {variant.name}")
def test_markers_are_within_half_a_voxel_or_the_variant_is_refused_by_name(variant, tmp_path):
    found = outcome(variant, tmp_path)
    assert found.holds(variant), found
    for sentence in found.refusals:
        assert_one_sentence(ValueError(sentence))


def test_there_are_sixty_variants_of_four_formats_and_both_tilts():
    assert len(VARIANTS) >= 60 and {variant.kind for variant in VARIANTS} == {"NIfTI", "MetaImage", "NRRD", "DICOM"}
    assert len({(variant.kind, variant.name) for variant in VARIANTS}) == len(VARIANTS)
    assert {variant.tilt for variant in VARIANTS} >= {16.5, -18.5}


# What a header says that was not read, or read in another way.
WRONG = {
    "mirrored": np.diag([-SPACING, SPACING, SPACING]),
    "turned": rotation(10, 2) @ RAS,
    "two axes in each other's place": RAS[:, [1, 0, 2]],
    "a tenth too wide": np.diag([1.1 * SPACING, SPACING, SPACING]),
}


@pytest.mark.parametrize("matrix", WRONG.values(), ids=WRONG)
def test_negative_control_markers_elsewhere_are_noticed(matrix, tmp_path):
    found = outcome(Variant("NIfTI", "wrong", nifti(codes=(1, 0), other_qform=matrix)), tmp_path)
    assert not found.refusals and found.error > 0.5


def test_negative_control_a_shear_that_is_not_read_is_noticed(tmp_path):
    wrong = nifti(sheared(1, 2, 16.5), codes=(1, 0), other_qform=RAS)
    found = outcome(Variant("NIfTI", "wrong", wrong), tmp_path)
    assert found.error > 0.5 and found.correlation < 0.97
