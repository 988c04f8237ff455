# SPDX-License-Identifier: Apache-2.0
"""The bundle for tables trains, releases and evaluates through MONAI's own commands."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from mlflow import MlflowClient
from monai.bundle import ckpt_export, run, verify_metadata, verify_net_in_out

from monai_cadp.__main__ import main
from monai_cadp.data import ScikitTable
from monai_cadp.privacy import PriorOnly
from monai_cadp.release.checkpoint import load_privatizer

pytestmark = pytest.mark.slow

BUNDLE = Path(__file__).parents[2] / "bundles" / "cadp_tabular"
CONFIGS = BUNDLE / "configs"
SCHEMA = Path(__file__).with_name("metadata_schema.json")
CANARY = "Mustermann-1954"
SMALL = {"num_couplings": 2, "width": 8, "num_directions": 4}
COLUMNS = {
    "columns": [
        {"name": "age", "kind": "continuous", "lowest": 18, "highest": 90},
        {"name": "crp", "kind": "continuous", "lowest": 0.1, "highest": 500, "log": True},
        {"name": "grade", "kind": "ordinal", "values": [1, 2, 3]},
        {"name": "side", "kind": "categorical", "values": ["left", "right"]},
        {"name": "diagnosis", "kind": "categorical", "values": ["benign", "malignant"]},
    ],
    "condition": ["diagnosis"],
}


def train(folder, **options):
    run(
        config_file=str(CONFIGS / "train.yaml"),
        bundle_root=str(BUNDLE),
        checkpoint=f"{folder}/model.pt",
        output_dir=f"{folder}/runs",
        **{"max_epochs": 2, "num_couplings": 2, "width": 8, "num_directions": 4, **options},
    )
    return Path(folder, "model.pt")


def release(output, checkpoint, **options):
    run(
        config_file=str(CONFIGS / "inference.yaml"),
        bundle_root=str(BUNDLE),
        checkpoint=str(checkpoint),
        output=str(output),
        **{"epsilon": 8.0, **options},
    )
    return Path(output)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """One training of two epochs on a real table, for all tests."""
    return train(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """A table of 40 patients with two visits each, its schema, and a network that was trained on it."""
    folder = tmp_path_factory.mktemp(CANARY)
    (folder / "schema.yaml").write_text(yaml.safe_dump(COLUMNS))
    lines = ["patient,age,crp,grade,side,diagnosis"]
    for index in range(80):
        grade, side = 1 + index % 3, ("left", "right")[index % 2]
        diagnosis = ("benign", "malignant")[index // 2 % 2]
        lines.append(f"{CANARY}-{index // 2},{20 + index % 60},{0.5 + index},{grade},{side},{diagnosis}")
    (folder / "patients.csv").write_text("\n".join(lines) + "\n")
    options = {"schema": str(folder / "schema.yaml"), "subject_column": "patient"}
    trained = train(tmp_path_factory.mktemp("trained"), dataset_dir=str(folder / "patients.csv"), **options)
    return folder / "patients.csv", options, trained


def read(path):
    with open(path, encoding="utf-8", newline="") as content:
        return list(csv.DictReader(content))


def test_the_metadata_are_valid_and_describe_the_default_table():
    verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=str(SCHEMA))
    tensors = json.loads((CONFIGS / "metadata.json").read_text())["network_data_format"]
    names = [column.name for column in ScikitTable("breast_cancer", "test").schema.encoded]
    for tensor in (tensors["inputs"]["image"], tensors["outputs"]["pred"]):
        assert list(tensor["channel_def"].values()) == names and tensor["num_channels"] == len(names)


def test_the_network_takes_and_gives_what_the_metadata_say():
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.yaml"),
        device="cpu",
    )


def test_the_trained_privatizer_is_exported_by_tracing_and_draws_afresh(checkpoint, tmp_path):
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(checkpoint),
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.yaml"),
        key_in_ckpt="privatizer",
        use_trace=True,
        input_shape=[1, 30],
        **SMALL,
    )
    traced = torch.jit.load(str(tmp_path / "model.ts"))
    x = torch.rand(1, 30)
    assert traced(x).shape == x.shape and not torch.equal(traced(x), traced(x))


def test_the_default_table_is_real_and_needs_no_download(checkpoint, tmp_path):
    output = release(tmp_path / "released.csv", checkpoint, split="test")
    rows, test = read(output), ScikitTable("breast_cancer", "test")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["released.csv", "released_privacy.json"]
    assert len(rows) == len(test) and list(rows[0]) == test.schema.names
    assert sum(row["diagnosis"] == "benign" for row in rows) == int(test.labels.sum())
    card = json.loads((tmp_path / "released_privacy.json").read_text())
    guarantee = card["guarantee"]
    assert (guarantee["epsilon"], guarantee["unit"]) == (8.0, "row")
    assert guarantee["training_data"]["protection"] == "unprotected"


def test_a_csv_file_is_released_whole_and_valid(patients, tmp_path):
    source, options, trained = patients
    output = release(tmp_path / "released.csv", trained, input=str(source), **options)
    rows = read(output)
    assert len(rows) == 80 and list(rows[0]) == ["age", "crp", "grade", "side", "diagnosis"]
    assert {row["grade"] for row in rows} <= {"1", "2", "3"} and {row["side"] for row in rows} <= {"left", "right"}
    assert all(18 <= float(row["age"]) <= 90 and 0.1 <= float(row["crp"]) <= 500 for row in rows)
    assert sum(row["diagnosis"] == "malignant" for row in rows) == 40
    assert not any(CANARY.encode() in path.read_bytes() for path in tmp_path.iterdir())


def test_a_table_with_visits_is_trained_on_released_and_evaluated(patients, tmp_path):
    source, options, _ = patients
    header, *lines = source.read_text().splitlines()
    visits = [f"{line},{index % 2}" for index, line in enumerate(lines)]
    (tmp_path / "visits.csv").write_text("\n".join([f"{header},visit", *visits]) + "\n")
    table, options = str(tmp_path / "visits.csv"), options | {"item_column": "visit"}
    trained = train(tmp_path / "trained", dataset_dir=table, **options)
    assert len(read(release(tmp_path / "released.csv", trained, input=table, **options))) == 80
    run(
        config_file=str(CONFIGS / "evaluate.yaml"),
        bundle_root=str(BUNDLE),
        checkpoint=str(trained),
        dataset_dir=table,
        output_file=str(tmp_path / "evaluation.json"),
        epsilons=[8.0],
        **options,
    )
    assert len(json.loads((tmp_path / "evaluation.json").read_text())) == 3


def test_no_name_is_left_behind_by_the_training(patients):
    _, _, trained = patients
    written = [path for path in trained.parent.rglob("*") if path.is_file()]
    assert {"model.pt", "last.pt", "mlflow.db"} <= {path.name for path in written}
    assert not any(CANARY.encode() in path.read_bytes() for path in written)


def test_with_a_ledger_a_patient_has_one_budget_and_rows_are_returned_from_the_ledger(patients, tmp_path):
    source, options, trained = patients
    place = ["--ledger", str(tmp_path / "ledger.db"), "--secret_file", str(tmp_path / "secret")]
    assert main(["ledger", "init", *place, "--epsilon", "8"]) == 0
    kept = {"ledger": str(tmp_path / "ledger.db"), "secret_file": str(tmp_path / "secret"), "epsilon": 4.0}
    first, second = (
        read(release(tmp_path / f"{name}.csv", trained, input=str(source), **options, **kept)) for name in "ab"
    )
    assert sorted(map(str, first)) == sorted(map(str, second))
    with pytest.raises(Exception) as caught:
        release(tmp_path / "c.csv", trained, input=str(source), **options, **(kept | {"epsilon": 4.1}))
    assert "over" in refusal(caught) and CANARY not in str(caught.value)
    assert not (tmp_path / "c.csv").exists() and main(["ledger", "verify", *place]) == 0


def test_a_private_class_costs_its_own_epsilon(checkpoint, tmp_path):
    release(tmp_path / "released.csv", checkpoint, split="test", epsilon=4.0, label_epsilon=1.0)
    card = json.loads((tmp_path / "released_privacy.json").read_text())
    assert card["guarantee"]["epsilon"] == 5.0 and card["guarantee"]["public"] == []


@pytest.mark.parametrize(("options", "measure"), [({}, "accuracy"), ({"target": "mean area"}, "r2")])
def test_the_evaluation_names_originals_prior_only_and_every_epsilon(checkpoint, tmp_path, options, measure):
    run(
        config_file=str(CONFIGS / "evaluate.yaml"),
        bundle_root=str(BUNDLE),
        checkpoint=str(checkpoint),
        output_file=str(tmp_path / "evaluation.json"),
        epsilons=[8.0],
        **options,
    )
    rows = json.loads((tmp_path / "evaluation.json").read_text())
    assert [row["name"] for row in rows] == ["originals", "prior only", "epsilon 8"]
    assert rows[0][measure] > 0.9 and all(row[measure] <= 1 for row in rows)


def refusal(caught):
    """MONAI wraps what a config's part raises; the innermost is ours."""
    error = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


@pytest.mark.parametrize("epsilon", [None, 0.0, float("nan")])
def test_without_a_usable_epsilon_nothing_is_written(checkpoint, tmp_path, epsilon):
    with pytest.raises(Exception) as caught:
        release(tmp_path / "released.csv", checkpoint, epsilon=epsilon)
    assert "epsilon is" in refusal(caught)
    assert not list(tmp_path.iterdir())


def test_a_bad_table_leaves_no_file_behind(patients, tmp_path):
    source, options, trained = patients
    (tmp_path / "in").mkdir()
    bad = tmp_path / "in" / f"{CANARY}.csv"
    bad.write_text(source.read_text().replace(",left,", f",{CANARY},", 1))
    with pytest.raises(Exception) as caught:
        release(tmp_path / "released.csv", trained, input=str(bad), **options)
    assert "1 of 80 rows have a value in the column 'side'" in refusal(caught) and CANARY not in refusal(caught)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_tracking_by_monai_of_private_training_records_no_loss_and_nobodys_name(patients, tmp_path, monkeypatch):
    source, options, _ = patients
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("USER", CANARY)
    # MONAI's store lies where the command is given.
    monkeypatch.chdir(tmp_path)
    run(
        config_file=[str(CONFIGS / "train.yaml"), str(CONFIGS / "train_dp.yaml")],
        bundle_root=str(BUNDLE),
        tracking="mlflow",
        checkpoint=f"{tmp_path}/model.pt",
        output_dir=f"{tmp_path}/runs",
        dataset_dir=str(source),
        unit="patient",
        epsilon=6.0,
        delta=1e-4,
        max_epochs=2,
        **{"batch_size": 20, **SMALL, **options},
    )
    stores = {tmp_path / "mlruns.db": set(), tmp_path / "runs/mlflow.db": {"learning_rate"}}
    for store, metrics in stores.items():
        client = MlflowClient(f"sqlite:///{store}")
        (tracked,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
        assert set(tracked.data.metrics) == metrics
        assert client.list_artifacts(tracked.info.run_id) == []
        assert CANARY.encode() not in store.read_bytes()
        if store.name == "mlruns.db":
            assert tracked.data.params == {"max_epochs": "2", "epoch_length": "2"}
    assert not list(tmp_path.rglob("*.json"))


def test_private_training_spends_its_budget_on_rows(tmp_path):
    run(
        config_file=[str(CONFIGS / "train.yaml"), str(CONFIGS / "train_dp.yaml")],
        bundle_root=str(BUNDLE),
        checkpoint=f"{tmp_path}/model.pt",
        output_dir=f"{tmp_path}/runs",
        epsilon=6.0,
        delta=1e-4,
        max_epochs=1,
        **SMALL,
    )
    trained = load_privatizer(tmp_path / "model.pt", PriorOnly()).training_data
    assert trained.protection == "dp" and trained.guarantee["unit"] == "row"
    assert 0.98 * 6.0 < trained.guarantee["epsilon"] <= 6.0
