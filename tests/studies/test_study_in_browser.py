# SPDX-License-Identifier: Apache-2.0
"""What people see of a study in a real browser: MLflow's own pages, and the report on a phone and on paper."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from pypdf import PdfReader

from monai_cadp.data import Digits
from monai_cadp.networks import ConditionalINN
from monai_cadp.studies import ContentKept, NetworkContent, NetworkTraining, ReleaseStrip, Study

BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(BROWSER is None and "CI" not in os.environ, reason="needs Chromium")


def browse(*arguments):
    """Let a page come to rest; returns what the browser prints."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    digits = Digits("val")
    training = NetworkTraining(ConditionalINN((8, 8), 1, num_classes=10), "public", max_epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        methods, measurements = [NetworkContent([1.0, 8.0])], [ContentKept()]
        Study("Digits", training, *[digits] * 3, folder, methods, measurements, [ReleaseStrip()]).run()
    return folder


@pytest.fixture(scope="module")
def server(study):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"sqlite:///{study / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--port", str(port), "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=study,
        start_new_session=True,
    ) as process:
        try:
            started = any("startup complete" in line for line in process.stderr)
            assert started
            yield f"http://127.0.0.1:{port}"
        finally:
            # The server has workers.
            os.killpg(process.pid, signal.SIGKILL)


def runs(study):
    client = MlflowClient(f"sqlite:///{study / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cadp studies").experiment_id
    return experiment, {run.info.run_name: run.info.run_id for run in client.search_runs([experiment])}


@pytest.mark.slow
def test_mlflows_pages_show_the_study_and_compare_its_children(study, server):
    experiment, ids = runs(study)
    listed = browse("--window-size=1600,1200", "--dump-dom", f"{server}/#/experiments/{experiment}/runs")
    assert re.search(r"study-\d{8}-\d{6}", listed)
    compared = [run_id for name, run_id in ids.items() if name.startswith("content basis")]
    assert len(compared) == 2
    chosen = "%5B" + ",".join(f"%22{run_id}%22" for run_id in compared) + "%5D"
    address = f"{server}/#/compare-runs?runs={chosen}&experiments=%5B%22{experiment}%22%5D"
    page = browse("--window-size=1600,1600", "--dump-dom", address)
    for seen in ("content basis, epsilon 1", "content basis, epsilon 8", "pixel_cosine", "epsilon"):
        assert seen in page


@pytest.mark.slow
def test_the_report_fits_a_phone_and_nothing_of_it_is_cut(study, tmp_path):
    """Wide tables scroll inside their frames; the page itself is as wide as the screen."""
    measure = tmp_path / "measure.html"
    report = (study / "report.html").read_text()
    script = "<script>document.title = `width ${document.documentElement.scrollWidth} of ${window.innerWidth}`</script>"
    measure.write_text(report.replace("</body>", script + "</body>"))
    page = browse("--window-size=500,900", "--dump-dom", measure.as_uri())
    wide, screen = map(int, re.search(r"<title>width (\d+) of (\d+)", page).groups())
    assert wide <= screen <= 500


@pytest.mark.slow
def test_the_report_is_a_picture_with_text_curves_and_releases(study, tmp_path):
    picture = tmp_path / "report.png"
    browse("--window-size=1000,3000", f"--screenshot={picture}", (study / "report.html").as_uri())
    pixels = np.asarray(Image.open(picture).convert("L"), dtype=float)
    rows = (pixels.std(axis=1) > 1).reshape(-1, 100).mean(axis=1)
    # Every stretch of 100 pixels down to the end of the page holds something.
    last = int(np.nonzero(rows)[0].max())
    assert last > 15 and (rows[: last + 1] > 0).mean() > 0.9


@pytest.mark.slow
def test_the_report_prints_with_its_text(study, tmp_path):
    paper = tmp_path / "report.pdf"
    browse(f"--print-to-pdf={paper}", (study / "report.html").as_uri())
    text = " ".join(page.extract_text() for page in PdfReader(paper).pages)
    for seen in ("What of the content is kept", "content basis", "factor of at most", "Versions"):
        assert seen in text
