# SPDX-License-Identifier: Apache-2.0
"""An audit from the command line ends with the code that says what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from monai_cadp.__main__ import main
from monai_cadp.cli.audit import tables
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.release.checkpoint import save_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "cadp_2d" / "configs" / "inference.yaml"
RESULTS = ROOT / "results" / "audit.json"

# The numbers of a privatizer's configuration, and a mechanism that claims less than it spends.
CONFIGURATION = """
epsilon: 2.0
factor: 1.0
inn: { _target_: monai_cadp.networks.ConditionalINN, spatial_shape: [], in_channels: 3, num_couplings: 1, width: 4 }
honest: { _target_: monai_cadp.privacy.LaplaceMechanism, epsilon: "@epsilon", clipping_bound: 1.0 }
privatizer:
  _target_: monai_cadp.Privatizer
  inn: "@inn"
  mechanism: { _target_: monai_cadp.attacks.negative_controls.with_noise, mechanism: "@honest", factor: "@factor" }
  content: { _target_: monai_cadp.networks.ContentBasis.leading, inn: "@inn", num_directions: 1 }
elsewhere: "@privatizer"
"""
FEW = ["--trials", "1500", "--trials_alone", "20"]


@pytest.fixture
def configuration(tmp_path):
    path = tmp_path / "audit.yaml"
    path.write_text(CONFIGURATION)
    return str(path)


@pytest.fixture
def run(capsys):
    """Run the command; returns its exit code and what it printed."""

    def command(*options):
        code = main(["audit", *map(str, options)])
        return code, capsys.readouterr()

    return command


def test_a_promise_that_is_kept_ends_with_0_and_is_written(run, configuration, tmp_path):
    out = tmp_path / "results" / "audit.json"
    code, printed = run("--config_file", configuration, *FEW, "--out", out)
    assert code == 0
    report = json.loads(out.read_text())
    assert [(row["name"], row["level"]) for row in report["audits"]] == [
        ("LaplaceMechanism", "image"),
        ("LaplaceMechanism", "latent"),
    ]
    assert sum(row["failure_rate"] for row in report["audits"]) == pytest.approx(1e-6)
    assert tables(report) in printed.out and "kept" in printed.out
    assert "LaplaceMechanism, image, epsilon 2" in printed.err  # the progress bar


def test_a_promise_that_is_broken_ends_with_1(run, configuration):
    # The flake rate of a control with half the noise is far below 1e-6; see tests/attacks.
    code, printed = run("--config_file", configuration, "--factor", "0.5", *FEW)
    assert code == 1 and printed.out.count("CONTRADICTED") == 2


def test_values_of_the_configuration_are_replaced_as_by_monai_bundle_run(run, configuration):
    options = ["--privatizer_id", "elsewhere", "--epsilon=6.0", "--honest#clipping_bound", "3.0"]
    code, printed = run("--config_file", configuration, *options, "--trials", "100", "--trials_alone", "20")
    assert code == 0
    assert "LaplaceMechanism  image   6 " in printed.out
    assert "kept, but more trials are needed to contradict it" in printed.out


def test_the_bundles_privatizer_is_audited(run, tmp_path):
    torch.manual_seed(0)
    inn = ConditionalINN((8, 8), num_classes=10, num_couplings=1, width=4)
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 2)), tmp_path / "model.pt")
    options = ["--checkpoint", tmp_path / "model.pt", "--epsilon", "1.0", "--label_epsilon", "1.0"]
    code, printed = run("--config_file", BUNDLE, *options, "--trials", "20", "--trials_alone", "20")
    assert code == 0
    assert [line.split()[0] for line in printed.out.splitlines()[1:]] == [
        "composition",
        "SubsetSelection",
        "RandomizedResponse",
    ]


def test_an_audit_is_recorded_in_mlflow(run, configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'store.db'}"
    out = tmp_path / "audit.json"
    few = ["--trials", "20", "--trials_alone", "20"]
    assert run("--config_file", configuration, *few, "--out", out, "--tracking_uri", uri)[0] == 0
    client = MlflowClient(uri)
    (recorded,) = client.search_runs([client.get_experiment_by_name("audit").experiment_id])
    assert recorded.info.status == "FINISHED"
    assert recorded.data.params == {"failure_rate": "1e-06"}
    report = json.loads(out.read_text())
    for row in report["audits"]:
        title = f"LaplaceMechanism {row['level']} epsilon 2"
        assert recorded.data.metrics[f"{title} measured"] == row["measured"]
        assert recorded.data.metrics[f"{title} ceiling"] == row["ceiling"]
    assert [artifact.path for artifact in client.list_artifacts(recorded.info.run_id)] == ["audit.json"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trials", "19"], "trials is 19"),
        (["--trials_alone", "0"], "trials_alone is 0"),
        (["--failure_rate", "1.0"], "failure_rate is 1.0"),
        (["--epsilon", "-1"], "epsilon is -1.0; expected a finite number above 0"),
        (["--epsilon"], "expected pairs of --KEY VALUE"),
        (["epsilon", "1.0"], "expected pairs of --KEY VALUE"),
        (["--privatizer_id", "nothing"], "The configuration has no 'nothing'"),
        (["--privatizer_id", "inn"], "is a ConditionalINN; expected a Releaser"),
        (["--inn#nothing#more", "1"], "could not be read"),
    ],
)
def test_a_bad_argument_is_one_sentence_and_ends_with_2_before_anything_is_written(
    run, configuration, tmp_path, options, message
):
    code, printed = run("--config_file", configuration, "--out", tmp_path / "audit.json", *options)
    assert code == 2 and message in printed.err and printed.out == ""
    assert printed.err.count("\n") == 1 and str(tmp_path) not in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["audit.yaml"]


def test_a_configuration_that_cannot_be_read_ends_with_2(run, tmp_path):
    code, printed = run("--config_file", tmp_path / "missing.yaml")
    assert code == 2 and "could not be read" in printed.err and str(tmp_path) not in printed.err


def test_everything_that_is_shipped_takes_no_values_of_a_configuration(run):
    code, printed = run("--mechanisms", "--epsilon", "1.0")
    assert code == 2 and "--mechanisms reads none" in printed.err


@pytest.mark.parametrize("arguments", [[], ["audit"], ["audit", "--mechanisms", "--config_file", "x"], ["unknown"]])
def test_a_command_line_that_is_not_understood_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: python -m monai_cadp" in capsys.readouterr().err


def test_help_comes_without_importing_a_heavy_library():
    code = "import sys, monai_cadp.__main__ as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'monai', 'mlflow', 'numpy', 'ignite') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "audit" in done.stdout and done.stdout.splitlines()[-1] == "[]"


# --- the audit that is published --------------------------------------------------------------------------------------


def test_the_published_audit_kept_every_promise_and_caught_every_control():
    report = json.loads(RESULTS.read_text())
    assert {row["epsilon"] for row in report["audits"]} == {0.0, 1.0, 2.0, 4.0, 8.0}
    assert {row["level"] for row in report["audits"]} == {"latent", "image"}
    for row in report["audits"]:
        assert row["measured"] <= row["epsilon"] < row["ceiling"]
    for row in report["controls"]:
        assert row["measured"] > row["epsilon"]
    assert report["failure_rate"] <= 1e-6


def test_the_table_in_the_docs_is_the_published_audit():
    assert tables(json.loads(RESULTS.read_text())) in (ROOT / "docs" / "AUDIT.md").read_text()
