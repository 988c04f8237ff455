# SPDX-License-Identifier: Apache-2.0
"""One table of attackers: each beside the most that the guarantee allows, and marked where it lies above."""

from __future__ import annotations

import json
import re

import pytest
import torch

from monai_cadp.baselines import GaussianBlur
from monai_cadp.data import Digits
from monai_cadp.networks import ConditionalINN
from monai_cadp.studies import (
    AttributeInference,
    Linkage,
    NetworkContent,
    NetworkTraining,
    Reidentification,
    Study,
    WithoutGuarantee,
)
from monai_cadp.studies.attack_table import attack_table


def variant(method, epsilon, **figures):
    plain = {
        name: {"value": (figure[0] + figure[1]) / 2, "interval": list(figure)} if isinstance(figure, tuple) else figure
        for name, figure in figures.items()
    }
    name = f"{method}, epsilon {epsilon}"
    return {
        **{"name": name, "method": method, "epsilon": epsilon, "nominal_epsilon": None, "delta": 0.0},
        "figures": plain,
    }


def test_every_auc_stands_beside_the_largest_possible_one_and_every_top_1_with_its_limit():
    found = variant("some", 1.0, linkage_auc=(0.5, 0.6), linkage_top_1=(0.0, 0.1), linkage_top_1_limit=0.2)
    (row,) = attack_table([found], people_are_known=True).rows
    assert row == {
        "method": "some",
        "epsilon": "1",
        "largest possible AUC": "0.731",
        "linkage, AUC": "0.550 [0.500, 0.600]",
        "linkage, top 1": "0.050 [0.000, 0.100], at most 0.200",
    }


@pytest.mark.parametrize(("low", "is_marked"), [(0.72, False), (0.74, True)])
def test_an_interval_is_marked_where_it_lies_above_the_limit_and_not_where_it_reaches_it(low, is_marked):
    section = attack_table([variant("some", 1.0, set_membership_auc=(low, 0.9))], people_are_known=True)
    assert section.rows[0]["member of the set, AUC"].endswith("above the limit") == is_marked
    assert ("1 of 1 intervals lie above" in section.text) == is_marked
    assert ("No interval lies above" in section.text) != is_marked


def test_a_share_that_is_named_more_often_than_the_budget_allows_is_marked():
    figures = {"reconstruction_success": (0.25, 0.4), "reconstruction_limit": 0.2}
    (row,) = attack_table([variant("some", 1.0, **figures)], people_are_known=True).rows
    assert row["nearest candidate, top 1"] == "0.325 [0.250, 0.400], at most 0.200, above the limit"
    assert "largest possible AUC" not in row


def test_what_promises_nothing_is_never_above():
    section = attack_table([variant("blur", "infinite", linkage_auc=(1.0, 1.0))], people_are_known=True)
    assert section.rows[0]["largest possible AUC"] == "1.000" and "No interval lies above" in section.text


def test_the_strongest_attacker_at_budgets_of_at_most_1_is_named():
    variants = [
        variant("blur", "infinite", linkage_auc=(0.9, 1.0)),
        variant("content", 1.0, linkage_auc=(0.5, 0.54), attribute_auc=(0.56, 0.6)),
        variant("content", 4.0, linkage_auc=(0.8, 0.9)),
    ]
    text = attack_table(variants, people_are_known=True).text
    assert "the largest AUC is 0.580 (attribute; content, epsilon 1.0)" in text
    assert "epsilon is 1 or less" not in attack_table(variants[::2], people_are_known=True).text


def test_over_whom_intervals_are_is_said():
    found = [variant("some", 1.0, linkage_auc=(0.5, 0.6))]
    assert "over people, drawn with all their images" in attack_table(found, people_are_known=True).text
    assert "over images, one for each person" in attack_table(found, people_are_known=False).text


def test_where_nothing_was_attacked_there_is_no_table():
    assert attack_table([variant("some", 1.0, accuracy_p_o=0.9)], people_are_known=True) is None


class Visits(torch.utils.data.Dataset):
    """Digits of people who have two each, the second one nearly the first."""

    def __init__(self, split):
        self.items = list(Digits(split))[:100]

    def __len__(self):
        return 2 * len(self.items)

    def __getitem__(self, index):
        item = dict(self.items[index // 2])
        return item | {"image": item["image"] * (1 - 0.1 * (index % 2)), "subject": f"person {index // 2}"}


class WhoseImages:
    """A membership attack that tells whose images it is given."""

    def __call__(self, trained, training, train, test, quick, people):
        assert [len(of) for of in people] == [len(train.x), len(test.x)]
        return [{"network": "the study's network", "people": len(people[1].unique())}]


@pytest.mark.slow
def test_a_study_of_images_that_know_their_people_has_one_table_of_all_attackers(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    torch.manual_seed(0)
    page = Study(
        "Attackers",
        NetworkTraining(ConditionalINN((8, 8), 1, num_classes=10), "unprotected", max_epochs=1),
        *(Visits(split) for split in ("train", "val", "test")),
        tmp_path,
        [NetworkContent([0.5]), WithoutGuarantee("Gaussian blur", GaussianBlur(0.5))],
        [Linkage(), Reidentification(epochs=2), AttributeInference()],
        membership=WhoseImages(),
    ).run()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["membership"][0]["people"] == len({item["subject"] for item in Visits("test")})
    figures = {variant["method"]: variant["figures"] for variant in results["variants"]}
    for method in ("originals", "Gaussian blur"):
        assert figures[method]["linkage_another_auc"]["interval"][0] > 0.9
    for method, limit in (("prior only", 0.5), ("content basis", 0.6225)):
        aucs = [figure for name, figure in figures[method].items() if name.endswith("_auc")]
        # Of a hundred people an area deviates by 0.03: a whole interval lies so far above in one run of 1e6.
        assert len(aucs) == 6 and all(figure["interval"][0] < limit + 0.1 for figure in aucs)
    text = page.read_text()
    assert text.count("What attackers get") == 1 and text.count("over people, drawn with all their images") == 2
    headings = re.findall(r"<th>(.*?)</th>", text)
    for column in (
        "linkage, AUC",
        "Siamese network by another image, top 1",
        "member of the set, AUC",
        "attribute, AUC",
    ):
        assert headings.count(column) == 1
    assert "<td>0.622</td>" in text and "Where epsilon is 1 or less, the largest AUC is" in text
    assert not re.search(r"person \d", text)
