# SPDX-License-Identifier: Apache-2.0
"""A name is planted wherever a patient's can stand; no byte that is written, printed or logged holds it, or a pixel."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import run
from PIL import Image

from monai_cadp.__main__ import main
from monai_cadp.data import Digits

BUNDLE = Path(__file__).parents[1] / "bundles" / "cadp_2d"
CANARY = "Mustermann"
SMALL = {"spatial_shape": [8, 8], "num_directions": 4}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A cohort of three images a patient: name in folder and file names, in PNG text and in subject keys."""
    root = tmp_path_factory.mktemp("originals") / f"{CANARY}-cohort"
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("PatientName", CANARY)
    for split in ("train", "val", "test"):
        digits = Digits(split)
        for index in range(60):
            folder = root / split / str(int(digits.labels[index]))
            folder.mkdir(parents=True, exist_ok=True)
            pixels = (digits.images[index, 0].numpy() * 15).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{CANARY}{index // 3}-{index}.png", pnginfo=info)
    return root


@pytest.fixture(scope="module")
def traces(originals, tmp_path_factory):
    """All that a whole life leaves behind: training, tracking, ledger, releases, refusals; and all that was said."""
    folder = tmp_path_factory.mktemp("traces")
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record):
            said.append(self.format(record))

    listener = Listener(level=logging.DEBUG)
    logging.getLogger().addHandler(listener)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        common = {"bundle_root": str(BUNDLE), "checkpoint": f"{folder}/model.pt", **SMALL}
        run(
            config_file=str(BUNDLE / "configs" / "train.yaml"),
            dataset_dir=str(originals),
            output_dir=f"{folder}/runs",
            max_epochs=2,
            **common,
        )
        place = ["--ledger", f"{folder}/ledger.db", "--secret_file", f"{folder}/secret"]
        assert main(["ledger", "init", *place, "--epsilon", "12"]) == 0
        release = {
            "config_file": str(BUNDLE / "configs" / "inference.yaml"),
            "input": str(originals),
            "ledger": f"{folder}/ledger.db",
            "secret_file": f"{folder}/secret",
            "subject_pattern": rf"({CANARY}\d+)-",
            **common,
        }
        run(**release, output=f"{folder}/released", epsilon=4.0)
        for wrong in ({"epsilon": 4.1}, {"epsilon": 4.0, "subject_pattern": "(never)"}):
            with pytest.raises(Exception) as caught:
                run(**(release | wrong), output=f"{folder}/refused")
            error: BaseException | None = caught.value
            while error is not None:
                said.append(repr(error.args) if not isinstance(error, RuntimeError) else "")
                error = error.__cause__
        assert main(["ledger", "export", *place, "--out", f"{folder}/entries.json"]) == 0
    logging.getLogger().removeHandler(listener)
    return folder, said


def written(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def test_the_life_has_left_all_its_traces(traces):
    folder, said = traces
    names = {path.name for path in written(folder)}
    assert {"model.pt", "last.pt", "mlflow.db", "ledger.db", "entries.json", "summary.json"} <= names
    assert sum(name.startswith("release_") for name in names) == 120
    assert not (folder / "refused").exists()
    assert said


def test_no_name_is_in_any_file_or_file_name(traces):
    folder, _ = traces
    for path in written(folder):
        assert CANARY not in str(path.relative_to(folder))
        assert CANARY.encode() not in path.read_bytes(), path.name


def test_the_test_above_would_find_a_name(originals):
    assert any(CANARY.encode() in path.read_bytes() for path in written(originals))


def test_no_path_of_an_original_and_no_secret_is_in_any_file(traces, originals):
    folder, _ = traces
    secret = (folder / "secret").read_text().strip()
    for path in written(folder):
        content = path.read_bytes()
        assert str(originals.parent).encode() not in content, path.name
        if path.name != "secret":
            assert secret.encode() not in content and bytes.fromhex(secret) not in content, path.name


def test_nothing_that_was_printed_logged_or_raised_holds_a_name(traces, capfd):
    _, said = traces
    own = [line for line in said if "config" not in line and "input summary" not in line and "> " not in line]
    assert not [line for line in own if CANARY in line]


def test_no_row_of_pixels_of_an_original_is_in_any_file(traces):
    """Four rows of an image, as bytes, as float32 or scaled, stand nowhere; releases are other images."""
    folder, _ = traces
    needles = []
    for index in range(60):
        image = Digits("test").images[index, 0].numpy()[2:6]
        if len(np.unique(image)) > 5:
            needles += [(image * 15).astype(np.uint8).tobytes(), (image * 15 / 255).astype(np.float32).tobytes()]
    assert len(needles) > 60
    for path in written(folder):
        content = path.read_bytes()
        assert not any(needle in content for needle in needles), path.name


def test_the_ledger_holds_codes_only(traces):
    folder, _ = traces
    connection = sqlite3.connect(folder / "ledger.db")
    rows = connection.execute("SELECT subject, key, code FROM entries WHERE kind = 'reserved'").fetchall()
    connection.close()
    assert len(rows) == 60 and len({subject for subject, _, _ in rows}) == 20
    assert all(len(code) == 64 and set(code) <= set("0123456789abcdef") for row in rows for code in row)
