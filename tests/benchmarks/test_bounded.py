# SPDX-License-Identifier: Apache-2.0
"""The benchmark of draws by the thousand counts what is not finite or outside, and notices it."""

from __future__ import annotations

import json
import math

import pytest
import torch

from benchmarks import bounded

pytestmark = pytest.mark.slow


def test_images_that_are_not_finite_or_outside_are_counted():
    good, bad = torch.full((2, 1, 4, 4), 0.5), torch.full((3, 1, 4, 4), 0.5)
    bad[0, 0, 1, 1], bad[2, 0, 0, 0] = math.nan, 1.01
    row = bounded.counted("draws", [lambda: good, lambda: bad])
    assert (row["images"], row["not finite"], row["outside"]) == (5, 1, 1)
    assert row["lowest"] == 0.5 and row["highest"] == pytest.approx(1.01)


def test_the_shipped_network_draws_within_the_range(tmp_path, monkeypatch):
    out = tmp_path / "result.json"
    monkeypatch.setattr("sys.argv", ["bounded", "--number", "20", "--out", str(out)])
    bounded.main()
    result = json.loads(out.read_text())
    assert [row["images"] for row in result["rows"]] == [20, 16, 20]
    assert all(row["not finite"] == 0 for row in result["rows"])
    assert result["rows"][0]["outside"] == result["rows"][2]["outside"] == 0
    assert result["largest_error_of_the_round_trip"] < 1e-4 and result["latents_of_shifted_films_are_finite"]
