# SPDX-License-Identifier: Apache-2.0
"""A released table has valid rows, one card, and nothing of the source but what was released."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from monai_cadp import Privatizer
from monai_cadp.data import ScikitTable, TableRows, TableSchema
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.privacy import (
    Budget,
    BudgetExceededError,
    PriorOnly,
    PrivacyLedger,
    RandomizedResponse,
    SubsetSelection,
)
from monai_cadp.release import release_rows, release_table
from monai_cadp.release.checkpoint import load_privatizer, save_model
from monai_cadp.studies import TableEvaluation

CANARY = "Mustermann"
SCHEMA = TableSchema(
    [
        {"name": "age", "kind": "continuous", "lowest": 20, "highest": 90},
        {"name": "grade", "kind": "ordinal", "values": [1, 2, 3]},
        {"name": "site", "kind": "categorical", "values": ["left, upper", "right"]},
        {"name": "diagnosis", "kind": "categorical", "values": ["benign", "malignant"]},
    ],
    ["diagnosis"],
)
NUM_ROWS = 40


def cohort(subjects=True, condition=True):
    """Two rows of every subject; the first ten are malignant."""
    rows = [{"age": 20 + index, "grade": 1 + index % 3, "site": "right"} for index in range(NUM_ROWS)]
    if condition:
        rows = [row | {"diagnosis": "malignant" if index < 10 else "benign"} for index, row in enumerate(rows)]
    return TableRows(rows, SCHEMA, [f"{CANARY} {index // 2}" for index in range(NUM_ROWS)] if subjects else None)


def privatizer_of(mechanism=None, **options):
    torch.manual_seed(0)
    inn = ConditionalINN((), SCHEMA.width, num_classes=2, width=8, num_couplings=2)
    mechanism = mechanism or SubsetSelection(2.0, num_candidates=64)
    return Privatizer(inn, mechanism, ContentBasis.leading(inn, 2), unit="row", **options)


@pytest.fixture
def privatizer():
    return privatizer_of()


@pytest.fixture
def ledger(tmp_path):
    (tmp_path / "ledger").mkdir()
    return PrivacyLedger.create(tmp_path / "ledger" / "ledger.db", bytes(32), Budget(epsilon=4.0))


def read(path):
    with open(path, encoding="utf-8", newline="") as content:
        return list(csv.DictReader(content))


def test_the_table_has_valid_rows_and_one_card(privatizer, tmp_path, capsys):
    output = release_table(privatizer, cohort(), tmp_path / "new" / "released.csv")
    rows = read(output)
    assert sorted(path.name for path in output.parent.iterdir()) == ["released.csv", "released_privacy.json"]
    assert len(rows) == NUM_ROWS and list(rows[0]) == ["age", "grade", "site", "diagnosis"]
    SCHEMA.encode(rows)
    assert all(20 <= float(row["age"]) <= 90 for row in rows)
    assert sum(row["diagnosis"] == "malignant" for row in rows) == 10
    card = json.loads((output.parent / "released_privacy.json").read_text())
    assert card["count"] == NUM_ROWS and card["schema"] == SCHEMA.to_dict() and card["software"]["monai_cadp"]
    assert card["guarantee"] == privatizer.guarantee.to_dict()
    assert (card["guarantee"]["unit"], card["guarantee"]["epsilon"]) == ("row", 2.0)
    assert card["drawing"] == privatizer.drawing and card["drawing"]["temperature"] == 1.0
    assert "40 rows released with epsilon 2 each" in capsys.readouterr().out


def test_no_subject_is_written(privatizer, ledger, tmp_path):
    release_table(privatizer, cohort(), tmp_path / "released.csv", ledger=ledger)
    for path in tmp_path.rglob("*"):
        assert CANARY not in path.name and (path.is_dir() or CANARY.encode() not in path.read_bytes())


def test_the_order_is_not_that_of_the_source(privatizer, tmp_path):
    rows = read(release_table(privatizer, cohort(), tmp_path / "released.csv"))
    # The chance that the ten malignant ones stay in front is below 2e-9.
    assert [row["diagnosis"] for row in rows] != ["malignant"] * 10 + ["benign"] * 30


def test_values_beyond_the_range_of_pixels_decide_between_categories(tmp_path):
    """Both numbers of a category above 1: the larger one counts, and not the first."""
    privatizer = privatizer_of(PriorOnly())
    privatizer.inn.input_scale.mean.copy_(torch.tensor([0.5, 0.5, 20.0, 40.0]))
    rows = read(release_table(privatizer, cohort(), tmp_path / "released.csv"))
    assert {row["site"] for row in rows} == {"right"}


@pytest.mark.parametrize("existing", ["released.csv", "released_privacy.json"])
def test_what_exists_is_never_overwritten(privatizer, ledger, tmp_path, existing, refused):
    (tmp_path / existing).write_text("mine")
    with refused(ValueError, "exists; give a new name"):
        release_table(privatizer, cohort(), tmp_path / "released.csv", ledger=ledger)
    assert (tmp_path / existing).read_text() == "mine" and ledger.summary()["reserved"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger", existing]


def test_another_ending_is_refused(privatizer, tmp_path, refused):
    with refused(ValueError, "ending '.xlsx'"):
        release_table(privatizer, cohort(), tmp_path / "released.xlsx")


def test_the_schema_of_another_network_is_refused(privatizer, ledger, tmp_path, refused):
    with refused(ValueError, "with which it was trained"):
        release_table(privatizer, ScikitTable("two_moons", "test"), tmp_path / "released.csv", ledger=ledger)
    assert [path.name for path in tmp_path.iterdir()] == ["ledger"]


def changed(index, **changes):
    """The schema with one column described otherwise."""
    plain = SCHEMA.to_dict()
    plain["columns"][index] |= changes
    return TableSchema(**plain)


SAME_SIZES = {
    "another order of values": changed(2, values=["right", "left, upper"]),
    "another order of the classes": changed(3, values=["malignant", "benign"]),
    "other bounds": changed(0, highest=900),
    "another name": changed(0, name="weight"),
    "other grades": changed(1, values=[1, 2, 4]),
    "another order of columns": TableSchema(
        [SCHEMA.columns[1], SCHEMA.columns[0], *SCHEMA.columns[2:]], condition=["diagnosis"]
    ),
}


@pytest.mark.parametrize("other", SAME_SIZES.values(), ids=SAME_SIZES)
def test_a_schema_of_the_same_sizes_in_which_numbers_mean_something_else_is_refused(other, ledger, tmp_path, refused):
    torch.manual_seed(0)
    inn = ConditionalINN((), SCHEMA.width, num_classes=2, width=8, num_couplings=2)
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 2), schema=SCHEMA.to_dict()), tmp_path / "model.pt")
    loaded = load_privatizer(tmp_path / "model.pt", SubsetSelection(2.0, num_candidates=64), unit="row")
    rows = [dict.fromkeys(other.names, 1) | {"site": "right", "diagnosis": "benign"}]
    table = TableRows(rows, other, [CANARY])
    with refused(ValueError, "another schema than that of the network's training"):
        release_table(loaded, table, tmp_path / "released.csv", ledger=ledger)
    assert ledger.summary()["reserved"] == 0 and not (tmp_path / "released.csv").exists()
    rows = [{"age": 30, "grade": 1, "site": "right", "diagnosis": "benign"}]
    same = TableRows(rows, TableSchema(**SCHEMA.to_dict()), [CANARY])
    assert release_table(loaded, same, tmp_path / "released.csv", ledger=ledger).exists()


def test_a_ledger_needs_subjects(privatizer, ledger, tmp_path, refused):
    with refused(ValueError, "say nothing of their subjects"):
        release_table(privatizer, cohort(subjects=False), tmp_path / "released.csv", ledger=ledger)
    assert ledger.summary()["reserved"] == 0 and [path.name for path in tmp_path.iterdir()] == ["ledger"]


def test_over_the_cap_there_is_no_file(privatizer, ledger, tmp_path):
    ledger.set_budget(f"{CANARY} 19", 3.0)
    with pytest.raises(BudgetExceededError, match=r"who are named in released_problems\.csv") as caught:
        release_table(privatizer, cohort(), tmp_path / "released.csv", ledger=ledger)
    assert CANARY not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger", "released_problems.csv"]
    problems = tmp_path / "released_problems.csv"
    assert problems.stat().st_mode & 0o777 == 0o600
    assert problems.read_text().splitlines()[1:] == [f"{CANARY} 19,over the cap of its budget"]


def test_a_second_table_holds_the_same_rows_and_costs_nothing(privatizer, ledger, tmp_path):
    first, second = (
        read(release_table(privatizer, cohort(), tmp_path / f"{name}.csv", batch_size=7, ledger=ledger))
        for name in "ab"
    )
    assert sorted(map(str, first)) == sorted(map(str, second))
    assert ledger.summary()["reserved"] == NUM_ROWS
    assert {ledger.spent(f"{CANARY} {index}") for index in range(NUM_ROWS // 2)} == {(4.0, 0.0)}


def test_two_equal_rows_of_a_subject_have_two_releases(privatizer, ledger):
    row = {"age": 40, "grade": 2, "site": "right", "diagnosis": "benign"}
    ((released, _),) = release_rows(privatizer, TableRows([row] * 2, SCHEMA, ["a", "a"]), ledger=ledger)
    assert not torch.equal(released[0], released[1]) and ledger.spent("a") == (4.0, 0.0)


def test_without_a_ledger_every_release_is_drawn_anew(privatizer):
    first, second = (torch.cat([rows for rows, _ in release_rows(privatizer, cohort(), 7)]) for _ in range(2))
    assert first.shape == (NUM_ROWS, SCHEMA.width) and not torch.equal(first, second)


def test_a_table_without_the_condition_is_released_under_a_stated_one(tmp_path):
    privatizer = privatizer_of(condition=1)
    rows = read(release_table(privatizer, cohort(condition=False), tmp_path / "released.csv"))
    assert {row["diagnosis"] for row in rows} == {"malignant"}


def test_a_private_condition_is_written_as_it_was_randomized(tmp_path):
    privatizer = privatizer_of(label_mechanism=RandomizedResponse(0.01, 2))
    rows = read(release_table(privatizer, cohort(), tmp_path / "released.csv"))
    card = json.loads((tmp_path / "released_privacy.json").read_text())
    assert card["guarantee"]["epsilon"] == pytest.approx(2.01) and card["guarantee"]["public"] == []
    # Ten of forty are malignant, and half are told to be; at most 11 have a chance of .003, three times of 3e-8.
    counts = [sum(row["diagnosis"] == "malignant" for row in rows)]
    for name in "ab":
        again = read(release_table(privatizer, cohort(), tmp_path / f"{name}.csv"))
        counts.append(sum(row["diagnosis"] == "malignant" for row in again))
    assert max(counts) > 11


def test_several_conditions_are_written_back(tmp_path):
    schema = TableSchema(SCHEMA.to_dict()["columns"], ["age", "diagnosis"])
    table = TableRows(cohort().decoded(), schema)
    inn = ConditionalINN((), schema.width, condition_size=schema.condition_size, width=8, num_couplings=2)
    privatizer = Privatizer(inn, SubsetSelection(2.0, num_candidates=64), ContentBasis.leading(inn, 3), unit="row")
    rows = read(release_table(privatizer, table, tmp_path / "released.csv"))
    assert sorted(float(row["age"]) for row in rows) == pytest.approx(
        [20 + index for index in range(NUM_ROWS)], abs=1e-3
    )
    assert all((row["diagnosis"] == "malignant") == (float(row["age"]) < 29.5) for row in rows)


def evaluation(name, target=None, model="linear"):
    return TableEvaluation(ScikitTable(name, "train"), ScikitTable(name, "test"), target=target, model=model)


def test_the_evaluation_measures_accuracy_of_classes_and_r2_of_numbers():
    assert evaluation("breast_cancer").originals()["accuracy"] > 0.95
    assert evaluation("breast_cancer", model="forest").originals()["accuracy"] > 0.9
    assert 0.3 < evaluation("diabetes", target="progression").originals()["r2"] < 0.6


def test_the_target_is_not_among_the_features():
    """The progression itself would explain all of the progression."""
    assert evaluation("diabetes", target="progression").originals()["r2"] < 0.9
    assert evaluation("diabetes").originals()["accuracy"] < 0.99


def test_a_model_that_learns_from_made_up_rows_is_tested_on_the_same_originals():
    study = evaluation("breast_cancer")
    assert study.learnt_from(ScikitTable("breast_cancer", "train")) == study.originals()
    rows = ScikitTable("breast_cancer", "val").decoded()
    other = {"malignant": "benign", "benign": "malignant"}
    exchanged = TableRows([{**row, "diagnosis": other[row["diagnosis"]]} for row in rows], study.schema)
    assert study.learnt_from(exchanged)["accuracy"] < 0.1


@pytest.mark.slow
def test_rows_that_are_hardly_changed_are_worth_what_originals_are():
    study = evaluation("two_moons")
    torch.manual_seed(0)
    inn = ConditionalINN((), 2, num_classes=2, num_couplings=0)
    inn.whitening.inside.mean.copy_(torch.tensor([0.5, 0.5]) @ inn.whitening.basis)
    inn.whitening.inside.set_factor(0.3 * torch.eye(2).repeat(2, 1, 1))
    runs = [study.run(inn, ContentBasis.leading(inn, 2), [SubsetSelection(10.0)]) for _ in range(8)]
    prior, kept = runs[0]
    assert prior["name"] == "prior only" and abs(prior["kept_mean"]) < 0.25
    assert (kept["name"], kept["epsilon"], kept["delta"]) == ("epsilon 10", 10.0, 0.0)
    assert kept["kept_mean"] > 0.8 and abs(kept["accuracy"] - study.originals()["accuracy"]) < 0.02
    # This prior tells nothing of the classes: a line learnt from it lies anywhere, now and then the right way.
    assert kept["accuracy"] > sum(first["accuracy"] for first, _ in runs) / len(runs)
    assert kept["accuracy"] > study.originals()["accuracy"] - 0.05


def test_an_unclear_target_is_refused(refused):
    table = TableRows(cohort().decoded(), TableSchema(SCHEMA.to_dict()["columns"]))
    with refused(ValueError, "0 conditions and no target"):
        TableEvaluation(table, table)
    with refused(ValueError, "no column 'weight'"):
        TableEvaluation(table, table, target="weight")
    with refused(ValueError, "model is 'deep'"):
        TableEvaluation(table, table, target="age", model="deep")


def test_several_processes_do_not_release_a_table_each(privatizer, tmp_path, refused, monkeypatch):
    monkeypatch.setattr("ignite.distributed.get_world_size", lambda: 2)
    with refused(ValueError, "A table came to several processes"):
        release_table(privatizer, cohort(), tmp_path / "out.csv")
    assert not list(tmp_path.glob("out*"))


def test_where_the_table_cannot_be_put_in_place_no_card_stays_and_the_cause_is_told(privatizer, tmp_path, monkeypatch):
    plain = Path.rename

    def failing(path, target):
        if Path(target).suffix == ".csv":
            raise OSError("no space")
        return plain(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError):
        release_table(privatizer, cohort(), tmp_path / "out.csv")
    assert not list(tmp_path.glob("out*"))


def test_folders_that_are_not_there_are_made(privatizer, tmp_path):
    release_table(privatizer, cohort(), tmp_path / "new" / "folder" / "out.csv")
    assert (tmp_path / "new" / "folder" / "out.csv").exists()
