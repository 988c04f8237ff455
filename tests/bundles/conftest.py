# SPDX-License-Identifier: Apache-2.0
"""What tests of bundles share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def anywhere(tmp_path, monkeypatch):
    """Whatever a bundle writes lands in the test's folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
