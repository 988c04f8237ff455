# SPDX-License-Identifier: Apache-2.0
"""No value of an original's header reaches the files of a release; a writer that let one through would be caught."""

from __future__ import annotations

import warnings

import pydicom
import pytest

from benchmarks.header_fuzz import SOURCES, fuzz


@pytest.fixture(autouse=True)
def odd_values_may_be_written(monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "_writing_validation_mode", pydicom.config.IGNORE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("kind", SOURCES)
def test_no_value_comes_through_and_the_control_is_caught(kind):
    found = fuzz(kind, number=100, seed=1)
    assert found["values"] >= 100
    assert (found["through"], found["control caught"]) == (0, True)
