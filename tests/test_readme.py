# SPDX-License-Identifier: Apache-2.0
"""What the README says works, word for word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from benchmarks import render_docs
from monai_cadp.data import Digits
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.privacy import PriorOnly, PrivacyGuarantee
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
    "cadp_3d": (ROOT / "bundles" / "cadp_3d" / "docs" / "README.md").read_text(),
    "cadp_brain_mr": BRAIN_README,
    "cadp_chest_xray": CHEST_README,
    "cadp_tabular": TABULAR_README,
    "STUDIES": STUDIES,
    "get_started": (ROOT / "docs" / "get_started.md").read_text(),
    **{
        name: (ROOT / "docs" / "guides" / f"{name}.md").read_text()
        for name in ("private_training", "ledger", "dicom", "federated", "gpu")
    },
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_names_a_configuration_and_options_that_exist(name):
    text = TEXTS[name]
    lines = [line for block in blocks("bash", text) for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(python -m monai.bundle run [^`]+)`", text)
    commands = [part for line in lines for part in line.split("&&") if "monai.bundle run" in part]
    assert commands
    for command in re.findall(r"`(python -m monai\.bundle ckpt_export [^`]+)`", text):
        assert "--config_file configs/inference.yaml --key_in_ckpt privatizer" in " ".join(command.split())
    for command in commands:
        files, options = re.search(r"--config_file (\S+)(.*)", command).groups()
        keys = {
            key for file in re.findall(r"[\w/.]+\.yaml", files) for key in yaml.safe_load((ROOT / file).read_text())
        }
        assert set(re.findall(r"--(\w+)", options)) <= keys


# Configurations whose options a section has; a table stands below the command of each.
SECTION_FILES = {
    "Train": ("train", "train_dp", "multi_label"),
    "Release": ("inference",),
    "Evaluate": ("evaluate",),
}
WORDS = {"none": None, "true": True, "false": False}


def stated_defaults(text):
    """Of every default in a table of options that is a word or a number, and not prose: section, option and value."""
    for section, content in re.findall(r"^## (.+?)$(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE):
        for options, cell in re.findall(r"^\| (`--.*?) \| .* \| (.+) \|$", content, flags=re.MULTILINE):
            names, values = re.findall(r"--(\w+)", options), cell.split(", ")
            values = values if len(values) == len(names) else [cell] * len(names)
            for name, value in zip(names, values, strict=True):
                word = value.partition(":")[0].removesuffix(" mm").strip("`")
                if re.fullmatch(r"\d+( x \d+)+", word):
                    yield section, name, [int(size) for size in word.split(" x ")]
                elif re.fullmatch(r"`\w+`", value) or word in WORDS or re.fullmatch(r"[\d.]+", word):
                    yield section, name, WORDS[word] if word in WORDS else yaml.safe_load(word)


@pytest.mark.parametrize("bundle", [name for name in TEXTS if name.startswith("cadp_")])
def test_every_default_that_a_bundle_states_is_one_of_its_configurations(bundle):
    stated = list(stated_defaults(TEXTS[bundle]))
    assert len(stated) >= 7
    for section, name, value in stated:
        files = [ROOT / "bundles" / bundle / "configs" / f"{file}.yaml" for file in SECTION_FILES[section]]
        texts = [file.read_text() for file in files if file.exists()]
        # A configuration may leave a default to the code, and name it in its comment.
        said = any(f"{name}: null # " in text and f"null for {value}\n" in text for text in texts)
        assert said or value in [content[name] for content in map(yaml.safe_load, texts) if name in content], name


def test_every_file_that_is_linked_is_there():
    documents = [ROOT / "README.md", *(ROOT / "bundles").glob("*/docs/README.md")]
    for document in documents:
        folder, text = document.parent, document.read_text()
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert "://" in target or (folder / target).exists(), (document.parent, target)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


DOCUMENTS = {name: (ROOT / name).read_text() for name in render_docs.DOCUMENTS}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_measured_figure_of_a_document_is_the_one_of_its_results_file(name):
    assert render_docs.section_names(DOCUMENTS[name])
    assert render_docs.rendered(DOCUMENTS[name]) == DOCUMENTS[name]


def test_every_results_file_stands_in_a_document():
    shown = {file for text in DOCUMENTS.values() for file in render_docs.section_names(text)}
    files = (ROOT / "results").rglob("*.json")
    published = {path.relative_to(ROOT / "results").as_posix() for path in files if is_published(path)}
    assert shown == published == set(render_docs.RENDERED)


def is_published(path):
    """Runs of one's own lie beside the published results; .gitignore keeps them apart."""
    place = path.relative_to(ROOT / "results").parts
    return len(place) == 1 or (place[0] == "studies" and place[2:] == ("results.json",))


def digits_of(text):
    return [match.start() for match in re.finditer(r"\d", text)]


def with_another_digit(text, place):
    return text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_any_digit_that_is_changed_in_a_section_is_found(name):
    """Negative control."""
    for section in render_docs.SECTION.finditer(DOCUMENTS[name]):
        whole = f"<!-- results/{section[0]}<!-- end -->"
        start = whole.index(section[3])
        places = digits_of(section[3])
        for place in places[:: max(1, len(places) // 20)]:
            changed = with_another_digit(whole, start + place)
            assert render_docs.rendered(changed) == whole != changed


@pytest.mark.parametrize("file", render_docs.RENDERED)
def test_any_figure_that_is_changed_in_a_results_file_is_found(file, tmp_path):
    """Negative control: figures that no table shows are among them."""
    text = (ROOT / "results" / file).read_text()
    (document,) = [one for one in DOCUMENTS.values() if file in render_docs.section_names(one)][-1:]
    (section,) = [match[0] for match in render_docs.SECTION.finditer(document) if match[1] == file]
    copy = tmp_path / file
    copy.parent.mkdir(parents=True, exist_ok=True)
    places = [match.start(1) for match in re.finditer(r"[ -]\d*?(\d)[,.\n}\]]", text)]
    assert places
    for place in places[:: max(1, len(places) // 20)]:
        copy.write_text(with_another_digit(text, place))
        assert section not in render_docs.rendered(f"<!-- results/{section}<!-- end -->", tmp_path)


# Every other figure of the README, and how it is checked.
STATED = {
    "epsilon 8, 4\nand 1": None,  # what the picture shows
    "for 2D and 3D images": None,
    "T1-weighted": None,
    "2D images of your own": None,
    "e^epsilon / (1 + e^epsilon)": None,
    "length C in L1": None,
    "(AUC; 0.5 is not at all)": None,
    "build/site": None,
    ".73 at 1, .98 at 4": lambda: (
        ["0.73", "0.98"] == [f"{PrivacyGuarantee(epsilon, 'x').attacker_auc_bound:.2f}" for epsilon in (1, 4)]
    ),
    "epsilon 4 and 10,000 releases (of a class) give 0.37 at delta 1e-6": lambda: (
        f"{SET.shuffled(10_000, 1e-6).epsilon:.2f}" == "0.37"
    ),
    "one of N public candidates is released, likely one of the m nearest": None,
    "sensitivity 2C": None,
    "| 0 | nothing": lambda: PriorOnly().epsilon == 0,
    "Python 3.10 or newer": lambda: 'python_requires=">=3.10"' in (ROOT / "setup.py").read_text(),
    "Apache License 2.0": lambda: "Version 2.0" in (ROOT / "LICENSE").read_text(),
    "MICCAI DeCaF 2022": None,
}


# By the default mechanism, with the size of subset that fits an epsilon of 4 best.
SET = PrivacyGuarantee(
    4.0, "SubsetSelection", parameters={"num_candidates": 2**14, "num_blocks": 1, "subset_size": [1111]}
)


def other_figures(text):
    """The lines of a text that hold figures outside of commands, sections and names, but for those that are stated."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = render_docs.SECTION.sub("", text)
    for stated in STATED:
        text = text.replace(stated, "")
    text = re.sub(r"`[^`]*`|\([^()\s]*\)|\[cadp_\w+\]", "", text)
    return [line for line in text.splitlines() if re.search(r"\d", line)]


def test_the_readme_has_no_other_figure_than_those_that_are_stated_here():
    assert other_figures(README) == []
    for stated, is_true in STATED.items():
        assert stated in README, stated
        assert is_true is None or is_true(), stated


@pytest.mark.parametrize("figure", [".98 at 4", "0.5 is not", "sensitivity 2C", "epsilon 8, 4"])
def test_a_figure_that_is_changed_in_the_text_of_the_readme_is_found(figure):
    """Negative control."""
    (place, *_) = digits_of(figure)
    assert other_figures(README.replace(figure, with_another_digit(figure, place))) != []
