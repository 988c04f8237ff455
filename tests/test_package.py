# SPDX-License-Identifier: Apache-2.0
"""The house: light to enter, and each room knows only the rooms below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import monai_cadp

PACKAGE = Path(monai_cadp.__file__).parent
MODULES = {
    ".".join(("monai_cadp", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(path):
    """Every module that a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import, which this test does not follow"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def users_of(rooms, forbidden):
    return {
        name: sorted(imported)
        for name, path in MODULES.items()
        if name.startswith(rooms)
        and (imported := {i for i in imports(path) if any(i == f or i.startswith(f + ".") for f in forbidden)})
    }


def test_importing_the_package_does_not_import_the_heavy_libraries():
    heavy = ("torch", "monai", "FrEIA", "ignite", "mlflow", "numpy")
    code = f"import sys, monai_cadp; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_privatizer_is_the_packages_own():
    assert monai_cadp.Privatizer.__module__ == "monai_cadp.privatizer"
    with pytest.raises(AttributeError, match="no attribute 'Anonymizer'"):
        _ = monai_cadp.Anonymizer


HOUSE = [
    ("monai_cadp.privacy", ["monai", "FrEIA", "ignite", "mlflow"]),
    (
        "monai_cadp.privacy",
        [f"monai_cadp.{room}" for room in ("networks", "data", "transforms", "engines", "handlers", "privatizer")],
    ),
    ("monai_cadp.networks", ["monai_cadp.privacy", "monai_cadp.privatizer", "monai_cadp.data", "mlflow", "ignite"]),
    ("monai_cadp.metrics", ["monai_cadp.privatizer", "monai_cadp.engines", "monai_cadp.handlers"]),
    ("monai_cadp.reports", ["monai_cadp.privatizer", "monai_cadp.engines", "monai_cadp.handlers"]),
    ("monai_cadp.transforms", ["monai_cadp.engines", "monai_cadp.handlers"]),
    ("monai_cadp.baselines", [f"monai_cadp.{room}" for room in ("privatizer", "attacks", "engines", "studies")]),
    ("monai_cadp.attacks", [f"monai_cadp.{room}" for room in ("engines", "handlers", "transforms", "studies")]),
    ("monai_cadp.privatizer", ["monai_cadp.transforms", "monai_cadp.engines", "monai_cadp.handlers", "monai"]),
]


@pytest.mark.parametrize(("room", "forbidden"), HOUSE)
def test_no_room_knows_the_rooms_above_it(room, forbidden):
    assert users_of(room, forbidden) == {}


def test_the_test_above_sees_an_import_where_there_is_one():
    assert "monai_cadp.privatizer" in users_of("monai_cadp.privatizer", ["monai_cadp.networks"])
    assert users_of("monai_cadp.handlers", ["mlflow"])


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_its_licence_its_subject_and_its_names(name):
    text = MODULES[name].read_text()
    tree = ast.parse(text)
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert ast.get_docstring(tree)
    named = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    private = any(part.startswith("_") and part != "__init__" for part in name.split("."))
    assert private or "__all__" in named


@pytest.mark.parametrize("name", MODULES)
def test_no_module_reads_a_checkpoint_that_may_hold_code(name):
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert "weights_only=True" in ast.unparse(node)
