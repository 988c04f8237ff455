# SPDX-License-Identifier: Apache-2.0
"""Made-up patients look like brains, differ as patients do, and are the same whenever they are made."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from monai_cadp.data import BrainCohort
from monai_cadp.data.brain_template import brain_template, millimetres

SHAPE, SPACING = (24, 30, 24), 7.2


def cohort(**options):
    return BrainCohort(**{"num_patients": 6, "num_scans": 2, "spatial_shape": SHAPE, "spacing": SPACING, **options})


def correlation(a, b):
    return float(np.corrcoef(a.flatten(), b.flatten())[0, 1])


def test_a_scan_is_the_same_in_every_order_copy_and_worker():
    one, other = cohort(), pickle.loads(pickle.dumps(cohort()))
    backwards = {index: other[index]["image"] for index in reversed(range(4))}
    assert all(torch.equal(one[index]["image"], backwards[index]) for index in range(4))
    (batch,) = DataLoader(torch.utils.data.Subset(one, range(4)), batch_size=4, num_workers=1)
    assert torch.equal(batch["image"], torch.stack([backwards[index] for index in range(4)]))


def test_another_seed_patient_or_scan_is_another_volume():
    volumes = [cohort()[0], cohort()[1], cohort()[2], cohort(seed=1)[0]]
    for index, one in enumerate(volumes):
        assert all(not torch.equal(one["image"], other["image"]) for other in volumes[:index])


def test_scans_of_a_patient_are_more_alike_than_scans_of_two():
    volumes = [cohort()[index]["image"] - cohort()[0]["image"].mean() for index in range(12)]
    mean = torch.stack(volumes).mean(0)
    same = [correlation(volumes[i] - mean, volumes[i + 1] - mean) for i in range(0, 12, 2)]
    others = [correlation(volumes[i] - mean, volumes[j] - mean) for i in range(0, 12, 2) for j in range(i + 2, 12)]
    assert np.mean(same) > np.mean(others) + 0.3


def test_items_say_whose_they_are_and_what_they_have():
    items = [cohort()[index] for index in range(4)]
    assert [item["subject"] for item in items] == ["patient 0", "patient 0", "patient 1", "patient 1"]
    assert [item["item"] for item in items] == ["scan 0", "scan 1"] * 2
    assert [int(item["label"]) for item in items] == [0, 0, 1, 1]
    for item in items:
        assert item["image"].shape == (1, *SHAPE) and item["image"].dtype == torch.float32
        assert 0 <= item["image"].min() and item["image"].max() <= 1


def test_every_patient_has_a_brain_in_the_middle_and_darkness_around():
    for item in (cohort()[index]["image"][0] for index in range(12)):
        assert item[10:14, 13:17, 10:14].mean() > 0.4
        assert item[0].mean() < 0.1 and item[:, 0].mean() < 0.1


def test_a_lesion_makes_a_dark_place_that_nobody_else_has():
    class Healed(BrainCohort):
        """The same patients without their lesions."""

        def _with_lesion(self, t1, *_):
            return t1

    options = {"num_patients": 8, "spatial_shape": SHAPE, "spacing": SPACING}
    for index in range(8):
        difference = BrainCohort(**options)[index]["image"] - Healed(**options)[index]["image"]
        assert (difference.min() < -0.15) == bool(index % 2)


def test_sizes_and_ventricles_of_patients_vary():
    volumes = torch.stack([BrainCohort(0, 20, 1, SHAPE, SPACING)[index]["image"] for index in range(20)])
    sizes = (volumes > 0.3).float().sum((1, 2, 3, 4))
    assert 0.05 < float(sizes.std() / sizes.mean()) < 0.3


def test_the_template_lies_where_it_should():
    template = brain_template(SHAPE, SPACING)
    places = millimetres(SHAPE, SPACING)
    middle = places[:, template.t1[0] > 0.2].mean(1)
    assert (middle - torch.tensor([0.0, -22.0, 9.0])).abs().max() < 4
    # Fluid of the ventricles: inside, dark, and on both sides alike.
    inside = places[:, template.ventricles[0] > 0.5]
    assert inside.shape[1] > 5 and inside[0].mean().abs() < 6
    assert template.t1[template.ventricles > 0.5].mean() < 0.55 < template.t1[template.white > 0.9].mean()


@pytest.mark.parametrize("bad", [{"num_patients": 0}, {"num_scans": -1}, {"spacing": 0.0}, {"spatial_shape": (8, 8)}])
def test_impossible_cohorts_are_refused(bad, refused):
    with refused(ValueError, "expected positive numbers and three sizes"):
        cohort(**bad)


def test_a_scan_that_is_not_there_is_refused():
    with pytest.raises(IndexError, match="has no scan 12"):
        cohort()[12]
