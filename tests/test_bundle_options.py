# SPDX-License-Identifier: Apache-2.0
"""Every option of every configuration is accepted, and whatever would be ignored or taken for something else is not."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from copy import deepcopy
from functools import cache
from pathlib import Path

import fire
import pytest
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, create_workflow, run, verify_net_in_out
from monai.utils import ensure_tuple

from monai_cadp.bundle_options import KINDS, check_options
from tests.conftest import assert_one_sentence, study_files

ROOT = Path(__file__).parents[1]
SECTIONS = ("initialize", "run", "finalize", "imports")
# What overlays and made-up data have no use for.
UNMEASURED = {"training_data", "patience"}
UNTIMED = UNMEASURED | {"averaging", "max_minutes", "num_workers", "shares", "validation_interval"}
WITHOUT_EFFECT = {
    "cadp_2d train train_dp": UNTIMED,
    "cadp_2d train train_dp finetune_dp": UNTIMED | {"num_classes", "rank", "largest_norm", "num_frequencies"},
    "cadp_tabular train train_dp": UNMEASURED,
    "cadp_brain_mr train": {"dataset_dir"},
    "cadp_brain_mr train multi_gpu_train": {"dataset_dir"},
    "cadp_brain_mr train train_dp": UNMEASURED | {"num_patients", "patients_per_epoch", "num_workers"},
}
TRAIN = ROOT / "bundles" / "cadp_2d" / "configs" / "train.yaml"
INFERENCE = ROOT / "bundles" / "cadp_2d" / "configs" / "inference.yaml"
# Values that fit what an option is, and are not what the file says.
FITTING = {
    "text": "other",
    "a whole number": 3,
    "a number": 0.123,
    "True or False": False,
    "a list of numbers, such as [1, 2]": [4, 4],
    "the number of a class, or a list of numbers": 1,
    "a list of names, such as ['healthy', 'ill']": ["healthy", "ill"],
}
SECRET = "Mustermann-1954"


def configurations():
    """Every list of files that is run together."""
    yield from ([path] for path in ROOT.glob("configs/*.yaml"))
    for path in ROOT.glob("configs/studies/*.yaml"):
        files = [ROOT / file for file in study_files(path)]
        if files[-1] == path:
            yield files
    for folder in ROOT.glob("bundles/*/configs"):
        for names in (
            ("train",),
            ("inference",),
            ("evaluate",),
            ("train", "small_images"),
            ("train", "multi_label"),
            ("train", "multi_gpu_train"),
            ("train", "train_dp"),
            ("train", "train_dp", "finetune_dp"),
        ):
            files = [folder / f"{name}.yaml" for name in names]
            if all(file.exists() for file in files):
                yield files


CONFIGURATIONS = {"+".join(path.relative_to(ROOT).as_posix() for path in files): files for files in configurations()}
# Of every kind of configuration one is tried while people work: the check is the same in all.
QUICK = (
    "bundles/cadp_2d/configs/train.yaml",
    "bundles/cadp_2d/configs/inference.yaml",
    "configs/studies/images.yaml+configs/studies/mnist.yaml",
)
everywhere = pytest.mark.parametrize(
    "files",
    [
        pytest.param(files, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, files in CONFIGURATIONS.items()
    ],
)


@cache
def read_once(load, path):
    return load(path)


@pytest.fixture(autouse=True)
def from_the_project(monkeypatch):
    """Shared sections are looked for from the project's folder, and no file of it is read twice."""
    monkeypatch.chdir(ROOT)
    load = ConfigParser.load_config_file

    def loaded(path):
        return deepcopy(read_once(load, path)) if ROOT in Path(path).parents else load(path)

    monkeypatch.setattr(ConfigParser, "load_config_file", loaded)


def begin(files, **options):
    """What MONAI's run does first, up to the check of the options."""
    return create_workflow(config_file=[str(path) for path in files], init_id="option_check", **options)


def command(monkeypatch, *typed):
    """MONAI's command line, up to the check of the options."""
    arguments = ["run", "--config_file", str(INFERENCE), "--init_id", "option_check", "--run_id", "option_check"]
    monkeypatch.setattr(sys, "argv", ["monai.bundle", *arguments, *typed])
    fire.Fire({"run": run})


def options_of(files):
    """The options: what a configuration names above its sections."""
    content = ConfigParser.load_config_files([str(path) for path in files])
    return {name: value for name, value in content.items() if name in KINDS}


def some(options, files):
    """All options of a bundle; a few of a study, which all share their sections."""
    return list(options) if "bundles" in files[0].parts else list(options)[:4]


def all_needed(name, needed):
    """What an option needs, and what that needs."""
    others: list[str] = []
    while (other := needed.get(name)) and ensure_tuple(other)[0] not in others:
        name = ensure_tuple(other)[0]
        others.append(name)
    return others


def innermost(error):
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def refusal(call, *arguments, **options):
    """MONAI wraps what is raised; the innermost is ours, and one sentence."""
    with pytest.raises(Exception) as caught:
        call(*arguments, **options)
    error = innermost(caught.value)
    assert_one_sentence(error)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(error)


@everywhere
def test_the_options_are_checked_before_anything_else(files):
    content = ConfigParser.load_config_files([str(path) for path in files])
    assert content["initialize"][0] == content["run"][0] == "@option_check"
    assert "network_def" not in content or content["network_def"]["_requires_"] == "@option_check"


@everywhere
def test_every_plain_value_of_a_configuration_is_an_option_of_a_known_kind(files):
    content = ConfigParser.load_config_files([str(path) for path in files])
    plain = {name for name, value in content.items() if not isinstance(value, dict) and name not in SECTIONS}
    lists = {name for name in plain if isinstance(content[name], list) and not all(map(_is_number, content[name]))}
    macros = {name for name in plain if str(content[name]).startswith("%")}
    left_out = {"moments", "membership", "audit", "augmentation"}  # sections that are not wanted
    assert plain - lists - macros - left_out <= KINDS.keys()


def _is_number(value):
    return isinstance(value, int | float)


@everywhere
def test_every_option_that_is_used_may_be_given_and_one_without_effect_is_refused(files):
    needed = ConfigParser.load_config_files([str(path) for path in files])["option_check"].get("needs", {})
    refused = set()
    for name in some(options_of(files), files):
        try:
            begin(files, **{other: FITTING[KINDS[other]] for other in (name, *all_needed(name, needed))})
        except Exception as error:
            assert f"'{name}' has no effect with this" in str(innermost(error)), innermost(error)
            refused.add(name)
    assert refused == WITHOUT_EFFECT.get(" ".join([files[0].parts[-3], *(path.stem for path in files)]), set())


@everywhere
def test_an_option_without_the_one_that_it_needs_is_refused(files):
    needed = ConfigParser.load_config_files([str(path) for path in files])["option_check"].get("needs", {})
    for name, other in needed.items():
        said = refusal(begin, files, **{name: FITTING[KINDS[name]]})
        assert f"'{name}' was given without {' or '.join(map(repr, ensure_tuple(other)))}" in said


@pytest.mark.slow
@everywhere
def test_a_mistyped_option_is_refused_and_the_nearest_one_named(files):
    for name in some(options_of(files), files):
        typed = name[:2] + name[3:] + "x"
        said = refusal(begin, files, **{typed: SECRET})
        assert f"no option '{typed}'; the nearest one is '{name}'" in said, said


@everywhere
def test_a_number_where_text_is_meant_is_refused_and_the_error_says_how_to_quote(files):
    needed = ConfigParser.load_config_files([str(path) for path in files])["option_check"].get("needs", {})
    refused = WITHOUT_EFFECT.get(" ".join([files[0].parts[-3], *(path.stem for path in files)]), set())
    for name in some(options_of(files), files):
        if KINDS[name] == "text" and name not in refused:
            others = dict.fromkeys(all_needed(name, needed), "other")
            said = refusal(begin, files, **(others | {name: 112}))
            assert f"'{name}' came as a whole number" in said and f"--{name} \"'1_12'\"" in said, said


@pytest.mark.parametrize("typed", [2024, 1.1, True, ("a", "b"), ["a"], {"a": 1}, 12000.0, " "])
def test_whatever_the_command_line_makes_of_text_is_refused(typed):
    assert "text is meant" in refusal(begin, [INFERENCE], input=typed)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("films#2", "holds a #"),
        ("sqlite:///a#b/ledger.db", "holds a #"),
        ("~/films", "begins with ~"),
        ("@films", "begins with @"),
        ("@images##films", "begins with @"),
    ],
)
@pytest.mark.parametrize("option", ["input", "output", "checkpoint", "ledger", "secret_file", "subject_pattern"])
def test_a_path_that_would_be_read_as_another_is_refused(option, path, why):
    """MONAI makes films#2 to films::2: a release would be written, or a ledger looked for, where nobody expects it."""
    needed = {"ledger": {"secret_file": "s"}}.get(option, {"ledger": "l"})
    assert f"The option '{option}' {why}" in refusal(begin, [INFERENCE], **needed, **{option: path})


@pytest.mark.parametrize(
    "typed",
    [
        ("--input", "films#2"),
        ("--input=films#2",),
        ("--input", "(films)"),
        ("--input", "films "),
        ("--input", "'films'#2"),
        ("--input", "ﬁlms"),
        ("--batch-size", "12#3"),
        ("--condition", "[1, 2]#3"),
        ("--images#source", "films#2"),
    ],
)
def test_what_the_command_line_cuts_is_refused(typed, monkeypatch):
    """Or the folder films would be released in place of the folder films#2."""
    option = typed[0].lstrip("-").partition("=")[0].replace("-", "_")
    assert f"'{option}' was cut by the command line" in refusal(command, monkeypatch, *typed)


def test_what_the_command_line_takes_whole_is_not_refused(monkeypatch):
    typed = ["--input", "'1_12'", "--output=films", "--subject-pattern", '"([a-z]+)_"', "--ledger", "./l.db"]
    typed += ["--secret_file", "s", "--condition", "[1, 2]", "--epsilon", "4.0", "--images#split", "'te' 'st'"]
    command(monkeypatch, *typed, "--refined", "--skip_unreadable", "False")


@pytest.mark.parametrize("make", [run, create_workflow])
def test_none_that_monai_would_leave_out_is_refused(make):
    """Or a training without a limit would end after two hours."""
    only_checked = {"config_file": str(TRAIN), "init_id": "option_check", "run_id": "option_check"}
    said = refusal(make, **only_checked, max_minutes=None)
    assert "'max_minutes' came as None, which MONAI leaves out" in said and "'$None'" in said


def test_none_of_the_command_line_is_refused_and_an_expression_for_it_is_not(monkeypatch):
    assert "'refined' came as None" in refusal(command, monkeypatch, "--refined", "None")
    command(monkeypatch, "--refined", "$None", "--split", "None")


def test_none_is_given_by_an_expression_or_where_the_file_says_none_too():
    begin([TRAIN], max_minutes="$None", intensity_range=None)
    # Nothing is left out of a workflow that a program makes itself.
    workflow = ConfigWorkflow(config_file=str(TRAIN), logging_file=False, max_minutes=None)
    workflow.initialize()
    assert workflow.parser.get_parsed_content("option_check") == {"max_minutes": None}


@pytest.mark.parametrize("path", ["a@b", "a~b", "./~", "./@a", "a::b", "a%2Fb", "ä ö", "a=b", "[a]", "-a"])
def test_any_other_path_is_taken_as_it_is(path):
    begin([INFERENCE], input=path)


@pytest.mark.parametrize("value", ["@bundle_root", "$@bundle_root + '/a'", "@images::source"])
def test_references_and_expressions_are_what_they_are_for_monai(value):
    begin([INFERENCE], checkpoint=value)


@everywhere
def test_text_where_a_number_is_meant_is_refused(files):
    refused = WITHOUT_EFFECT.get(" ".join([files[0].parts[-3], *(path.stem for path in files)]), set())
    for name in some(options_of(files), files):
        if KINDS[name] != "text" and name not in refused:
            assert KINDS[name] in refusal(begin, files, **{name: SECRET})


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("train#trainer#max_epoch", "train#trainer#max_epochs"),
        ("train::trainer::max_epoch", "train#trainer#max_epochs"),
        ("train#trianer", "train#trainer"),
        ("train#dataloader#num_worker", "train#dataloader#num_workers"),
        ("network#rnak", "network#rank"),
        ("handlers#2#resum", "handlers#2#resume"),
        ("images#intensity_rnage", "images#intensity_range"),
    ],
)
def test_a_mistyped_nested_id_is_refused(typed, nearest):
    said = refusal(begin, [TRAIN], **{typed: 3})
    assert f"no option '{typed.replace('::', '#')}'; the nearest one is '{nearest}'" in said


def test_a_nested_id_that_its_component_takes_is_accepted():
    begin([TRAIN], **{"train#dataloader#num_workers": 1, "network#rank": 16, "handlers#3#every": 5})
    begin([TRAIN], patients=3, max_epochs="@patients")


def test_every_path_may_be_given_beside_the_folder_of_the_bundle():
    begin([TRAIN], bundle_root="elsewhere", checkpoint="model.pt", output_dir="runs")


def test_the_kind_of_a_nested_id_is_that_of_what_stands_there():
    for id, value in (("tracked_run#experiment", 2024), ("images#source", 2024), ("handlers#3#every", "ten")):
        assert f"'{id}' came as" in refusal(begin, [TRAIN], **{id: value})


def test_an_option_whose_user_an_overlay_has_replaced_is_refused():
    both = [TRAIN, TRAIN.with_name("train_dp.yaml")]
    for options in ({"patience": 3}, {"training_data": "public"}, {"train#dataloader#num_workers": 1}):
        (name,) = options
        assert f"'{name}' has no effect" in refusal(begin, both, **options)


@pytest.mark.parametrize(
    ("options", "overruled"),
    [
        ({"epsilon": 1.0, "mechanism#epsilon": 8.0}, "epsilon"),
        ({"epsilon": 1.0, "mechanism": {"_target_": "monai_cadp.privacy.PriorOnly"}}, "epsilon"),
        ({"epsilon": 1.0, "privatizer#mechanism": {"_target_": "monai_cadp.privacy.PriorOnly"}}, "epsilon"),
        ({"epsilon": 1.0, "privatizer": "$None"}, "epsilon"),
        ({"label_epsilon": 1.0, "privatizer#label_epsilon": "$None"}, "label_epsilon"),
        ({"ledger": "l", "secret_file": "s", "run#1#ledger": "$None"}, "ledger"),
        ({"ledger": "l", "secret_file": "s", "privacy_ledger": "$None"}, "ledger"),
        ({"input": "films", "images#source": "others"}, "input"),
        ({"mechanism#epsilon": 1.0, "privatizer#mechanism": "$None"}, "mechanism#epsilon"),
    ],
)
def test_an_option_that_a_nested_id_overrules_is_refused(options, overruled):
    """Or a release would be made with another epsilon than the stated one, or without the stated ledger."""
    assert f"'{overruled}' has no effect" in refusal(begin, [INFERENCE], **options)


def test_a_nested_id_alone_may_take_the_place_of_what_uses_an_option():
    begin([INFERENCE], **{"mechanism#epsilon": 8.0, "images#source": "films"})


def test_an_option_without_effect_is_refused_with_the_very_value_of_its_file_too(tmp_path):
    both = [TRAIN, TRAIN.with_name("train_dp.yaml")]
    written = options_of(both)
    for name in ("patience", "training_data"):
        assert f"'{name}' has no effect" in refusal(begin, both, **{name: written[name]})
    settings = {"config_file": [str(path) for path in both], "training_data": written["training_data"]}
    (tmp_path / "args.yaml").write_text(yaml.safe_dump(settings))
    assert "'training_data' has no effect" in refusal(run, args_file=str(tmp_path / "args.yaml"))


def test_an_option_with_the_value_of_its_file_counts_as_given():
    workflow = create_workflow(config_file=str(INFERENCE), in_channels=1, num_directions=3)
    assert workflow.parser.get_parsed_content("option_check") == {"in_channels": 1, "num_directions": 3}


def test_experiment_tracking_of_monai_records_no_configuration(tmp_path):
    for options in ({}, {"ledgr": SECRET}):
        output = tmp_path / f"output {len(options)}"
        with contextlib.suppress(RuntimeError):
            create_workflow(config_file=str(TRAIN), tracking="mlflow", output_dir=str(output), **options)
        assert output.exists() and not list(output.rglob("*.json"))


@pytest.mark.parametrize("bundle", ["cadp_2d", "cadp_brain_mr", "cadp_tabular"])
def test_experiment_tracking_of_monai_is_no_option_of_private_training_which_measures_nothing(bundle, tmp_path):
    files = [str(ROOT / "bundles" / bundle / "configs" / f"{name}.yaml") for name in ("train", "train_dp")]
    options = {"config_file": files, "tracking": "mlflow", "output_dir": str(tmp_path / "runs")}
    assert "train#trainer#train_handlers" in create_workflow(**options).parser.get_parsed_content("option_check")
    # What was typed is an option all the same.
    assert "'validate#evaluator#val_handlers' has no effect" in refusal(
        create_workflow, **options, **{"validate#evaluator#val_handlers": [{"_target_": "StatsHandler"}]}
    )


def test_options_of_a_file_are_options(tmp_path):
    (tmp_path / "args.yaml").write_text(yaml.safe_dump({"config_file": str(INFERENCE), "ledgr": SECRET}))
    assert "nearest one is 'ledger'" in refusal(run, args_file=str(tmp_path / "args.yaml"))
    (tmp_path / "null.yaml").write_text(yaml.safe_dump({"config_file": str(INFERENCE), "label_epslon": None}))
    assert "nearest one is 'label_epsilon'" in refusal(run, args_file=str(tmp_path / "null.yaml"))


def test_another_init_id_does_not_pass_by_the_check():
    assert "'ledgr'" in refusal(run, config_file=str(INFERENCE), init_id="nothing", ledgr="x")


def test_a_workflow_that_a_program_makes_itself_is_checked():
    workflow = ConfigWorkflow(config_file=str(INFERENCE), logging_file=False, ledgr="x")
    assert "'ledgr'" in refusal(workflow.initialize)


def test_what_other_files_of_its_folder_say_was_not_given_to_a_workflow_that_a_program_makes():
    workflow = ConfigWorkflow(config_file=str(INFERENCE), logging_file=False, num_directions=3)
    workflow.initialize()
    assert workflow.parser.get_parsed_content("option_check") == {"num_directions": 3}


def test_a_file_beside_a_configuration_may_change_what_stands_in_a_section(tmp_path):
    """Its name comes before that of the file with the section."""
    shutil.copytree(TRAIN.parent, tmp_path / "configs")
    (tmp_path / "configs" / "a.yaml").write_text("train#trainer#max_epochs: 3\n")
    workflow = ConfigWorkflow(config_file=str(tmp_path / "configs" / "train.yaml"), logging_file=False, ledgr="x")
    assert "'ledgr'" in refusal(workflow.initialize)


def test_checks_and_exports_of_the_network_refuse_what_they_do_not_know(tmp_path):
    files = {"config_file": str(INFERENCE), "meta_file": str(INFERENCE.with_name("metadata.json"))}
    said = refusal(verify_net_in_out, "network_def", device="cpu", spatial_shpe=[8, 8], **files)
    assert "nearest one is 'spatial_shape'" in said
    (tmp_path / "model.pt").touch()
    paths = {"filepath": str(tmp_path / "a.ts"), "ckpt_file": str(tmp_path / "model.pt")}
    said = refusal(ckpt_export, "network_def", num_direcions=4, **paths, **files)
    assert "nearest one is 'num_directions'" in said


# Runs MONAI's command with each list of arguments, as the interpreter runs a module by -m; to import it takes seconds.
COMMANDS = """
import json, runpy, sys, traceback
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        runpy.run_module("monai.bundle", run_name="__main__")
        print("not refused", file=sys.stderr)
    except Exception:
        traceback.print_exc()
"""


@pytest.mark.slow
def test_the_command_line_says_nothing_of_the_options_that_it_refuses(tmp_path):
    typed = {
        "nearest one is 'ledger'": ["--ledgr", SECRET],
        "'input' came as a whole number": ["--input", "2024"],
        "'secret_file' came as a whole number": ["--secret_file", "1_12"],
        "'subject_pattern' came as a list": ["--subject_pattern", "a,b"],
        "'epsilon' came as text": ["--epsilon", "four"],
    }
    output = tmp_path / SECRET
    command = ["run", "--config_file", str(INFERENCE), "--output", str(output)]
    arguments = json.dumps([[*command, *options] for options in typed.values()])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, arguments], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert all(match in done.stderr for match in typed) and "not refused" not in done.stderr
    assert SECRET not in done.stdout and not list(tmp_path.iterdir())


def test_only_a_configuration_checks_options():
    with pytest.raises(RuntimeError, match="outside a configuration"):
        check_options()


@pytest.mark.parametrize("path", [*ROOT.glob("bundles/*/configs/*.yaml"), *ROOT.glob("configs/**/*.yaml")], ids=str)
def test_no_configuration_holds_a_number_for_a_budget(path):
    assert not re.findall(r"\b(?:epsilon|label_epsilon|delta)\s*:\s*[\d.]", path.read_text())
    if "bundles" in path.parts:
        assert not re.findall(r"\bepsilons\s*:\s*\[?\s*[\d.]", path.read_text())
