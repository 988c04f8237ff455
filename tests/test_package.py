# SPDX-License-Identifier: Apache-2.0
"""The package is light to import, and each of its layers knows only the layers below it."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import textwrap
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


def users_of(packages, forbidden):
    return {
        name: sorted(imported)
        for name, path in MODULES.items()
        if (name == packages or name.startswith(packages + "."))
        and (imported := {i for i in imports(path) if any(i == f or i.startswith(f + ".") for f in forbidden)})
    }


def test_importing_the_package_does_not_import_the_heavy_libraries():
    heavy = ("torch", "monai", "FrEIA", "ignite", "mlflow", "numpy")
    code = f"import sys, monai_cadp; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Several imports, each anew, after torch: the seconds of the processor that a package adds, in the middle of them.
IMPORT_SECONDS = """
import importlib, statistics, sys, time
import torch
def seconds(name):
    for loaded in [one for one in sys.modules if one.partition(".")[0] == name]:
        del sys.modules[loaded]
    begin = time.process_time()
    importlib.import_module(name)
    return time.process_time() - begin
print(*(statistics.median(seconds(name) for _ in range(5)) for name in sys.argv[1:]))
"""


@pytest.mark.slow
def test_importing_the_package_takes_at_most_a_fifth_of_a_second_more_than_torch(tmp_path):
    slow = "import time\nend = time.process_time() + 0.25\nwhile time.process_time() < end:\n    pass\n"
    (tmp_path / "slow_package.py").write_text(slow)
    command = [sys.executable, "-c", IMPORT_SECONDS, "monai_cadp", "slow_package"]
    paths = os.pathsep.join((str(PACKAGE.parent), str(tmp_path)))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    seconds, control = map(float, done.stdout.split())
    assert seconds <= 0.2 < control


def test_the_privatizer_is_the_packages_own():
    assert monai_cadp.Privatizer.__module__ == "monai_cadp.release.privatizer"
    with pytest.raises(AttributeError, match="no attribute 'Anonymizer'"):
        _ = monai_cadp.Anonymizer


# The layers from the bottom to the top; each knows only those below it, and those beside it in its own line.
LAYERS = [
    ["privacy"],
    ["certificate"],
    ["data"],
    ["networks"],
    ["release"],
    ["attacks", "metrics", "baselines"],
    ["transforms"],
    ["engines", "handlers"],
    ["studies", "reports"],
    ["cli"],
]
PACKAGES = [package for layer in LAYERS for package in layer]


def above(package):
    level = next(level for level, layer in enumerate(LAYERS) if package in layer)
    return [f"monai_cadp.{other}" for layer in LAYERS[level + 1 :] for other in layer]


SECOND_DERIVATION = ["certificate", "derivation", "document", "enclosure", "folder", "noise", "shuffled", "training"]
FORBIDDEN = [
    *((package, above(package)) for package in PACKAGES),
    ("privacy", ["monai_cadp.data", "monai", "FrEIA", "ignite", "mlflow"]),
    ("networks", ["monai_cadp.privacy", "monai_cadp.data", "ignite", "mlflow"]),
    ("data", ["monai_cadp.networks", "FrEIA", "ignite", "mlflow"]),
    ("release.privatizer", ["monai_cadp.data", "monai", "ignite", "mlflow"]),
    ("release", ["mlflow"]),
    # Whoever verifies needs none of these, and a second derivation shares no code with the first.
    ("certificate", ["torch", "monai", "FrEIA", "ignite", "mlflow"]),
    *((f"certificate.{part}", ["monai_cadp.privacy"]) for part in SECOND_DERIVATION),
]


@pytest.mark.parametrize("package", ["monai_cadp", "monai_cadp.release"])
def test_a_package_that_imports_at_first_use_has_no_other_names(package):
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Privatiser'"):
        module.Privatiser  # noqa: B018
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize(("package", "forbidden"), FORBIDDEN)
def test_no_package_knows_the_packages_above_it(package, forbidden):
    assert users_of(f"monai_cadp.{package}", forbidden) == {}


RELEASERS = {"Releaser", "BaseReleaser", "Privatizer", "SliceWiseReleaser", "RecordedReleaser"}


def test_no_package_above_release_asks_which_releaser_it_has():
    for package in ["release", *(one.removeprefix("monai_cadp.") for one in above("release"))]:
        found = {
            ast.unparse(node)
            for name, path in MODULES.items()
            if name.startswith(f"monai_cadp.{package}.")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
            and ast.unparse(node.func) == "isinstance"
            and any(isinstance(part, ast.Name) and part.id in RELEASERS for part in ast.walk(node.args[1]))
        }
        assert bool(found) == (package == "release"), found


def test_every_package_has_its_layer():
    found = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert found == set(PACKAGES)


def test_the_test_above_sees_an_import_where_there_is_one():
    assert "monai_cadp.release.privatizer" in users_of("monai_cadp.release", ["monai_cadp.networks"])
    assert users_of("monai_cadp.handlers", ["mlflow"])


LONGEST_COPY = 12


def code_lines(path):
    """Lines that are neither blank, nor a comment, nor of a docstring or an import, with their numbers."""
    text = path.read_text()
    passed_over = set()
    for node in ast.walk(ast.parse(text)):
        is_text = (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
        if is_text or isinstance(node, ast.Import | ast.ImportFrom):
            passed_over |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate((line.strip() for line in text.splitlines()), 1)
    return [(number, line) for number, line in lines if line and line[0] != "#" and number not in passed_over]


def copies(paths):
    """Pairs of places that share more than a dozen lines in a row, by the first of these."""
    seen, found = {}, []
    for path in paths:
        lines = code_lines(path)
        for start in range(len(lines) - LONGEST_COPY):
            run = tuple(line for _, line in lines[start : start + LONGEST_COPY + 1])
            place = (path.name, lines[start][0])
            if run in seen:
                found.append((seen[run], place))
            seen.setdefault(run, place)
    return found


def test_no_two_places_share_more_than_a_dozen_lines():
    assert copies([*MODULES.values(), *sorted((PACKAGE.parent / "benchmarks").rglob("*.py"))]) == []


def test_the_test_above_finds_a_copy_of_thirteen_lines_and_none_of_twelve(tmp_path):
    for length, number in ((LONGEST_COPY, 0), (LONGEST_COPY + 1, 1)):
        copied = "".join(f"x{line} = {line}  \n\n# comment {line}\n" for line in range(length))
        (tmp_path / "one.py").write_text(f'"""One."""\nimport math\n{copied}first = 1\n')
        (tmp_path / "other.py").write_text(f"def other():\n    y = 2\n{textwrap.indent(copied, '    ')}")
        assert len(copies([tmp_path / "one.py", tmp_path / "other.py"])) == number


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
