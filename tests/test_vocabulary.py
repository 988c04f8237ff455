# SPDX-License-Identifier: Apache-2.0
"""Names, documents and messages use the field's own words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("monai_cadp", "bundles", "configs", "docs", "benchmarks", "examples", "tests", "*.md", "*.py", "*.toml")
SUFFIXES = {".css", ".html", ".js", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}
# What is said in its place, and what it looks like between blanks: "_" and the middle of CamelCase count as blanks, and
# so do the ends of lines.
WORDS = {
    "negative control": r"twins?",
    "random draws": r"coins|coins? of",
    "returned from the ledger, cache hit": r"(?:met|meets?) again|release is met",
    "clipped to": r"cut (?:to|at)",
    "images per subject": r"of a person",
    "package, layer": r"houses?|rooms|room(?! for)",
    "they": r"he|him|his|himself",
    "a guarantee for": r"promises? to (?:him|them)",
    "Benchmarks": r"what is kept,? measured",
    "training_data": r"provenance|training guarantee",
    "unprotected": r"""training(?: data)?["'`]?\s*[:=]\s*["'`]?(?:private|dp sgd)["'`]?\s*(?=[,})\]#\n]|$)"""
    r"""|(?:private|dp sgd)["'`](?:,|,? and|,? or) ["'`](?:private|dp sgd)"""
    r"""|private (?:network|training)s? without protection""",
}


class Allowed(NamedTuple):
    """A line in which an old word has to stand."""

    file: str
    line: str
    reason: str


VERSION_1 = "documents of version 1 of the schema are still read and checked, and this is what they hold"
ALLOWED = (
    Allowed("CHANGELOG.md", "`Provenance`, the", "says what is gone"),
    Allowed("CHANGELOG.md", "words `private` and `dp-sgd`", "says what is gone"),
    Allowed(
        "CHANGELOG.md",
        "`broken_twins`, `Twin`, `all_twins`, and the JSON's `controls` were `twins`",
        "says what is gone",
    ),
    Allowed("docs/privacy_guarantee.schema.v1.json", '"training": {', VERSION_1),
    Allowed("docs/privacy_guarantee.schema.json", "are of version 1", VERSION_1),
    Allowed("docs/privacy_guarantee.schema.v1.json", '"training_guarantee"', VERSION_1),
    Allowed("monai_cadp/privacy/guarantee.py", 'OLDER = "training", "training_guarantee"', VERSION_1),
    Allowed("tests/privacy/test_composition.py", '{"training": "dp-sgd", "training_guarantee": cover}', VERSION_1),
    Allowed("tests/privacy/test_guarantee.py", '"training": word, "training_guarantee": None', VERSION_1),
)


def files(root):
    here = Path(__file__).relative_to(ROOT)
    found = [path for place in PLACES for path in root.glob(place)]
    found = [path for place in found for path in (place.rglob("*") if place.is_dir() else [place])]
    return sorted(
        path for path in found if path.is_file() and path.suffix in SUFFIXES and path.relative_to(root) != here
    )


def spaced(text):
    """The text with every word of a name for itself, on the lines where it was."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_-]", " ", text)


def old_words(root):
    """Every old word as (file, line, word); names of files count as lines of their own."""
    found = []
    for path in files(root):
        name = path.relative_to(root).as_posix()
        lines = [name, *path.read_text(encoding="utf-8").splitlines()]
        # A comment that goes on in the next line is one sentence.
        text = spaced("\n".join(lines))
        for word, pattern in WORDS.items():
            between = pattern.replace(" ", r"(?:\s|#|\|)+")
            for match in re.finditer(rf"(?<![A-Za-z])(?:{between})(?![A-Za-z])", text, re.IGNORECASE):
                line = lines[text.count("\n", 0, match.start())].strip()
                if not (word == "they" and match[0] == "He" and re.search(r"\bHe(:| et al)", line)):  # Kaiming He
                    found.append((name, line, word))
    return found


@pytest.fixture(scope="module")
def found():
    return old_words(ROOT)


def test_no_word_is_used_that_only_this_project_knows(found):
    def is_allowed(file, line):
        return any(file == place.file and place.line in line for place in ALLOWED)

    assert [f"{file}: {line!r}; say {word!r}" for file, line, word in found if not is_allowed(file, line)] == []


@pytest.mark.parametrize("place", ALLOWED, ids=lambda place: place.line)
def test_an_old_word_stands_in_every_place_where_one_is_allowed(found, place):
    assert any(file == place.file and place.line in line for file, line, _ in found)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("A broken twin must be caught.", "negative control"),
        ("def all_twins(): ...", "negative control"),
        ("class BrokenTwin: ...", "negative control"),
        ("It tosses fresh coins.", "random draws"),
        ("enters the batch by a coin of its own", "random draws"),
        ("def test_rows_are_met_again(): ...", "returned from the ledger, cache hit"),
        ("# The same image is met\n    # again, and not redrawn.", "returned from the ledger, cache hit"),
        ("which release is met", "returned from the ledger, cache hit"),
        ("intensities are cut to 0 to 1", "clipped to"),
        ("values are cut\nat their bounds", "clipped to"),
        ("| images (x) of a person |", "images per subject"),
        ("A room knows the rooms below it.", "package, layer"),
        ("House habits", "package, layer"),
        ("whatever else he knows", "they"),
        ("This is worth less to him.", "they"),
        ("a promise to him", "a guarantee for"),
        ("## What is kept, measured", "Benchmarks"),
        ("Provenance.of(network)", "training_data"),
        ("training_guarantee: null", "training_data"),
        ("training_data: private", "unprotected"),
        ('ExportPrivatizer(training="private")', "unprotected"),
        ("the words `private` and `dp-sgd`", "unprotected"),
        ("{'training': 'dp-sgd'}", "unprotected"),
        ("a private network without protection", "unprotected"),
    ],
)
def test_every_old_word_is_found_wherever_it_is_written(tmp_path, text, word):
    """Negative control."""
    for file in ("README.md", "monai_cadp/privacy/made_up.py", "bundles/made_up/configs/train.yaml"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"First line.\n\n{text}\n")
        assert (file, word) in [(name, one) for name, _, one in old_words(tmp_path)]


def test_the_name_of_a_file_is_read_too(tmp_path):
    """Negative control."""
    path = tmp_path / "monai_cadp" / "broken_twins.py"
    path.parent.mkdir()
    path.touch()
    assert old_words(tmp_path) == [("monai_cadp/broken_twins.py", "monai_cadp/broken_twins.py", "negative control")]


def test_the_fields_own_words_are_not_taken_for_old_ones(tmp_path):
    plain = (
        "They enter with the toss of a fair coin; there is room for more. The attacker knows whose image it is.",
        "training_data: public; private images, a network trained privately; DP-SGD; differentially private training",
        "Wu, He: Group normalization. He et al.: Deep residual learning. A head of this hospital's theme, histogram.",
        "def metric(): cut = name; twine = intertwined; clipped to 1; an individual's image; promises to people",
    )
    (tmp_path / "README.md").write_text("\n".join(plain))
    assert old_words(tmp_path) == []
