# SPDX-License-Identifier: Apache-2.0
"""An attribute that releases carry is told, and one that they do not carry is not told better than by the label."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.attacks import attribute_inference
from monai_cadp.baselines import Mosaic
from monai_cadp.data import Digits
from monai_cadp.metrics import shape_features


def digits(split):
    items = list(Digits(split))
    return torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items]).flatten()


SHADOWS, SHADOW_LABELS = digits("train")
IMAGES, LABELS = digits("test")
SLANT = [shape_features(images)[:, 1] for images in (SHADOWS, IMAGES)]
LEANS = [(slant > SLANT[0].median()).long() for slant in SLANT]


def attack(release, attribute, *, labels=True):
    public = {"shadow_labels": SHADOW_LABELS, "labels": LABELS} if labels else {}
    released = [release(SHADOWS, SHADOW_LABELS, 0), release(IMAGES, LABELS, 1)]
    return attribute_inference(released[0], attribute[0], released[1], attribute[1], num_bootstraps=200, **public)


def mosaic(images, labels, seed):
    return Mosaic(2)(images)


def someone_else(images, labels, seed):
    """An image of the same class: what a perfect network would release of the class alone."""
    generator = torch.Generator().manual_seed(seed)
    released = images.clone()
    for label in range(10):
        members = (labels == label).nonzero()[:, 0]
        released[members] = images[members[torch.randperm(len(members), generator=generator)]]
    return released


def test_what_a_mosaic_leaves_is_told_better_than_by_the_class():
    result = attack(mosaic, LEANS)
    assert result.figure == "auc" and result.from_release.low > result.from_label.high
    assert result.gain.low > 0.1
    assert result.gain.value == pytest.approx(result.from_release.value - result.from_label.value)


def test_of_the_class_alone_nothing_is_gained():
    result = attack(someone_else, LEANS)
    assert result.from_label.low > 0.6 and result.gain.low < 0 and result.gain.high < 0.03


def test_a_release_of_the_class_that_also_leaks_one_pixel_is_caught():
    """The negative control of the test above: a corner is brighter where the original leans to the right."""

    def leaking(images, labels, seed):
        released = someone_else(images, labels, seed)
        released[:, 0, 0, 0] += 0.2 * LEANS[seed]
        return released

    assert attack(leaking, LEANS).gain.low > 0.1


@pytest.mark.slow
def test_a_number_is_told_by_its_r2():
    told, control = attack(mosaic, SLANT), attack(someone_else, SLANT)
    assert told.figure == control.figure == "r2"
    assert told.from_release.low > 0.6 and told.gain.low > 0.1
    assert control.from_release.high < 0.6 and control.gain.low < 0 and control.gain.high < 0.05


def test_without_public_labels_the_releases_show_what_the_class_says():
    """Which of ten digits it is, from looks alone; guessing the commonest reaches a tenth."""
    result = attack(someone_else, [SHADOW_LABELS, LABELS], labels=False)
    assert result.figure == "accuracy" and result.from_release.low > 0.9
    assert result.from_label.value < 0.15 and result.gain.low > 0.7


@pytest.mark.parametrize("kind", ["class", "number"])
def test_what_only_looks_in_pairs_tell_is_learnt_as_well(kind):
    """Whether two numbers have the same sign, or their product, which no linear model tells; people came sorted."""
    x = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
    attribute = (x.prod(1) > 0).long() if kind == "class" else x.prod(1)
    order = torch.cat([attribute[:400].argsort(), torch.arange(400, 600)])
    x, attribute = x[order], attribute[order]
    result = attribute_inference(x[:400], attribute[:400], x[400:], attribute[400:], num_bootstraps=50)
    assert result.from_release.low > 0.8 and result.from_label.value <= 0.5


def test_numbers_may_be_public():
    """The attribute is half in the release and half in a public number."""
    x = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
    result = attribute_inference(
        x[:400, :1], x.sum(1)[:400], x[400:, :1], x.sum(1)[400:], shadow_labels=x[:400, 1], labels=x[400:, 1]
    )
    assert result.from_release.low > 0.95 and result.from_label.value == pytest.approx(0.5, abs=0.1)


def test_the_attack_is_the_same_for_the_same_seed():
    assert attack(mosaic, LEANS) == attack(mosaic, LEANS)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"attributes": torch.zeros(9)}, "attributes in .*expected"),
        ({"labels": torch.zeros(10)}, "without labels.*with; expected the same"),
        ({"labels": torch.zeros(9), "shadow_labels": torch.zeros(10)}, "9 labels came for 10"),
        ({"releases": torch.zeros(10, 3)}, "expected the same of both"),
        ({"releases": torch.full((10, 2), torch.nan)}, "NaN"),
        ({"shadow_attributes": torch.zeros(10, dtype=torch.long)}, "1 classes of the attribute"),
        ({"shadow_attributes": torch.arange(10) // 9}, "rarest with 1 people"),
    ],
)
def test_what_cannot_be_learnt_is_refused(refused, changes, match):
    attributes = torch.arange(10) % 2
    arguments = {"shadow_releases": torch.rand(10, 2), "shadow_attributes": attributes}
    arguments |= {"releases": torch.rand(10, 2), "attributes": attributes} | changes
    with refused(ValueError, match):
        attribute_inference(**arguments)
