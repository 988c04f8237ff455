# SPDX-License-Identifier: Apache-2.0
"""From an archive to an archive by one command, which is killed on every occasion."""

from __future__ import annotations

import io
import multiprocessing
import os
import queue
import shutil
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import generate_uid

from benchmarks.archives import Front, answering
from monai_cadp.__main__ import main
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.privacy import Budget, PrivacyLedger
from monai_cadp.privacy.ledger import write_secret
from monai_cadp.release import ReleasedFolder
from monai_cadp.release.checkpoint import save_model

pytestmark = pytest.mark.slow

BUNDLES = Path(__file__).parents[2] / "bundles"
CANARY = "Mustermann-1954"
TOKEN = "token-of-the-curator"
NUM_STUDIES = 20
PATIENTS = [f"{CANARY}-{number:02d}" for number in range(NUM_STUDIES)]
TEXTS = ("AccessionNumber", "InstitutionName", "StudyDescription", "SeriesDescription", "ReferringPhysicianName",
         "OtherPatientIDs", "PatientAddress", "StationName", "ProtocolName", "ImageComments")  # fmt: skip
VALIDATOR = shutil.which("dciodvfy")
# New processes for whoever is killed: forked, so that none of them imports PyTorch anew.
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def hospital(start_archive, tmp_path_factory, files):
    """An archive with twenty studies of a film each, names wherever one can stand; and what must not come out."""
    archive, folder = start_archive(), tmp_path_factory.mktemp("hospital")
    random = np.random.default_rng(0)
    canaries = {CANARY.encode(), b"19540313", b"20210704", TOKEN.encode()}
    for patient in PATIENTS:
        pixels = random.integers(0, 4095, (16, 16))
        names = dict.fromkeys(TEXTS, CANARY[:16])
        uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
        dates = {"PatientBirthDate": "19540313", "StudyDate": "20210704", "ContentDate": "20210704"}
        files.dicom(folder / f"{patient}.dcm", pixels, PatientID=patient, Modality="DX", **names, **uids, **dates)
        canaries |= {uid.encode() for uid in uids.values()} | {pixels[7].astype("<i2").tobytes()}
    archive.store(folder)
    return archive, canaries


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small network for small films, by file, fit for nothing."""
    torch.manual_seed(0)
    inn = ConditionalINN((16, 16), num_classes=2, num_couplings=1, width=4)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 2)), path)
    return path


@pytest.fixture
def study(hospital, start_archive, checkpoint, tmp_path):
    """Two archives with a front each, a ledger, and the command between them."""
    with answering(source := Front(hospital[0])) as first, answering(target := Front(start_archive())) as second:
        yield Study(source, target, first, second, checkpoint, tmp_path)


class Study:
    def __init__(self, source, target, first, second, checkpoint, folder):
        self.source, self.target, self.folder = source, target, folder
        # Of the command that runs; whoever is to kill it waits until it is known.
        self.pid = queue.Queue(1)
        self.ledger = PrivacyLedger.create(folder / "ledger.db", write_secret(folder / "secret"), Budget(8.0))
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        self.arguments = [
            "dicomweb", "release", "--retries", "0",
            "--config_file", str(BUNDLES / "cadp_2d" / "configs" / "inference.yaml"),
            "--input", f"{first}/dicom-web/series?Modality=DX", "--input_token_file", str(folder / "token"),
            "--output", f"{second}/dicom-web", "--output_token_file", str(folder / "token"),
            "--work_dir", str(folder / "work"), "--checkpoint", str(checkpoint), "--epsilon", "4.0",
            "--condition", "1", "--intensity_range", "[0, 4095]", "--num_directions", "2",
            "--ledger", str(folder / "ledger.db"), "--secret_file", str(folder / "secret"), "--batch_size", "4",
        ]  # fmt: skip

    def run(self, writes=None):
        """Run the command in a process of its own, which dies at a write; returns its exit code."""
        process = FORK.Process(target=_command, args=(self.arguments, self.folder / "said", writes))
        process.start()
        self.pid.put(process.pid)
        process.join()
        self.pid.get()
        return process.exitcode

    def killed(self, front, at, after=False):
        """Run the command, which is killed at a request; returns its exit code."""

        def kill():
            self.pid.put(pid := self.pid.get())
            os.kill(pid, signal.SIGKILL)

        front.arm(at, kill, after)
        return self.run()

    def check(self, canaries):
        """Every patient is released and stored once, the ledger knows it, and nothing else has left."""
        objects = self.target.archive.files()
        headers = [pydicom.dcmread(io.BytesIO(content)) for content in objects]
        assert len(headers) == NUM_STUDIES == len({header.SOPInstanceUID for header in headers})
        assert len({header.PixelData for header in headers}) == NUM_STUDIES
        assert all(header.SyntheticData == "YES" and header.PatientIdentityRemoved == "YES" for header in headers)
        assert {self.ledger.spent(patient) for patient in PATIENTS} == {(4.0, 0.0)}
        assert self.ledger.summary()["released"] == NUM_STUDIES and self.ledger.verify() == []
        if VALIDATOR is not None or "CI" in os.environ:
            assert [error for content in objects for error in _errors(content, self.folder / "stored.dcm")] == []
        written = sorted(path.read_bytes() for path in (self.folder / "work" / "released").glob("*.dcm"))
        assert sorted(objects) == written
        sent = [repr(request[:2]).encode() + request[3] for request in self.target.requests]
        sent += [repr(request[2]).replace(TOKEN, "").encode() for request in self.target.requests]
        said = (self.folder / "said").read_bytes()
        assert len(sent) > 2 * NUM_STUDIES and said
        assert [canary for canary in canaries for content in (*sent, said, *objects) if canary in content] == []
        # The search would find them.
        originals = b"".join(self.source.archive.files())
        assert {canary for canary in canaries if canary not in originals} == {TOKEN.encode()}


def _errors(content, path):
    """What a validator of DICOM says of an object, but for the one attribute that is younger than the validator."""
    path.write_bytes(content)
    said = subprocess.run([VALIDATOR, str(path)], capture_output=True, text=True).stderr.splitlines()
    assert "SCImage" in said
    return [line for line in said if line.startswith("Error") and "(0x0008,0x001c)" not in line]


def _command(arguments, said, writes):
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout, sys.stderr = (open(stream, "w", closefd=False) for stream in (1, 2))
    if writes is not None:
        _kill_at_write(writes)
    try:
        code = main(arguments)
    except BaseException:
        traceback.print_exc()
        code = 3
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _kill_at_write(number):
    write, count = ReleasedFolder.write, iter(range(1, number + 1))

    def dying(*arguments, **keywords):
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        write(*arguments, **keywords)

    ReleasedFolder.write = dying


def test_twenty_studies_survive_ten_kills_and_no_original_is_sent(study, hospital):
    _, canaries = hospital
    for at, after in ((1, False), (9, True), (20, False), (23, True)):
        assert study.killed(study.source, at, after) == -signal.SIGKILL
    assert not study.target.requests and not (study.folder / "work" / "released").exists()
    for writes in (3, NUM_STUDIES):
        assert study.run(writes) == -signal.SIGKILL
    assert not study.target.requests and not (study.folder / "work" / "released").exists()
    for at, after in ((1, False), (2, True), (13, False), (36, True)):
        assert study.killed(study.target, at, after) == -signal.SIGKILL
    assert study.run() == 0
    study.check(canaries)
    count = len(study.source.requests)
    films = [path for _, path, *_ in study.source.requests if "/instances/" in path]
    # Those that were on their way when their reader was killed came again.
    assert len(set(films)) == NUM_STUDIES and len(films) <= NUM_STUDIES + 4
    posts = sum(method == "POST" for method, *_ in study.target.requests)
    assert study.run() == 0
    assert sum(method == "POST" for method, *_ in study.target.requests) == posts
    assert not any("/instances/" in path for _, path, *_ in study.source.requests[count:])
    study.check(canaries)


def test_volumes_go_from_an_archive_to_another_with_their_patients(start_archive, files, tmp_path, capfd):
    hospital, research = start_archive(), start_archive()
    volume = np.random.default_rng(0).integers(0, 900, (12, 15, 12)).astype(np.int16)
    for number in range(2):
        files.series(tmp_path / str(number), volume, pixel_spacing=14.4, step=14.4)
        for path in (tmp_path / str(number)).iterdir():
            scan = pydicom.dcmread(path)
            scan.PatientID, scan.StudyInstanceUID = PATIENTS[number], f"1.2.3.{number}"
            scan.save_as(path)
        hospital.store(tmp_path / str(number))
    inn = ConditionalINN((12, 16, 12), num_classes=2, width=8, num_couplings=2)
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 4)), tmp_path / "model.pt")
    ledger = PrivacyLedger.create(tmp_path / "ledger.db", write_secret(tmp_path / "secret"), Budget(8.0))
    code = main([
        "dicomweb", "release", "--config_file", str(BUNDLES / "cadp_brain_mr" / "configs" / "inference.yaml"),
        "--input", f"{hospital.dicomweb}/studies?PatientID={CANARY}*", "--output", research.dicomweb,
        "--work_dir", str(tmp_path / "work"), "--checkpoint", str(tmp_path / "model.pt"), "--checkpoint_sha256", "any",
        "--epsilon", "4.0", "--spatial_shape", "[12, 16, 12]", "--grid#spacing", "14.4", "--num_directions", "4",
        "--ledger", str(tmp_path / "ledger.db"), "--secret_file", str(tmp_path / "secret"), "--input_kind", "brain",
    ])  # fmt: skip
    assert code == 0 and CANARY not in "".join(capfd.readouterr())
    assert {ledger.spent(patient) for patient in PATIENTS[:2]} == {(4.0, 0.0)} and ledger.summary()["released"] == 2
    slices = [pydicom.dcmread(io.BytesIO(content)) for content in research.files()]
    assert len(slices) == 2 * 12 and len({part.SeriesInstanceUID for part in slices}) == 2
    assert not any(CANARY.encode() in content for content in research.files())


def test_a_work_dir_is_for_one_command_and_one_set_of_originals(study, capfd):
    with pytest.raises(RuntimeError):
        # Refused by the bundle; nothing is released, and the options may be mended.
        main([*study.arguments, "--label_epsilon", "1.0"])
    assert main(study.arguments) == 0
    files = study.target.archive.files()
    assert main([*study.arguments, "--epsilon", "1.0"]) == 2
    assert "holds a release with other options" in capfd.readouterr().err
    assert main([text.replace("Modality=DX", "Modality=*") for text in study.arguments]) == 2
    assert "is for another query" in capfd.readouterr().err
    for path in (study.folder / "work" / "released").glob("release_000001*"):
        path.unlink()
    (study.folder / "work" / "released" / "summary.json").write_text('{"count": 19}')
    assert main(study.arguments) == 2
    assert "holds a release of 19 images, and 20 originals" in capfd.readouterr().err
    assert study.target.archive.files() == files
    private = [study.folder / "work", *(study.folder / "work" / "originals").rglob("*")]
    assert all(path.stat().st_mode & 0o077 == 0 for path in private)


def test_a_query_is_read_from_the_standard_input(hospital, tmp_path, monkeypatch, capfd):
    archive, canaries = hospital
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{archive.dicomweb}/series?PatientID={PATIENTS[3]}\n"))
    assert main(["dicomweb", "fetch", "-", str(tmp_path / "originals")]) == 0
    said = "".join(capfd.readouterr())
    assert "1 series with 1 images are fetched, 1 of them now." in said
    assert not any(canary in said.encode() for canary in canaries)


@pytest.mark.parametrize("end", ["input", "output"])
def test_a_server_that_cannot_be_asked_is_refused_before_anything_is_fetched(study, end, capfd):
    place = study.arguments.index(f"--{end}") + 1
    study.arguments[place] = study.arguments[place].replace("127.0.0.1", "somewhere.org")
    assert main(study.arguments) == 2
    assert "is not encrypted" in capfd.readouterr().err and not study.source.requests
    assert not list(study.folder.glob("work/originals/*/*"))
