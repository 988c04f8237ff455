# SPDX-License-Identifier: Apache-2.0
"""The benchmark of re-identification knows people apart who differ, and guesses where nothing of them is left."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import reidentification

pytestmark = pytest.mark.slow


def test_originals_are_found_and_prior_samples_are_not(tmp_path, monkeypatch, films, checkpoint):
    arrays = dict(np.load(films))
    for split in ("train", "val", "test"):
        # The second film of everybody is nearly the first.
        arrays[f"{split}_images"][1::2] = 255 - (255 - arrays[f"{split}_images"][::2]) * 0.9
    np.savez(films, **arrays)
    out = tmp_path / "result.json"
    words = ["--data", str(films), "--checkpoint", str(checkpoint), "--epochs", "2", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["reidentification", *words])
    reidentification.main()
    result = json.loads(out.read_text())
    assert (result["films"], result["patients"], result["patients with several films"]) == (48, 24, 24)
    rows = {row["method"]: row for row in result["rows"]}
    assert rows["originals"]["another film, top 1"]["value"] == 1
    edges = rows["prior only"]["all attackers"]["edges"]
    assert edges["another film"]["top 1"] < 0.15 and 0.35 < edges["another film"]["AUC"] < 0.65
    assert [(row["directions"], row["epsilon"]) for row in result["trade"]] == [
        (directions, epsilon) for directions in (2, 4) for epsilon in (1, 2, 4, 8)
    ]
    assert "<svg" in (tmp_path / "result.svg").read_text()
