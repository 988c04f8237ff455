# SPDX-License-Identifier: Apache-2.0
"""The documents say what the code does."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from monai_cadp.privacy import PrivacyGuarantee, SubsetSelection

ROOT = Path(__file__).parents[1]
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
    for document in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert "://" in target or (document.parent / target).exists(), target
