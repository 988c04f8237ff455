# SPDX-License-Identifier: Apache-2.0
"""The documents say what the code does, and the site is built of them."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import monai_cadp
from monai_cadp.privacy import PrivacyGuarantee, SubsetSelection

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PROMISE = (ROOT / "docs" / "PRIVACY_PROMISE.md").read_text()


def carried_lines():
    """Every line of code that the promise quotes, with the file that it names last before the quotation."""
    file, quoted = None, []
    for line in PROMISE.splitlines():
        for name in re.findall(r"`(monai_cadp/[\w/]+\.py)`", line):
            file = name
        if (
            line.startswith("    ")
            and any(sign in line for sign in ("=", "(", "return", "while"))
            and "<=  " not in line
        ):
            quoted.append((file, line.strip()))
    return quoted


@pytest.mark.parametrize(("file", "line"), carried_lines())
def test_the_lines_that_carry_the_proofs_are_in_the_code(file, line):
    assert line in [text.strip() for text in (ROOT / file).read_text().splitlines()]


def test_the_test_above_reads_lines():
    assert len(carried_lines()) >= 12 and all(file for file, _ in carried_lines())


def test_the_tests_that_the_table_of_hazards_names_are_there():
    named = re.findall(r"`(tests/[\w/.]+)`", PROMISE)
    assert len(named) > 8 and all((ROOT / name).exists() for name in named)


@pytest.mark.parametrize(("epsilon", "auc"), [(0.5, 0.62), (1, 0.73), (2, 0.88), (4, 0.98), (8, 0.9997)])
def test_the_odds_of_an_attacker_are_those_of_the_formula(epsilon, auc):
    assert PrivacyGuarantee(epsilon, "x").attacker_auc_bound == pytest.approx(auc, abs=0.005 if auc < 0.99 else 5e-5)
    assert f"{auc:g}".lstrip("0") in PROMISE
    assert math.exp(epsilon) / (1 + math.exp(epsilon)) == pytest.approx(
        PrivacyGuarantee(epsilon, "x").attacker_auc_bound
    )


def test_the_worth_of_a_shuffled_set_is_the_one_that_is_stated():
    stated = " ".join(PROMISE.split())
    assert "epsilon 4 and n = 10,000 give 0.37 at delta 1e-6" in stated and "0.41 for any pure mechanism" in stated
    chosen = {"num_candidates": 2**14, "num_blocks": 1, "subset_size": [1111]}
    for parameters, epsilon in ((chosen, 0.37), ({}, 0.41)):
        local = PrivacyGuarantee(4.0, "SubsetSelection", parameters=parameters)
        assert local.shuffled(10_000, 1e-6).epsilon == pytest.approx(epsilon, abs=0.005)


def test_the_mechanism_for_a_set_is_the_one_that_is_stated():
    mechanism = SubsetSelection.for_set(set_epsilon=1.0, num_releases=1_000, delta=1e-6)
    stated = f"a local epsilon of {mechanism.epsilon:.1f} and m = {mechanism.subset_size:,}"
    assert stated in " ".join(PROMISE.split())


def test_every_document_that_another_links_is_there():
    for document in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert "://" in target or (document.parent / target).exists(), target


def sphinx(source, output, *options):
    """Build a site by the command that the README gives, without a network."""
    # Whatever asked for a host would fail at once.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = os.environ | nowhere | {"no_proxy": "127.0.0.1,localhost"}
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-b", "html", *options]
    return subprocess.run([*command, str(source), str(output)], env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The whole site; its notebooks are executed."""
    output = tmp_path_factory.mktemp("site")
    before = {path for path in DOCS.rglob("*") if "__pycache__" not in path.parts}
    doctrees = tmp_path_factory.mktemp("doctrees")
    done = sphinx(DOCS, output, "-d", str(doctrees))
    assert done.returncode == 0, done.stderr
    assert before == {path for path in DOCS.rglob("*") if "__pycache__" not in path.parts}
    return output


def packages():
    """Every package, and every module that a page of the reference is about."""
    found = [path.parent for path in (ROOT / "monai_cadp").rglob("__init__.py")]
    names = {".".join(path.relative_to(ROOT).parts) for path in found} - {"monai_cadp.cli"}
    return sorted(names | {"monai_cadp.bundle_options", "monai_cadp.privacy.auditing"})


@pytest.fixture(scope="module")
def known(site):
    """Every name of the reference, and where its page describes it."""
    # Four lines of text, then a line for each name: what it is called, its kind, its rank, its page.
    lines = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    found = [line.split(" ") for line in lines]
    return {name: page for name, kind, _, page, *_ in found if kind.startswith("py:")}


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site, known):
    public = [f"{package}.{name}" for package in packages() for name in import_module(package).__all__]
    assert len(public) > 150 and [name for name in public if name not in known] == []
    for name in public:
        page, anchor = known[name].split("#")
        assert f'id="{anchor.replace("$", name)}"' in (site / page).read_text(), name


@pytest.mark.slow
def test_every_name_that_a_page_refers_to_is_in_the_reference(known):
    for document in DOCS.rglob("*.md"):
        for name in re.findall(r"\{py:\w+\}`~?([\w.]+)`", document.read_text()):
            assert name in known, (document.name, name)


class Targets(HTMLParser):
    """The anchors of a page, and where its links and pictures lead."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.targets = set(), set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        self.targets |= {values[key] for key in ("href", "src") if values.get(key)}


def broken_links(folder):
    """Every link of a built site to a file or an anchor of it that is not there."""
    # A template of the theme lies among its scripts.
    pages = {path.resolve(): Targets(path) for path in folder.rglob("*.html") if "_static" not in path.parts}
    broken = []
    for page, found in pages.items():
        for target in found.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchor = unquote(parts.fragment)
            if not file.is_file() or (anchor and file in pages and anchor not in pages[file].anchors):
                broken.append((page.name, target))
    return broken


@pytest.mark.slow
def test_every_link_within_the_site_leads_somewhere(site):
    assert len(list(site.rglob("*.html"))) > 40
    assert broken_links(site) == []


@pytest.mark.parametrize("target", ["missing.html", "other.html#missing", "#missing"])
def test_a_link_that_leads_nowhere_is_found(tmp_path, target):
    """Negative control."""
    (tmp_path / "other.html").write_text('<p id="there">x</p>')
    page = tmp_path / "page.html"
    page.write_text('<a href="other.html#there">x</a>')
    assert broken_links(tmp_path) == []
    page.write_text(f'<a href="{target}">x</a>')
    assert broken_links(tmp_path) == [("page.html", target)]


@pytest.mark.slow
def test_no_page_asks_another_host_for_anything(site):
    hosts = {
        urlsplit(address).netloc
        for page in site.rglob("*.html")
        for address in re.findall(r'<(?:script|img|link|iframe)[^>]* (?:src|href)="([^"]+)"', page.read_text())
    }
    assert hosts == {""}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# Page\n", None),
        ("# Page\n\n[nowhere](missing.md)\n", "missing.md"),
        ("# Page\n\n```{eval-rst}\n.. autoclass:: monai_cadp.Missing\n```\n", "Missing"),
        (
            "---\nfile_format: mystnb\nkernelspec: {name: python3}\n---\n\n# Page\n\n```{code-cell}\n1 / 0\n```\n",
            "ExecutionError",
        ),
    ],
    ids=["nothing", "link", "name", "notebook"],
)
def test_a_warning_fails_the_build(tmp_path, text, complaint):
    """Negative control: pages with one mistake or none, under the configuration of the site."""
    (tmp_path / "index.md").write_text(text)
    done = sphinx(tmp_path, tmp_path / "built", "-c", str(DOCS), "-d", str(tmp_path / "doctrees"))
    assert (done.returncode == 0) == (complaint is None), done.stderr
    assert complaint is None or complaint in done.stderr


def test_notebooks_are_kept_without_outputs():
    notebooks = sorted((DOCS / "tutorials").glob("*.ipynb"))
    assert len(notebooks) == 3
    for notebook in notebooks:
        for cell in json.loads(notebook.read_text())["cells"]:
            assert not cell.get("outputs") and cell.get("execution_count") is None, notebook.name


def test_the_reference_has_a_page_for_every_package():
    named = re.findall(
        r"```\{public-names\} (\S+)", "".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    )
    assert sorted(named) == packages()
    assert monai_cadp.__all__
