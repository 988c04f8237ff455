# SPDX-License-Identifier: Apache-2.0
"""Every bundle runs from the project's folder, from its own, from anywhere and after it was copied."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import (
    ConfigParser,
    ConfigWorkflow,
    ckpt_export,
    create_workflow,
    run,
)

from monai_cadp.__main__ import main
from monai_cadp.bundle_options import bundle_root
from monai_cadp.bundles import shipped_bundles
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.release.checkpoint import save_model
from tests.conftest import assert_one_sentence, study_files

ROOT = Path(__file__).parents[2]
BUNDLES = [*shipped_bundles()]
# Of the network that stands in for a trained one.
SMALL = {"inn#width": 8, "inn#num_couplings": 2}


def at(files, **options):
    """Where a command takes its bundle to be: the value of bundle_root, after MONAI has begun as ``run`` does."""
    workflow = create_workflow(config_file=files, **options)
    return workflow.parser.get_parsed_content("bundle_root")


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_lies_where_its_configurations_lie(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert at(f"bundles/{name}/configs/inference.yaml") == f"bundles/{name}"
    monkeypatch.chdir(ROOT / "bundles" / name)
    assert at("configs/inference.yaml") == at("./configs/inference.yaml") == "."
    monkeypatch.chdir("configs")
    assert at("inference.yaml") == ".."
    assert main(["bundle", "copy", name, str(tmp_path / "mine")]) == 0
    monkeypatch.chdir(tmp_path)
    assert at("mine/configs/inference.yaml") == "mine"
    assert at(str(tmp_path / "mine" / "configs" / "inference.yaml")) == str(tmp_path / "mine")
    assert at("mine/configs/inference.yaml", bundle_root="another") == "another"


@pytest.mark.parametrize("name", BUNDLES)
def test_every_configuration_that_stands_alone_finds_its_bundle_by_itself(name):
    for path in (ROOT / "bundles" / name / "configs").glob("*.yaml"):
        content = yaml.safe_load(path.read_text())
        assert content.get("bundle_root") == (
            {"_target_": "monai_cadp.bundle_options.bundle_root"} if "run" in content else None
        )


def test_overlays_belong_to_the_bundle_of_the_first_file(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("max_epochs: 1\n")
    monkeypatch.chdir(ROOT)
    files = [f"bundles/cadp_2d/configs/{name}.yaml" for name in ("train", "train_dp")]
    assert at([*files, str(tmp_path / "mine.yaml")]) == "bundles/cadp_2d"


def test_files_that_an_args_file_names_are_found(tmp_path, monkeypatch):
    (tmp_path / "args.yaml").write_text("config_file: bundles/cadp_2d/configs/train.yaml\n")
    monkeypatch.chdir(ROOT)
    assert at(None, args_file=str(tmp_path / "args.yaml")) == "bundles/cadp_2d"


def test_a_configuration_in_a_folder_of_another_name_takes_that_folder(tmp_path):
    config = {"bundle_root": {"_target_": "monai_cadp.bundle_options.bundle_root"}, "initialize": ["@bundle_root"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    assert at(str(tmp_path / "mine.yaml")) == str(tmp_path)


def test_a_workflow_that_a_program_makes_knows_its_bundle_before_and_after_a_change():
    workflow = ConfigWorkflow(str(ROOT / "bundles" / "cadp_2d" / "configs" / "train.yaml"), logging_file=False)
    workflow.initialize()
    assert workflow.bundle_root == str(ROOT / "bundles" / "cadp_2d")
    workflow.parser["max_epochs"] = 1
    assert workflow.parser.get_parsed_content("checkpoint") == str(ROOT / "bundles" / "cadp_2d" / "models" / "model.pt")


def test_a_program_that_reads_a_configuration_itself_says_where_the_bundle_is_or_works_in_it(tmp_path, monkeypatch):
    def read():
        parser = ConfigParser()
        parser.read_config(str(ROOT / "bundles" / "cadp_2d" / "configs" / "train.yaml"))
        return parser

    with pytest.raises(RuntimeError) as caught:
        read().get_parsed_content("checkpoint")
    error = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert_one_sentence(error)
    assert "set 'bundle_root' in it" in str(error)
    given = read()
    given["bundle_root"] = "there"
    assert given.get_parsed_content("checkpoint") == "there/models/model.pt"
    monkeypatch.chdir(ROOT / "bundles" / "cadp_2d")
    assert read().get_parsed_content("checkpoint") == "./models/model.pt"


def test_a_parser_inside_a_command_is_not_taken_for_the_one_of_the_command(tmp_path):
    """A configuration that runs a program, which reads another configuration by itself."""
    inner = {"bundle_root": {"_target_": "monai_cadp.bundle_options.bundle_root"}}
    outer = {"inner": f"$monai.bundle.ConfigParser({inner!r})", "run": "$@inner.get_parsed_content('bundle_root')"}
    (tmp_path / "outer.yaml").write_text(yaml.safe_dump(outer))
    with pytest.raises(Exception, match="Failed|bundle"):
        run(config_file=str(tmp_path / "outer.yaml"))


def test_only_a_configuration_asks_for_its_bundle(refused):
    with refused(RuntimeError, "outside a configuration"):
        bundle_root()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"bundle_root#x": 1}, "no option 'bundle_root#x'"),
        ({"bundle_root": 112}, "a whole number"),
        ({"bundle_root": {"a": 1}}, "a mapping"),
        ({"bundle_rot": "x"}, "nearest one is 'bundle_root'"),
    ],
)
def test_the_place_of_a_bundle_is_text_like_any_other(typed, said):
    with pytest.raises(Exception) as caught:
        at(str(ROOT / "bundles" / "cadp_2d" / "configs" / "train.yaml"), **typed)
    error = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert said in str(error)


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A copy of the 2D bundle in another place, with a network for digits that has learned nothing."""
    folder = tmp_path_factory.mktemp("elsewhere") / "mine"
    assert main(["bundle", "copy", "cadp_2d", str(folder)]) == 0
    inn = ConditionalINN((8, 8), 1, num_classes=10, width=8, num_couplings=2)
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 4, in_subspace=True)), folder / "models" / "model.pt")
    return folder


@pytest.fixture
def one(files):
    """Options for the release of one picture in the folder ``in`` of the current one."""

    def options():
        os.mkdir("in")
        files.picture("in/a.png", torch.zeros(8, 8))
        return {"input": "in", "condition": 0, "epsilon": 8.0}

    return options


def test_a_copied_bundle_releases_from_inside_its_folder_into_it(moved, monkeypatch, one):
    monkeypatch.chdir(moved)
    run(config_file="configs/inference.yaml", **one())
    assert {path.name for path in moved.iterdir()} >= {"released", "released_preview.png"}
    assert len(list((moved / "released").glob("*.png"))) == 1


def test_input_and_output_are_those_of_the_current_folder(moved, tmp_path, one):
    run(config_file=str(moved / "configs" / "inference.yaml"), output="out", **one())
    assert len(list((tmp_path / "out").glob("*.png"))) == 1


def exported(**options):
    """The network of the bundle in the current folder, where MONAI looks for all that is not named."""
    # What is drawn afresh at every call cannot be compared.
    options["converter_kwargs"] = {"check_trace": False}
    ckpt_export(config_file="configs/inference.yaml", key_in_ckpt="privatizer", use_trace=True, **options)
    return torch.jit.load("models/model.ts")


def test_a_network_that_was_trained_as_the_bundle_says_is_exported(moved, monkeypatch):
    monkeypatch.chdir(moved)
    x = torch.rand(1, 1, 8, 8)
    traced = exported(input_shape=[1, 1, 8, 8], spatial_shape=[8, 8], num_directions=4, **SMALL)
    assert traced(x).shape == x.shape and not torch.equal(traced(x), traced(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # a trace is of one shape, and is used for that
@pytest.mark.parametrize("name", ["cadp_brain_mr", "cadp_chest_xray"])
def test_the_shipped_weights_are_exported(name, tmp_path, monkeypatch):
    assert main(["bundle", "copy", name, str(tmp_path / "mine")]) == 0
    monkeypatch.chdir(tmp_path / "mine")
    traced = exported()
    given = json.loads(Path("configs/metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    x = torch.rand(1, given["num_channels"], *given["spatial_shape"])
    with torch.jit.optimized_execution(False):
        released, again = traced(x), traced(x)
    assert released.shape == x.shape and not torch.equal(released, again)


def test_the_studies_run_beside_a_copy_of_theirs(tmp_path):
    assert main(["bundle", "copy", "configs", "configs"]) == 0
    create_workflow(config_file="configs/quickstart.yaml")
    create_workflow(config_file=study_files(Path("configs/studies/two_moons.yaml")))
