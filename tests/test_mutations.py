# SPDX-License-Identifier: Apache-2.0
"""The faults that are put into the code are single, different, readable by Python, and spare what is only words."""

from __future__ import annotations

import ast

import pytest

from benchmarks.mutations.__main__ import sample
from benchmarks.mutations.changes import mutants
from benchmarks.mutations.covering import Covering

SOURCE = '''
"""A docstring with a number 7."""

LIMIT = 3
__all__ = ["f"]


def f(x: int = 1, *, known: bool = True) -> int:
    """Another one, 8."""
    if x < LIMIT and known:
        raise ValueError(f"x is {x}; expected {LIMIT + 9} or more.")
    values = [max(v, 0) for v in range(x) if v != 2]
    return sum(values) - x
'''


def after(source=SOURCE):
    return [mutant.after for mutant in mutants("f.py", source)]


@pytest.mark.parametrize(
    "fault",
    [
        "LIMIT = (4)",
        "def f(x: int = (2), *, known: bool = True) -> int:",
        "def f(x: int = 1, *, known: bool = (False)) -> int:",
        "if (x <= LIMIT) and known:",
        "if (x >= LIMIT) and known:",
        "if (x < LIMIT or known):",
        "pass",
        "values = ([max(v, 0) for v in range(x)])",
        "values = [max(v, 0) for v in range(x) if (v == 2)]",
        "values = [(v) for v in range(x) if v != 2]",
        "return None",
        "return (sum(values) + x)",
    ],
)
def test_each_kind_of_fault_is_among_them(fault):
    assert fault in after()


def test_words_and_hints_are_spared():
    text = " ".join(after())
    assert not any(word in text for word in ("Xf", "8", "10", "docstring"))


def test_every_mutant_is_another_program_and_its_own():
    found = mutants("f.py", SOURCE)
    programs = {ast.dump(ast.parse(mutant.apply(SOURCE.encode()))) for mutant in found}
    assert len(programs) == len(found) == len({mutant.identity for mutant in found})
    assert ast.dump(ast.parse(SOURCE)) not in programs


def test_a_mutant_keeps_its_name_while_its_statement_function_and_file_keep_theirs():
    moved = mutants("f.py", "import math\n" + SOURCE + "\n\nOTHER = 5\n")
    assert {mutant.identity for mutant in mutants("f.py", SOURCE)} < {mutant.identity for mutant in moved}


def test_a_larger_sample_holds_the_smaller_one_and_some_of_every_file():
    found = [mutant for name in ("f.py", "g.py") for mutant in mutants(name, SOURCE)]
    small, large = ({mutant.identity for mutant in sample(found, number)} for number in (8, 20))
    assert small < large
    assert {mutant.file for mutant in sample(found, 1)} == {"f.py", "g.py"}


def test_tests_that_mirror_a_file_meet_what_runs_at_its_import():
    """They read an attribute of a class, and run no line of the file for it."""
    limit = next(mutant for mutant in mutants("privacy/f.py", SOURCE) if mutant.before == "LIMIT = 3")
    covering = Covering()
    seconds = {"tests/privacy/test_f.py::test_limit": 0.1, "tests/privacy/test_g.py::test_other": 0.1}
    covering.add({"failed": [], "seconds": seconds, "lines": {}})
    assert covering.tests(limit, 10.0) == [["tests/privacy/test_f.py::test_limit"]]
