# SPDX-License-Identifier: Apache-2.0
"""Bundles from the command line: what there is, and a copy of one to edit."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import monai_cadp
from monai_cadp.__main__ import main
from monai_cadp.bundles import bundle_files, shipped_bundles, shipped_folder


def test_the_list_says_of_every_bundle_its_name_its_version_and_what_it_is_for(capsys):
    assert main(["bundle", "list"]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    *listed, studies = lines
    assert [name for name, _, _ in listed] == [*shipped_bundles()]
    for (_, version, task), folder in zip(listed, shipped_bundles().values(), strict=True):
        metadata = json.loads((folder / "configs" / "metadata.json").read_text())
        assert (version, task) == (metadata["version"], metadata["task"])
    assert studies[:2] == ["configs", monai_cadp.__version__]


@pytest.mark.parametrize("name", shipped_bundles())
def test_a_copy_is_the_whole_bundle_and_may_be_edited(tmp_path, name, capsys):
    target, source = tmp_path / "new" / "mine", shipped_bundles()[name]
    assert main(["bundle", "copy", name, str(target)]) == 0
    assert bundle_files(target) == bundle_files(source)
    for file in bundle_files(source):
        assert (target / file).read_bytes() == (source / file).read_bytes()
        assert os.access(target / file, os.W_OK)
    assert "copied" in capsys.readouterr().out


def test_the_studies_are_copied_too(tmp_path):
    assert main(["bundle", "copy", "configs", str(tmp_path / "configs")]) == 0
    copied = {path.relative_to(tmp_path / "configs") for path in tmp_path.rglob("*.yaml")}
    assert copied == {path.relative_to(shipped_folder("configs")) for path in shipped_folder("configs").rglob("*.yaml")}


def folder(target):
    target.mkdir()


def file(target):
    target.touch()


def link_to_nothing(target):
    target.symlink_to("nothing")


@pytest.mark.parametrize("exists", [folder, file, link_to_nothing], ids=lambda exists: exists.__name__)
def test_a_target_that_exists_is_refused_and_stays_as_it_is(tmp_path, exists, capsys):
    exists(tmp_path / "mine")
    assert main(["bundle", "copy", "cadp_2d", str(tmp_path / "mine")]) == 2
    assert capsys.readouterr().err == "error: The target exists already; give a folder that does not.\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_target_below_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["bundle", "copy", "cadp_2d", str(tmp_path / "file" / "mine")]) == 2
    assert "could not be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cadp_2", "CADP_2D", "../bundles/cadp_2d"])
def test_an_unknown_bundle_is_refused_and_the_nearest_one_named(tmp_path, name, capsys):
    assert main(["bundle", "copy", name, str(tmp_path / "mine")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and any(f"'{known}'" in said for known in shipped_bundles())
    assert not list(tmp_path.iterdir())


def test_a_copy_that_fails_leaves_nothing(tmp_path, monkeypatch, capsys):
    def full(source, target):
        if len(list(tmp_path.rglob("*.yaml"))) == 2:
            raise OSError(28, "No space left on device", str(target))
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(shutil, "copyfile", full)
    assert main(["bundle", "copy", "cadp_2d", str(tmp_path / "mine")]) == 2
    assert "could not be written" in capsys.readouterr().err and not list(tmp_path.iterdir())
