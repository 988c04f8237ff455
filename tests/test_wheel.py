# SPDX-License-Identifier: Apache-2.0
"""The wheel is enough: from an empty folder its bundles are listed, copied, trained and run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import monai_cadp
from monai_cadp.bundles import bundle_files, shipped_bundles
from monai_cadp.data import Digits

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
# What `python -m build --no-isolation` does: the wheel is built from the source distribution.
BUILD = """
import os, tarfile
from setuptools import build_meta
source = build_meta.build_sdist("dist")
with tarfile.open(os.path.join("dist", source)) as archive:
    archive.extractall("unpacked", filter="data")
os.chdir(os.path.join("unpacked", source.removesuffix(".tar.gz")))
build_meta.build_wheel(os.path.join("..", "..", "dist"))
"""
# Several commands in one process, which imports MONAI once.
RUN = """
import runpy, sys
from monai_cadp.data import brain_template_file
ONCE = ["--max_epochs", "1"]
commands = [
    ["x/configs/inference.yaml", "--output", "films"],
    ["['my_2d/configs/train.yaml','my_2d/configs/small_images.yaml']", "--spatial_shape", "[8,8]", *ONCE],
    ["my_2d/configs/inference.yaml"],
    ["my_table/configs/train.yaml", *ONCE],
    ["my_table/configs/inference.yaml"],
    ["my_brain/configs/inference.yaml", "--input", str(brain_template_file())],
]
for config_file, *options in commands:
    options += ["--tracking_uri", "sqlite:///mlflow.db"] if "train" in config_file else ["--epsilon", "4.0"]
    sys.argv = ["monai.bundle", "run", "--config_file", config_file, *options]
    runpy.run_module("monai.bundle", run_name="__main__")
"""
COPIES = {"cadp_chest_xray": "x", "cadp_2d": "my_2d", "cadp_tabular": "my_table", "cadp_brain_mr": "my_brain"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built in a copy of the repository in which somebody has worked."""
    source = tmp_path_factory.mktemp("source")
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, source)
    for name in ("monai_cadp", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, folder in shipped_bundles().items():
        for file in bundle_files(folder):
            (source / "bundles" / name / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / file, source / "bundles" / name / file)
    for left in ("models/model.pt", "runs/last.pt", "released/release_1.png", "samples/a/Mustermann.png"):
        (source / "bundles" / "cadp_2d" / left).parent.mkdir(parents=True, exist_ok=True)
        (source / "bundles" / "cadp_2d" / left).write_text("left by a run")
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = (source / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_what_belongs_to_bundles_and_nothing_that_runs_have_left(wheel):
    assert wheel.name == f"monai_cadp-{monai_cadp.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    assert "monai_cadp/py.typed" in names
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "monai_cadp").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == code
    belongs = {
        f"monai_cadp/_bundles/{name}/{file.as_posix()}"
        for name, folder in shipped_bundles().items()
        for file in bundle_files(folder)
        # The networks of the others are those of their users.
        if file.suffix != ".pt" or name in ("cadp_brain_mr", "cadp_chest_xray")
    }
    assert {name for name in names if "/_bundles/" in name} == belongs
    studies = {path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert {name for name in names if "/_configs/" in name} == {f"monai_cadp/_configs/{name}" for name in studies}


def test_every_bundle_runs_from_an_empty_folder_with_the_wheel_alone(wheel, tmp_path):
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    environment = os.environ | {"PYTHONPATH": str(site), "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)

    def python(*arguments):
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    python("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site), str(wheel))
    assert python("-c", "import monai_cadp; print(monai_cadp.__file__)").startswith(str(site))
    listed = python("-m", "monai_cadp", "bundle", "list")
    for name, target in COPIES.items():
        assert name in listed
        python("-m", "monai_cadp", "bundle", "copy", name, target)
    shipped = {path: path.stat().st_mtime_ns for path in site.rglob("*.yaml")}
    python("-c", RUN)
    counts = {"films": ("png", 8), "my_2d/released": ("png", len(Digits("test"))), "my_brain/released": ("nii.gz", 1)}
    for folder, (suffix, count) in counts.items():
        released = list((work / folder).glob(f"*.{suffix}"))
        assert len(released) == len(list((work / folder).glob("*_privacy.json"))) == count
    assert len((work / "my_table" / "released.csv").read_text().splitlines()) > 500
    assert (work / "my_2d" / "models" / "model.pt").is_file() and (work / "my_table" / "models" / "model.pt").is_file()
    assert shipped == {path: path.stat().st_mtime_ns for path in site.rglob("*.yaml")}
    assert not (site / "monai_cadp" / "_bundles" / "cadp_2d" / "models").exists()
