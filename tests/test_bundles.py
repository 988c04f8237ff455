# SPDX-License-Identifier: Apache-2.0
"""Bundles lie beside the package or inside it, and consist of what is shipped and not of what their runs leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_cadp import bundles
from monai_cadp.bundles import bundle_files, shipped_bundles, shipped_folder

ROOT = Path(__file__).parents[1]


def test_in_the_repository_they_lie_beside_the_package():
    assert shipped_folder("bundles") == ROOT / "bundles" and shipped_folder("configs") == ROOT / "configs"
    assert set(shipped_bundles().values()) == {path.parents[1] for path in ROOT.glob("bundles/*/configs/metadata.json")}


def test_an_installed_package_takes_its_own_and_not_a_folder_beside_it(tmp_path, monkeypatch, refused):
    package = tmp_path / "site-packages" / "monai_cadp"
    monkeypatch.setattr(bundles, "PACKAGE", package)
    with refused(ValueError, "came without bundles"):
        shipped_folder("bundles")
    (package / "_bundles").mkdir(parents=True)
    (package.parent / "bundles" / "another" / "configs").mkdir(parents=True)
    (package.parent / "bundles" / "another" / "configs" / "metadata.json").write_text("{}")
    assert shipped_folder("bundles") == package / "_bundles" and shipped_bundles() == {}


def test_what_runs_leave_does_not_belong_to_a_bundle(tmp_path):
    kept = ["LICENSE", "configs/train.yaml", "docs/README.md", "models/model.pt", "samples/a/b.png"]
    left = ["runs/last.pt", "runs/samples/1.png", "released/release_1.png", "released.csv", "evaluation.json"]
    for name in kept + left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path.as_posix() for path in bundle_files(tmp_path)] == kept


@pytest.mark.parametrize("folder", shipped_bundles().values(), ids=shipped_bundles())
def test_every_bundle_has_what_the_zoo_wants(folder):
    files = {path.as_posix() for path in bundle_files(folder)}
    assert {"LICENSE", "configs/inference.yaml", "configs/metadata.json", "docs/README.md"} <= files
