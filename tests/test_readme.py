# SPDX-License-Identifier: Apache-2.0
"""What the README says works, word for word."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from monai_cadp.data import Digits
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.release.checkpoint import save_model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BUNDLE_README = (ROOT / "bundles" / "cadp_2d" / "docs" / "README.md").read_text()
TABULAR_README = (ROOT / "bundles" / "cadp_tabular" / "docs" / "README.md").read_text()
STUDIES = (ROOT / "docs" / "STUDIES.md").read_text()
CHEST_README = (ROOT / "bundles" / "cadp_chest_xray" / "docs" / "README.md").read_text()
BRAIN_README = (ROOT / "bundles" / "cadp_brain_mr" / "docs" / "README.md").read_text()


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.slow
def test_the_pipeline_example_runs(tmp_path, monkeypatch, capsys):
    inn = ConditionalINN((8, 8), 1, num_classes=10, width=16, num_couplings=2)
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 8)), tmp_path / "results" / "quickstart" / "model.pt")
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    namespace: dict = {}
    exec(compile(example, "README.md", "exec"), namespace)
    assert namespace["image"].shape[1:] == (1, 8, 8)
    assert namespace["ledger"].summary()["reserved"] == len(Digits("test"))
    printed = capsys.readouterr().out
    assert "epsilon = 4" in printed and "(4.0, 0.0)" in printed


def test_the_check_script_runs_the_test_command_of_the_readme():
    (command,) = [line for block in blocks("bash") for line in block.splitlines() if "pytest" in line]
    assert command.endswith('pip install -e ".[dev]" && python -m pytest -q')
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


TEXTS = {
    "README": README,
    "cadp_2d": BUNDLE_README,
    "cadp_brain_mr": BRAIN_README,
    "cadp_chest_xray": CHEST_README,
    "cadp_tabular": TABULAR_README,
    "STUDIES": STUDIES,
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_names_a_configuration_and_options_that_exist(name):
    text = TEXTS[name]
    lines = [line for block in blocks("bash", text) for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(python -m monai.bundle run [^`]+)`", text)
    commands = [part for line in lines for part in line.split("&&") if "monai.bundle run" in part]
    assert commands
    for command in commands:
        files, options = re.search(r"--config_file (\S+)(.*)", command).groups()
        keys = {
            key for file in re.findall(r"[\w/.]+\.yaml", files) for key in yaml.safe_load((ROOT / file).read_text())
        }
        assert set(re.findall(r"--(\w+)", options)) <= keys


def test_every_file_that_is_linked_is_there():
    folders = {"README": ROOT, "STUDIES": ROOT / "docs"}
    for name, text in TEXTS.items():
        folder = folders.get(name, ROOT / "bundles" / name / "docs")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert "://" in target or (folder / target).exists(), target


def test_every_figure_of_a_table_of_results_stands_in_the_file_that_is_named_beside_it():
    sections = re.findall(r"<!-- (results/[\w/]+\.json) -->\n(.*?)<!-- end -->", README, flags=re.DOTALL)
    assert sections
    for name, section in sections:
        text = json.dumps(json.loads((ROOT / name).read_text()))
        known = {float(number) for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)}
        for figure in re.findall(r"(?<![\w.])-?\d*\.\d+", section):
            digits = len(figure.split(".")[1])
            assert any(abs(round(number, digits) - float(figure)) < 1e-9 for number in known), (name, figure)
