# SPDX-License-Identifier: Apache-2.0
"""What a study measures: originals reach everything, strangers nothing, and attackers guess where there is nothing."""

from __future__ import annotations

import math

import pytest
import torch

from monai_cadp.data import Digits, ScikitTable
from monai_cadp.studies import (
    AttributeInference,
    ClassifierUtility,
    ContentKept,
    Linkage,
    NearestCandidate,
    Realism,
    Reidentification,
    RowUtility,
)
from monai_cadp.studies.measurements import Releases, public_groups
from monai_cadp.studies.variant import Split, Variant


def digits(split):
    items = list(Digits(split))
    return Split(torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items]))


TRAIN, TEST = digits("train"), digits("test")


def strangers(split):
    """Other images of the same classes."""
    x = split.x.clone()
    for label in split.y.unique():
        members = (split.y == label).nonzero()[:, 0]
        x[members] = split.x[members.roll(1)]
    return x


def released(train, test, epsilon=math.inf, method="something"):
    return Releases(Variant(method, epsilon, 0.0, ""), TRAIN, TEST, train, test)


SAME, STRANGERS = released(TRAIN.x, TEST.x), released(strangers(TRAIN), strangers(TEST), 0.0)
NOTHING = released(None, None)


def first_feature(x):
    return x.mean((1, 2, 3))


MEASUREMENTS = [
    ClassifierUtility(10, epochs=1),
    ContentKept(first_feature),
    Realism(ClassifierUtility(10, epochs=1)),
    Linkage(),
    Reidentification(epochs=1),
    NearestCandidate(),
    AttributeInference(first_feature),
]


@pytest.mark.parametrize("measurement", MEASUREMENTS, ids=lambda part: type(part).__name__)
def test_where_no_image_is_released_there_is_nothing_to_measure(measurement):
    assert measurement(NOTHING, 0) == {}


def test_a_classifier_that_is_itself_what_is_released_is_judged_on_originals():
    def classifier(x, y, seed):
        assert x is TRAIN.x and seed == 3
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    releases = Releases(Variant("private", 1.0, 0.0, "", classifier=classifier), TRAIN, TEST, None, None)
    figures = ClassifierUtility(10)(releases, 3)
    assert figures.keys() == {"accuracy_p_o"} and figures["accuracy_p_o"].value < 0.5


@pytest.mark.slow
def test_a_classifier_learns_the_class_from_strangers_of_the_class():
    figures = ClassifierUtility(10, epochs=30)(STRANGERS, 0)
    assert figures["accuracy_p_o"].low > 0.85
    assert figures["accuracy_p_p"].value == pytest.approx(figures["accuracy_p_o"].value, abs=0.05)
    assert figures["accuracy_o_p"].low > 0.85
    assert 0 < figures["uncertainty_p_o"] < 0.5


def test_strangers_of_the_class_keep_no_content_and_the_same_images_all():
    measurement = ContentKept(first_feature_pair, ["brightness", "left"])
    same, other = measurement(SAME, 0), measurement(STRANGERS, 0)
    assert same["kept_brightness"] == same["kept_mean"].value == pytest.approx(1)
    assert other["kept_mean"].low < 0 < other["kept_mean"].high
    assert other["kept_mean"].value == pytest.approx((other["kept_brightness"] + other["kept_left"]) / 2, abs=1e-6)


def first_feature_pair(x):
    return torch.stack([x.mean((1, 2, 3)), x[..., :4].mean((1, 2, 3))], dim=1)


def test_strangers_look_real_and_not_like_their_originals():
    realism = Realism(ClassifierUtility(10, epochs=20))
    same, other = realism(SAME, 0), realism(STRANGERS, 0)
    noise = realism(released(torch.rand_like(TRAIN.x), torch.rand_like(TEST.x)), 0)
    assert noise["frechet_distance"] > 5 * other["frechet_distance"]
    assert noise["precision"].high < 0.3 < 0.6 < other["precision"].low
    assert same["perceptual_similarity_above_class"].low > 0.1 > other["perceptual_similarity_above_class"].high


@pytest.mark.parametrize(
    ("measurement", "figure", "guess", "control"),
    [
        (Linkage(), "linkage_auc", 0.5, 0.99),
        (Linkage(), "linkage_top_1", 1 / 36, 0.9),
        (Reidentification(epochs=10), "reidentification_auc", 0.5, 0.95),
        (Reidentification(epochs=10), "set_membership_auc", 0.5, 0.9),
        (NearestCandidate(), "reconstruction_success", 0.1, 0.99),
        (AttributeInference(first_feature), "attribute_gain", 0.0, 0.3),
        (AttributeInference(first_feature), "attribute_auc", 0.5, 0.9),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.slow
def test_an_attacker_finds_originals_and_guesses_where_releases_are_of_strangers(measurement, figure, guess, control):
    found, guessed = measurement(SAME, 0)[figure], measurement(STRANGERS, 0)[figure]
    assert found.value > control
    assert guessed.low <= guess + 0.02 and guessed.value < guess + 0.08


def by_people(releases, images=2):
    """The same, where so many images after each other are of one person."""
    train, test = (torch.arange(len(split.y)) // images for split in (TRAIN, TEST))
    return releases._replace(train_people=train, test_people=test)


@pytest.mark.parametrize("attacker", [Linkage(num_attacked=200), Reidentification(epochs=5, num_attacked=200)])
@pytest.mark.slow
def test_where_people_have_several_images_they_are_linked_by_another_one_too(attacker):
    name = "linkage" if isinstance(attacker, Linkage) else "reidentification"
    plain, several = attacker(SAME, 0), attacker(by_people(SAME), 0)
    assert plain.keys() < several.keys()
    assert {f"{name}_another_auc", f"{name}_another_top_1", f"{name}_another_top_1_limit"} <= several.keys()
    # Two digits after each other have nothing in common.
    another = several[f"{name}_another_auc"]
    assert another.low < 0.55 and several[f"{name}_auc"].value > another.value + 0.2


@pytest.mark.slow
def test_intervals_are_wider_where_images_are_of_fewer_people():
    def width(releases):
        auc = AttributeInference(first_feature, num_learning=200)(releases, 0)["attribute_auc"]
        return auc.high - auc.low

    noisy = released(TRAIN.x + torch.rand_like(TRAIN.x), TEST.x + torch.rand_like(TEST.x))
    equal = TEST.x[:40].repeat_interleave(5, 0), TEST.y[:40].repeat_interleave(5)
    test = noisy._replace(test=Split(*equal), test_released=noisy.test_released[:40].repeat_interleave(5, 0))
    assert width(test._replace(test_people=torch.arange(40).repeat_interleave(5))) > 1.5 * width(test)


@pytest.mark.parametrize(
    ("measurement", "several", "figure"),
    [
        (ClassifierUtility(10, epochs=10), False, "accuracy_p_o"),
        (ClassifierUtility(10, epochs=10), False, "accuracy_o_p"),
        (ClassifierUtility(3, epochs=10), True, "auc_p_p"),
        (ContentKept(first_feature_pair), False, "kept_mean"),
        (Realism(ClassifierUtility(10, epochs=10)), False, "precision"),
        (Realism(ClassifierUtility(10, epochs=10)), False, "perceptual_similarity_above_class"),
    ],
    ids=lambda part: type(part).__name__ if not isinstance(part, str | bool) else str(part),
)
def test_what_releases_are_good_for_has_its_interval_over_people_with_all_their_images(measurement, several, figure):
    """Every image five times: as those of one person each, and as if of five times as many people."""
    torch.manual_seed(0)
    train, test = (attributes(split) if several else split for split in (TRAIN, TEST))
    noisy = train.x + 0.5 * torch.rand_like(train.x), test.x + 0.5 * torch.rand_like(test.x)
    equal = Split(*(part[:60].repeat_interleave(5, 0) for part in test))
    releases = Releases(
        Variant("noisy", math.inf, 0.0, ""), train, equal, noisy[0], noisy[1][:60].repeat_interleave(5, 0)
    )
    known = measurement(releases._replace(test_people=torch.arange(60).repeat_interleave(5)), 0)[figure]
    unknown = measurement(releases, 0)[figure]
    assert known.value == unknown.value and known.high - known.low > 1.5 * (unknown.high - unknown.low)


def test_naming_people_is_limited_by_the_budget_and_by_how_many_there_are():
    limits = [
        Linkage(num_attacked=100)(STRANGERS._replace(variant=Variant("some", epsilon, 0.0, "")), 0)
        for epsilon in (0.0, 1.0, math.inf)
    ]
    small, middle, none = (figures["linkage_top_1_limit"] for figures in limits)
    assert small == pytest.approx(0.1) and 0.1 < middle < 0.3 and none == 1


def test_the_attacker_with_candidates_learns_what_a_release_looks_like():
    """A negative is far from its original, and tells everything to who has seen others."""
    negatives = released(1 - TRAIN.x, 1 - TEST.x)
    assert NearestCandidate()(negatives, 0)["reconstruction_success"].value > 0.95


def test_people_of_classes_smaller_than_the_candidates_are_left_in_peace():
    few = torch.cat([(TEST.y == label).nonzero()[:, 0][: 20 if label < 3 else 5] for label in range(10)])
    split = Split(TEST.x[few], TEST.y[few])

    def figures(test):
        return NearestCandidate()(Releases(Variant("something", math.inf, 0.0, ""), TRAIN, test, TRAIN.x, test.x), 0)

    assert figures(split)["reconstruction_guess"] == 0.1
    assert figures(Split(split.x[60:], split.y[60:])) == {}


def attributes(split):
    """Three attributes: two that tell the class, and one that is a coin."""
    coin = torch.arange(len(split.y)) % 2
    return Split(split.x, torch.stack([split.y % 2, split.y // 2 % 2, coin], dim=1).float())


@pytest.mark.parametrize("measurement", [Linkage(), Reidentification(epochs=5), NearestCandidate()])
@pytest.mark.slow
def test_attackers_get_nothing_from_attributes_that_are_public(measurement):
    """Releases that are functions of the public attributes alone tell nobody from those who share them."""
    train, test = attributes(TRAIN), attributes(TEST)
    released = [split.y.mean(1)[:, None, None, None].expand_as(split.x).clone() for split in (train, test)]
    figures = measurement(Releases(Variant("public", 0.0, 0.0, ""), train, test, *released), 0)
    names = ("linkage_auc", "reidentification_auc", "reconstruction_success")
    (figure,) = (figures[name] for name in names if name in figures)
    guess = figures.get("reconstruction_guess", 0.5)
    assert figure.value == pytest.approx(guess, abs=0.02)


def test_attackers_compare_people_who_share_the_attributes_that_stay_public():
    train, test = attributes(TRAIN), attributes(TEST)
    some = Releases(Variant("some", 1.0, 0.0, "", public_columns=(0,)), train, test, train.x, test.x)
    groups = public_groups(some)
    assert [len(group.unique()) for group in groups] == [2, 2]
    assert torch.equal(groups[1], test.y[:, 0].long())
    everything = Releases(Variant("all", 1.0, 0.0, ""), train, test, train.x, test.x)
    assert len(public_groups(everything)[0].unique()) == 8


def test_people_are_compared_with_all_others_where_no_attribute_stays_public():
    train, test = attributes(TRAIN), attributes(TEST)
    none = Releases(Variant("none", 1.0, 0.0, "", public_columns=()), train, test, train.x, test.x)
    assert [len(group.unique()) for group in public_groups(none)] == [1, 1]


@pytest.mark.slow
def test_a_classifier_of_attributes_is_judged_by_the_mean_area_under_the_curve():
    """Strangers of the same class tell two attributes of three."""
    train, test = attributes(TRAIN), attributes(TEST)
    releases = Releases(
        Variant("strangers", 0.0, 0.0, ""), train, test, STRANGERS.train_released, STRANGERS.test_released
    )
    figures = ClassifierUtility(3, epochs=20)(releases, 0)
    assert figures.keys() == {"auc_p_o", "auc_p_p", "auc_o_p", "uncertainty_p_o"}
    for setting in ("auc_p_o", "auc_p_p", "auc_o_p"):
        low, value, high = figures[setting].low, figures[setting].value, figures[setting].high
        assert 0.75 < low < value < high < 0.9
    # A third of it is the coin, of which nobody can be sure.
    assert 0.3 < figures["uncertainty_p_o"] < 0.9

    def classifier(x, y, seed):
        assert y is train.y
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))

    private = Releases(Variant("private", 1.0, 0.0, "", classifier=classifier), train, test, None, None)
    assert ClassifierUtility(3)(private, 0).keys() == {"auc_p_o"}


def test_content_is_compared_among_images_that_share_all_attributes():
    test = attributes(TEST)
    # A release that is a function of the attributes, and its original, which depends on them.
    x = test.x * 0.1 + test.y.mean(1)[:, None, None, None]
    explained = test.y.mean(1)[:, None, None, None].expand_as(x).clone()
    measurement = ContentKept(first_feature_pair)

    def kept(y, released):
        split = Split(x, y)
        return measurement(Releases(Variant("some", 1.0, 0.0, ""), split, split, released, released), 0)

    assert kept(test.y, x)["kept_mean"].value == pytest.approx(1)
    assert kept(test.y, explained)["kept_mean"].value == 0
    # Where all images have labels of their own, nothing is claimed.
    assert kept(torch.rand(len(x), 3), x).keys() == {"pixel_cosine"}


def test_realism_needs_no_two_images_with_the_same_attributes():
    realism = Realism(ClassifierUtility(8, epochs=1))
    own = [Split(x[:200], (torch.arange(200)[:, None] // 2 ** torch.arange(8) % 2).float()) for x in (TRAIN.x, TEST.x)]
    figures = realism(Releases(Variant("some", 1.0, 0.0, ""), *own, *(split.x for split in own)), 0)
    assert figures.keys() == {"frechet_distance", "precision", "recall"}


def test_large_images_are_looked_at_from_afar():
    large = torch.nn.functional.interpolate(TEST.x[:100], scale_factor=8)
    split = Split(large, TEST.y[:100] * 0)
    releases = Releases(Variant("something", math.inf, 0.0, ""), split, split, large, large)
    assert NearestCandidate()(releases, 0)["reconstruction_success"].value == 1.0


@pytest.mark.parametrize(
    ("name", "target", "figure"), [("breast_cancer", None, "accuracy"), ("diabetes", "progression", "r2")]
)
def test_rows_are_judged_by_a_simple_model_in_the_settings_of_the_paper(name, target, figure):
    train, test = (ScikitTable(name, split) for split in ("train", "test"))
    splits = [Split(table.rows, table.labels) for table in (train, test)]
    utility = RowUtility(train.schema, target)
    same = utility(Releases(Variant("originals", math.inf, 0.0, ""), *splits, *(split.x for split in splits)), 0)
    assert same.keys() == {f"{figure}_p_o"}
    means = [split.x.mean(0).expand_as(split.x).clone() for split in splits]
    poor = utility(Releases(Variant("mean", 0.0, 0.0, ""), *splits, *means), 0)
    assert poor.keys() == {f"{figure}_p_o", f"{figure}_p_p", f"{figure}_o_p"}
    assert poor[f"{figure}_p_o"] < same[f"{figure}_p_o"] - 0.2
