# SPDX-License-Identifier: Apache-2.0
"""The benchmark of private samples states the budget of the protocol, and the accuracy of three classifiers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks import dp_image_bench

pytestmark = pytest.mark.slow
COUNT = 400


def test_every_figure_of_the_benchmark_is_made(tmp_path, monkeypatch):
    generator, arrays = np.random.default_rng(0), {}
    for split, count in (("train", COUNT), ("val", COUNT), ("test", 40)):
        labels = generator.integers(0, 3, count)
        images = generator.normal(60, 20, (count, 28, 28)) + 50 * labels[:, None, None]
        arrays |= {f"{split}_images": images.clip(0, 255).astype(np.uint8), f"{split}_labels": labels[:, None]}
    np.savez(tmp_path / "data.npz", **arrays)
    out = tmp_path / "result.json"
    words = f"--data {tmp_path / 'data.npz'} --epsilon 10 --samples 60 --epochs 1 --keep {tmp_path} --out {out}"
    monkeypatch.setattr("sys.argv", ["dp_image_bench", *words.split()])
    dp_image_bench.main()
    result = json.loads(out.read_text())
    (row,) = result["rows"]
    assert result["images"] == 2 * COUNT and row["delta"] == 1 / (2 * COUNT * math.log(2 * COUNT))
    assert 9.5 < row["epsilon"] <= 10
    three = [row[name] for name in ("small", "residual", "wide")]
    assert row["mean accuracy"] == pytest.approx(sum(three) / 3, abs=1e-4) and 0 <= min(three) <= max(three) <= 1
    assert out.with_suffix(".png").exists() and (tmp_path / "private_10.pt").exists()
