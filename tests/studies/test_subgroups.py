# SPDX-License-Identifier: Apache-2.0
"""Figures of groups of people: the same measure on a part of the test images, small groups withheld, gaps named."""

from __future__ import annotations

import json
import math

import pytest
import torch

from monai_cadp.data import Digits
from monai_cadp.networks import ConditionalINN
from monai_cadp.studies import (
    ClassifierUtility,
    ContentKept,
    NetworkContent,
    NetworkTraining,
    Realism,
    Reidentification,
    Study,
    Subgroups,
)
from monai_cadp.studies.measurements import Releases
from monai_cadp.studies.subgroups import gaps
from monai_cadp.studies.variant import Split, Variant

COUNT = 100


@pytest.fixture
def table(tmp_path):
    """Of 100 people half are of each sex, 19 of the site B, and of three nothing is known there."""
    rows = [f"p{n},{'FM'[n % 2]},{'' if n < 3 else 'B' if n < 22 else 'A'}" for n in range(COUNT)]
    (tmp_path / "people.csv").write_text("\n".join(["subject,sex,site", *rows]) + "\n")
    return tmp_path / "people.csv"


def people(count=COUNT, images=1):
    return [f"P{n // images} " for n in range(count * images)]


def test_groups_are_of_people_and_know_their_images(table):
    groups = list(Subgroups(table).of(people(images=2)))
    assert [(group.column, group.value, group.people, len(group.members)) for group in groups] == [
        ("sex", "F", 50, 100),
        ("sex", "M", 50, 100),
        ("site", "A", 78, 156),
        ("site", "B", 19, 38),
    ]
    assert groups[0].members.tolist()[:4] == [0, 1, 4, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing or of another form"),
        ("sex,site\nF,A\n", "a column subject"),
        ("subject\np0\n", "a column subject"),
        ("subject,sex\np0,F,A\n", "another form"),
        ("subject,sex\np0,F\nP0,M\n", "1 lines of the file of subgroups name a subject again"),
        ("subject,sex\np0,F\n", "says nothing of 99 of 100 test subjects"),
    ],
)
def test_a_table_of_another_form_is_refused_and_nobody_named(tmp_path, refused, content, message):
    if content is not None:
        (tmp_path / "people.csv").write_text(content)
    with refused(ValueError, message):
        list(Subgroups(tmp_path / "people.csv").of(people()))


@pytest.mark.slow
def test_a_part_is_measured_as_it_would_be_alone():
    """What classifiers and attackers have learnt is the same; what is measured is of the part."""
    items = list(Digits("train"))[:120]
    train = Split(torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items]))
    releases = Releases(Variant("x", math.inf, 0.0, ""), train, train, train.x.flip(0), train.x.clone())
    first, second = torch.arange(60), torch.arange(60, 120)
    utility = ClassifierUtility(10, epochs=2, num_dropouts=2)
    for measurement in (utility, ContentKept(means), Realism(utility), Reidentification(epochs=1)):
        measured = measurement.learn(releases, 0)
        parts = [measured(releases.part(members)) for members in (first, second)]
        assert parts[0].keys() == parts[1].keys() == measured(releases).keys()
    accuracy = utility.learn(releases, 0)
    of_parts = [accuracy(releases.part(members))["accuracy_p_o"].value for members in (first, second)]
    assert sum(of_parts) / 2 == pytest.approx(accuracy(releases)["accuracy_p_o"].value)


def means(x):
    return x.mean((2, 3))


def test_gaps_are_where_intervals_do_not_meet_within_a_column():
    def row(column, value, low, high):
        figure = {"value": (low + high) / 2, "interval": [low, high]}
        return {"column": column, "value": value, "figures": {"kept_mean": figure, "cosine": 0.5}}

    rows = [row("sex", "F", 0.1, 0.2), row("sex", "M", 0.15, 0.3), row("site", "A", 0.4, 0.5), row("site", "B", 0.6, 1)]
    assert gaps(rows) == [{"column": "site", "figure": "kept_mean", "lower": "A", "higher": "B"}]


class Visits(torch.utils.data.Dataset):
    """Digits of 100 people; those of one sex come as noise."""

    def __init__(self, with_subjects=True):
        self.items, self.with_subjects = list(Digits("test"))[:COUNT], with_subjects

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = dict(self.items[index])
        if index % 2:
            item["image"] = torch.rand(item["image"].shape, generator=torch.Generator().manual_seed(index))
        return item | ({"subject": f"p{index}"} if self.with_subjects else {})


def study(folder, subgroups, **options):
    torch.manual_seed(0)
    utility = ClassifierUtility(10, epochs=20, num_dropouts=2)
    return Study(
        "Groups",
        NetworkTraining(ConditionalINN((8, 8), 1, num_classes=10), "unprotected", max_epochs=1),
        Digits("train"),
        Digits("val"),
        Visits(**options),
        folder,
        [NetworkContent([2.0])],
        [utility, ContentKept(means), lambda releases, seed: {"cosine": 1.0}],
        subgroups=subgroups,
    )


@pytest.mark.slow
def test_the_page_tells_who_pays_withholds_small_groups_and_flags_gaps(tmp_path, table, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    page = study(tmp_path / "out", Subgroups(table)).run()
    originals = json.loads((page.parent / "results.json").read_text())["variants"][0]
    groups = {(group["column"], group["value"]): group for group in originals["subgroups"]}
    female, male = groups["sex", "F"]["figures"], groups["sex", "M"]["figures"]
    assert groups["sex", "F"]["people"] == 50 and male["accuracy_p_o"]["value"] + 0.2 < female["accuracy_p_o"]["value"]
    assert "cosine" in originals["figures"] and "cosine" not in female
    assert "uncertainty_p_o" in originals["figures"] and female.keys() == {"accuracy_p_o", "kept_mean"}
    small = groups["site", "B"]
    assert small["figures"] == {} and "people" not in small
    text = page.read_text()
    for words in ("Who pays", "sex: F", "under 20", "Where groups differ", "accuracy p o", "not themselves private"):
        assert words in text
    assert not any(f"p{n}" in text.replace("p_o", "").replace("p o", "") for n in (3, 17, 64))


def test_groups_of_images_that_say_nothing_of_their_people_are_refused(tmp_path, table, refused):
    with refused(ValueError, "do not say whose they are"):
        study(tmp_path / "out", Subgroups(table), with_subjects=False).run()
    assert not (tmp_path / "out").exists()
