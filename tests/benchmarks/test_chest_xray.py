# SPDX-License-Identifier: Apache-2.0
"""The benchmark of chest films measures what it says, with a network and an observer of any kind."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from benchmarks import chest_xray

pytestmark = pytest.mark.slow

OBSERVER = """
def judge(real, released, reference):
    same = {name: {"observer": 0.5} for name in ("spectrum", "intensity", "anatomy")}
    return same | {"distance": float(abs(real.mean() - released.mean()))}
"""


def test_every_figure_of_the_benchmark_is_made_with_every_option(tmp_path, monkeypatch, films, checkpoint):
    (tmp_path / "observer.py").write_text(OBSERVER)
    out = tmp_path / "result.json"
    options = {"data": films, "checkpoint": checkpoint, "observer": tmp_path / "observer.py"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr("sys.argv", ["chest_xray", *words, "--declared", "--utility", "--out", str(out)])
    chest_xray.main()
    result = json.loads(out.read_text())
    assert (result["films"], result["patients"]) == (48, 24)
    assert [row["method"] for row in result["rows"]] == [
        "prior only",
        *(f"content basis, epsilon {epsilon}" for epsilon in (1, 4, 8)),
        *(f"declared content, epsilon {epsilon}" for epsilon in (4, 8)),
        "real films",
    ]
    assert list(result["membership_auc_by_likelihood"]) == ["the whole film", "coarse image", "level to 32 pixels"]
    aucs = [
        one
        for figure in ("auc", "accuracy")
        for one in result[f"{figure}_on_originals_of_a_classifier_trained_on"].values()
    ]
    assert len(aucs) == 6
    for figure in (*aucs, *result["membership_auc_by_likelihood"].values()):
        low, high = figure["interval"]
        assert low <= figure["value"] <= high
    assert Image.open(tmp_path / "result.png").size[0] > 8 * 32
