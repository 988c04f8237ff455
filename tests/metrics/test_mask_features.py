# SPDX-License-Identifier: Apache-2.0
"""What is measured of a mask is what a ruler would measure."""

from __future__ import annotations

import math

import pytest
import torch

from monai_cadp.data import join_masks
from monai_cadp.metrics import MASK_FEATURES, MaskFeatures
from monai_cadp.networks import ConditionalINN, DeclaredContent


def ball(radius, centre=(0.0, 0.0, 0.0), size=24, label=1, num_classes=3):
    """A volume with a ball, its radius and centre in voxels, that is brighter than the rest."""
    axis = torch.arange(size) - (size - 1) / 2
    places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    inside = (places - torch.tensor(centre).reshape(3, 1, 1, 1)).norm(dim=0) < radius
    image = torch.where(inside, 0.7, 0.2)[None, None]
    return join_masks(image, label * inside[None, None].long(), num_classes, reach=3.0)


def test_a_ball_has_the_volume_and_the_surface_of_a_ball():
    features = MaskFeatures(["volume_1", "surface_1"], 3, spacing=2.0)
    volume, surface = features(ball(8.0))[0].tolist()
    assert volume == pytest.approx(4 / 3 * math.pi * 1.6**3, rel=0.02)
    assert surface == pytest.approx(4 * math.pi * 1.6**2, rel=0.04)


def test_its_centre_lies_where_it_was_put_and_it_is_as_bright_as_it_is():
    features = MaskFeatures(["offset_x_2", "offset_y_2", "offset_z_2", "intensity_2"], 3, spacing=1.5)
    found = features(ball(5.0, (3.0, -2.0, 1.0), label=2))[0].tolist()
    assert found == pytest.approx([4.5, -3.0, 1.5, 0.7], abs=0.05)


def test_a_class_that_is_nowhere_is_zero_and_finite():
    names = [f"{name}_2" for name in MASK_FEATURES]
    assert MaskFeatures(names, 3, spacing=1.0)(ball(5.0)).eq(0).all()


def test_all_classes_together_are_measured_as_one():
    one, other = ball(5.0, (-4.0, 0.0, 0.0)), ball(4.0, (4.0, 0.0, 0.0), label=2)
    both = torch.cat([one[:, :1], one[:, 1:].maximum(other[:, 1:])], dim=1)
    names = ["volume_1", "volume_2", "volume_all", "offset_x_all"]
    first, second, together, offset = MaskFeatures(names, 3, spacing=1.0)(both)[0].tolist()
    assert min(first, second) > 0.2 and together == pytest.approx(first + second)
    assert -4 < offset < 4 and MaskFeatures(["surface_all"], 3, spacing=1.0)(both) > 2


def test_every_volume_is_looked_at_by_itself():
    features = MaskFeatures([f"{name}_1" for name in MASK_FEATURES], 3, spacing=1.0)
    both = torch.cat([ball(5.0), ball(8.0, (1.0, 0.0, 0.0))])
    assert torch.allclose(features(both), torch.cat([features(both[:1]), features(both[1:])]))


def test_they_are_declared_as_content():
    inn = ConditionalINN(spatial_shape=(4, 4, 4), in_channels=2)
    one, other = (
        DeclaredContent(MaskFeatures([name], 2, spacing=1.0), num_candidates=8) for name in ("volume_1", "surface_1")
    )
    assert one.table(inn, None).candidates.shape == (8, 1)
    # Releases of other content are others.
    assert one.fingerprint() != other.fingerprint()


@pytest.mark.parametrize(
    ("names", "match"), [([], "list of volume"), ("volume_1", "list"), (["volume_3"], "1 to 2"), (["size_1"], "size_1")]
)
def test_an_unknown_name_is_refused(refused, names, match):
    with refused(ValueError, match):
        MaskFeatures(names, 3, spacing=1.0)
