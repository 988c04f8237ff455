# SPDX-License-Identifier: Apache-2.0
"""The benchmark of a set's budget says what a single film has, and what it keeps and gives away."""

from __future__ import annotations

import json

import pytest

from benchmarks import set_of_patients
from monai_cadp.privacy import SubsetSelection

pytestmark = pytest.mark.slow


def test_originals_keep_and_give_away_all_and_prior_samples_nothing(tmp_path, monkeypatch, films, checkpoint):
    out = tmp_path / "result.json"
    words = ["--data", str(films), "--checkpoint", str(checkpoint), "--epochs", "2", "--seeds", "1", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["set_of_patients", *words])
    set_of_patients.main()
    result = json.loads(out.read_text())
    assert result["set"]["epsilon_of_a_film"] == SubsetSelection.for_set(1.0, 1000, 1e-6).epsilon > 3
    originals, of_set, prior = result["rows"]
    assert (originals["epsilon"], of_set["set epsilon"], prior["epsilon"]) == (None, 1.0, 0.0)
    assert originals["the film itself, top 1"]["value"] == 1 and originals["content kept"] == 1
    assert prior["the film itself, top 1"]["value"] < 0.3 and abs(prior["content kept"]) < 0.5
    assert of_set["epsilon"] == result["set"]["epsilon_of_a_film"]
    for row in result["rows"]:
        low, high = row["p/o AUC"]["interval"]
        assert 0 <= low <= high <= 1
