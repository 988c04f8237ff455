# SPDX-License-Identifier: Apache-2.0
"""The core works without the libraries of every extra; what needs one says in a sentence how to install it."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import setuptools

import monai_cadp
from monai_cadp.extras import MissingExtraError, extra

ROOT = Path(__file__).parents[1]
PACKAGE = Path(monai_cadp.__file__).parent

# Begins every child process: what it may not import, as if it were not installed.
BLOCK = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
"""
# What the transform and the bundles do: every package is imported, one image passes a pipeline, a folder is released.
CORE = """
import importlib, tempfile
from pathlib import Path
import torch
from PIL import Image

for package in {packages!r}:
    importlib.import_module(f"monai_cadp.{{package}}")

from monai_cadp.data import open_originals
from monai_cadp.networks import ConditionalINN, ContentBasis
from monai_cadp.privacy import PriorOnly, SubsetSelection
from monai_cadp.release import Privatizer, release_folder
from monai_cadp.transforms import Privatized

inn = ConditionalINN(spatial_shape=(8, 8), num_classes=2)
privatizer = Privatizer(inn, SubsetSelection(epsilon=4.0), ContentBasis.leading(inn, 2))
transform = Privatized(keys="image", privatizer=privatizer, condition_key="label")
item = transform({{"image": torch.rand(1, 8, 8), "label": 1}})
assert item["image"].shape == (1, 8, 8)
folder = Path(tempfile.mkdtemp())
for name in ("a", "b"):
    (folder / "in" / name).mkdir(parents=True)
    Image.new("L", (8, 8), 99).save(folder / "in" / name / "x.png")
images = open_originals(folder / "in", None, (8, 8))
assert len(list(release_folder(privatizer, images, folder / "out").glob("*.png"))) == 2
print("core done")
"""
# For every extra what its libraries are called when they are imported, and what is refused without them.
REFUSED = {
    "dicom": (
        ["pydicom", "highdicom", "dicomweb_client"],
        """
        (folder / "films").mkdir()
        (folder / "films" / "a.dcm").write_bytes(bytes(128) + b"DICM")
        open_originals(folder / "films", None, (8, 8), intensity_range=(0, 1))
        """,
        """
        from monai_cadp.data import ReadImage
        (folder / "film.dcm").write_bytes(bytes(128) + b"DICM")
        ReadImage((8, 8), intensity_range=(0, 1))(folder / "film.dcm")
        """,
        """
        inn = ConditionalINN(spatial_shape=(8, 8, 8))
        volumes = [{"image": torch.rand(1, 8, 8, 8)}]
        privatizer = Privatizer(inn, PriorOnly(), ContentBasis.leading(inn, 2))
        release_folder(privatizer, volumes, folder / "series", volume_format="dicom")
        """,
        """
        films = [{"image": torch.rand(1, 8, 8)}]
        privatizer = Privatizer(ConditionalINN((8, 8)), PriorOnly(), ContentBasis.leading(ConditionalINN((8, 8)), 2))
        release_folder(privatizer, films, folder / "objects", image_format="dicom")
        """,
        """
        import argparse
        from monai_cadp.cli import dicomweb
        parser = argparse.ArgumentParser()
        dicomweb.add_parser(parser.add_subparsers())
        options = parser.parse_args(["dicomweb", "fetch", "https://a/series", str(folder)])
        options.run(options)
        """,
    ),
    "brain": (
        ["deepbet"],
        """
        import numpy
        from monai_cadp.data.brain_extraction import extract_brain
        extract_brain(numpy.ones((8, 8, 8)), numpy.eye(4))
        """,
    ),
    "studies": (
        ["sklearn", "skimage", "matplotlib"],
        "open_originals('digits', None, (8, 8))",
        """
        from monai_cadp.attacks import expected_releases
        x = torch.rand(9, 1, 4, 4)
        expected_releases(x, x, x)
        """,
        """
        from monai_cadp.attacks import attribute_inference
        x, y = torch.rand(20, 3), torch.arange(20) % 2
        attribute_inference(x, y, x, y)
        """,
        """
        from monai_cadp.attacks import edge_features
        edge_features(torch.rand(2, 1, 16, 16))
        """,
        """
        from monai_cadp.reports import Point, curves
        curves({"releases": [Point(1, 0.7)]}, "epsilon", "accuracy")
        """,
        """
        from monai_cadp.data import open_table
        open_table("diabetes", split="train")
        """,
        """
        from monai_cadp.studies import Study
        Study("digits", None, [], [], [], folder / "study", [], []).run()
        """,
    ),
    "dp-training": (
        ["opacus"],
        """
        from monai_cadp.baselines import train_private_classifier
        images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
        train_private_classifier(images, labels, 2, epsilon=4.0, delta=1e-3, epochs=1, batch_size=10)
        """,
    ),
}
SENTENCE = r"[A-Z][^.]+ needs {library}; install it by pip install 'monai_cadp\[{extra}\]'\."


def run(blocked, *attempts):
    """Run the core, and then every attempt, without the blocked modules; return what each attempt raised."""
    packages = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    code = BLOCK.format(blocked=blocked) + CORE.format(packages=packages)
    for attempt in attempts:
        indented = textwrap.indent(textwrap.dedent(attempt).strip(), "    ")
        code += f"try:\n{indented}\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
        code += "else:\n    print('not refused')\n"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def setup_arguments(monkeypatch):
    found = {}
    monkeypatch.setattr(setuptools, "setup", found.update)
    monkeypatch.setattr(setuptools, "find_packages", lambda **_: [])
    code = (ROOT / "setup.py").read_text(encoding="utf-8")
    exec(compile(code, str(ROOT / "setup.py"), "exec"), {"__file__": str(ROOT / "setup.py"), "__name__": "setup"})
    return found


def distribution(requirement):
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


@pytest.mark.slow
def test_the_core_works_without_all_extras_and_their_tasks_say_how_to_install_them():
    # One process for all of them: importing MONAI takes seconds.
    blocked = [library for libraries, *_ in REFUSED.values() for library in libraries]
    attempts = [(name, attempt) for name, (_, *attempts) in REFUSED.items() for attempt in attempts]
    done = run(blocked, *(attempt for _, attempt in attempts))
    assert done.returncode == 0, done.stderr
    _, said = done.stdout.split("core done\n")
    for (name, attempt), line in zip(attempts, said.splitlines(), strict=True):
        kind, message = line.split(" ", 1)
        # What reads files says all that it says in one kind of error.
        assert kind in ("MissingExtraError", "ValueError"), (attempt, line)
        assert re.fullmatch(SENTENCE.format(library=f"({'|'.join(REFUSED[name][0])})", extra=name), message), message


@pytest.mark.slow
def test_negative_control_the_core_does_not_work_without_a_library_of_the_core():
    done = run(["FrEIA"])
    assert done.returncode != 0 and "core done" not in done.stdout


def test_an_extra_says_one_sentence(refused):
    with refused(MissingExtraError, "^Flying needs no_such_library; install it by pip install 'monai_cadp.dicom.'.$"):
        with extra("dicom", "Flying"):
            import no_such_library.wings  # noqa: F401


def test_an_extra_lets_what_is_installed_pass():
    with extra("dicom", "Flying"):
        import json
    assert json.loads("1") == 1


def test_every_extra_that_the_code_names_is_there_and_all_holds_them_all(monkeypatch):
    extras = setup_arguments(monkeypatch)["extras_require"]
    named = {
        node.args[0].value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "extra"
    }
    assert named and named <= set(extras)
    together = {one for name, requirements in extras.items() if name not in ("all", "dev") for one in requirements}
    assert together == set(extras["all"]) <= set(extras["dev"])


def test_every_library_that_the_package_imports_is_declared(monkeypatch):
    arguments = setup_arguments(monkeypatch)
    declared = [*arguments["install_requires"], *arguments["extras_require"]["all"]]
    declared = {distribution(requirement) for requirement in declared}
    providers = importlib.metadata.packages_distributions()
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    imported -= {"monai_cadp", *sys.stdlib_module_names}
    assert {"torch", "sklearn"} <= imported
    assert {name for name in imported if not {distribution(one) for one in providers[name]} & declared} == set()


def test_the_core_brings_what_the_first_study_of_the_readme_needs(monkeypatch):
    arguments = setup_arguments(monkeypatch)
    waiting, brought = [distribution(one) for one in arguments["install_requires"]], set()
    while waiting:
        one = waiting.pop()
        if one in brought:
            continue
        brought.add(one)
        try:
            needs = importlib.metadata.requires(one) or []
        except importlib.metadata.PackageNotFoundError:
            # Of another system.
            continue
        waiting += [distribution(need) for need in needs if "extra ==" not in need]
    assert {"matplotlib", "scikit-learn"} <= brought
    assert "opacus" not in brought
