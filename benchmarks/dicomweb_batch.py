# SPDX-License-Identifier: Apache-2.0
"""Many patients go from an archive to another one by one command, which is killed ten times, and so are the servers.

python -m benchmarks.dicomweb_batch --out results/dicomweb_batch.json

Every patient has a study of one film, and names, dates and identifiers wherever one can stand. Two archives (Orthanc)
lie behind a server that keeps what was sent. ``dicomweb release`` runs between them in a process of its own, which gets
SIGKILL at a random moment: a random delay after a random request, or after a random image of the release. A killed
server is started again, and the same command is given until it ends. Counted at the end is what the other archive and
the ledger hold, and what of the originals is in anything that was sent there or said.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Which the command imports late; here, so that no forked process does so anew.
import monai.bundle  # noqa: F401
import numpy as np
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from benchmarks.archives import Archive, Front, answering
from benchmarks.report import print_table, write_json
from monai_cadp.__main__ import main as command_line
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.privacy import Budget, PrivacyLedger
from monai_cadp.privacy.ledger import write_secret
from monai_cadp.release import ReleasedFolder
from monai_cadp.release.checkpoint import save_model

CONFIGURATION = Path(__file__).parents[1] / "bundles" / "cadp_2d" / "configs" / "inference.yaml"
SIZE = 32
EPSILON = 4.0
CANARY = "Mustermann-1954"
DATES = {"PatientBirthDate": "19540313", "StudyDate": "20210704", "SeriesDate": "20210704", "ContentDate": "20210704"}
TEXTS = ("AccessionNumber", "InstitutionName", "StudyDescription", "SeriesDescription", "ReferringPhysicianName",
         "OtherPatientIDs", "PatientAddress", "StationName", "ProtocolName", "ImageComments")  # fmt: skip
# Of the command, while it fetches, releases and stores; of servers, the hospital's and the other one.
KILLS = {"fetches": 3, "releases": 3, "stores": 4}
SERVER_KILLS = {"fetches": 2, "stores": 2}
LONGEST_DELAY = 0.2
# Of what is left to do, so that the command is still at it after the delay.
SHARE = 0.6
# Forked, so that PyTorch is not imported anew for each attempt.
FORK = multiprocessing.get_context("fork")


def write_film(path: Path, patient: str, draw: np.random.Generator) -> set[bytes]:
    """Write a patient's film, and return what must not come out of it."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    film.SOPClassUID = meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    film.StudyInstanceUID, film.SeriesInstanceUID, film.SOPInstanceUID = (generate_uid() for _ in range(3))
    meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
    film.PatientID, film.PatientName, film.Modality, film.InstanceNumber = patient, f"{patient}^Erika", "DX", 1
    for name, value in (DATES | dict.fromkeys(TEXTS, CANARY)).items():
        setattr(film, name, value)
    pixels = draw.integers(0, 4095, (SIZE, SIZE)).astype("<u2")
    film.Rows, film.Columns, film.SamplesPerPixel, film.PhotometricInterpretation = SIZE, SIZE, 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.BurnedInAnnotation = "NO"
    film.PixelData = pixels.tobytes()
    film["PixelData"].VR = "OW"
    film.save_as(path, enforce_file_format=True)
    names = {film.StudyInstanceUID, film.SeriesInstanceUID, film.SOPInstanceUID, patient}
    return {name.encode() for name in names} | {pixels[SIZE // 2].tobytes()}


class Batch:
    """Two archives with a server in front of each, a ledger, and the command between them."""

    def __init__(self, source: Front, target: Front, addresses: Sequence[str], folder: Path, patients: int) -> None:
        self.source, self.target, self.folder, self.patients = source, target, folder, patients
        self.draw = random.Random(0)
        self.rows: list[dict[str, object]] = []
        inn = ConditionalINN((SIZE, SIZE), num_classes=2, num_couplings=1, width=4)
        save_model(TrainedModel(inn, ContentBasis.leading(inn, 2)), folder / "model.pt")
        secret = write_secret(folder / "secret")
        self.ledger = PrivacyLedger.create(folder / "ledger.db", secret, Budget(2 * EPSILON))
        self.arguments = [
            "dicomweb", "release", "--retries", "0", "--config_file", str(CONFIGURATION),
            "--input", f"{addresses[0]}/dicom-web/series?Modality=DX", "--output", f"{addresses[1]}/dicom-web",
            "--work_dir", str(folder / "work"), "--checkpoint", str(folder / "model.pt"),
            "--epsilon", str(EPSILON), "--condition", "1", "--intensity_range", "[0, 4095]", "--num_directions", "2",
            "--ledger", str(folder / "ledger.db"), "--secret_file", str(folder / "secret"), "--batch_size", "16",
        ]  # fmt: skip

    def counts(self) -> dict[str, int]:
        """Return how far the work is."""
        return {
            "originals": len(list(self.folder.glob("work/originals/*/*.dcm"))),
            "in the ledger": self.ledger.summary()["released"],
            "stored": self.target.archive.count(),
        }

    def attempt(
        self,
        killed: str,
        arm: Callable[[Any], None] | None = None,
        at_image: int | None = None,
        server: Archive | None = None,
    ) -> bool:
        """Run the command in a process of its own, and return whether it was done.

        Args:
            killed: what is, for the table.
            arm: is called with the process.
            at_image: of the release, a moment after which the process kills itself.
            server: that is killed meanwhile, to be started again.
        """
        started = time.perf_counter()
        options = (self.arguments, self.folder / "said", at_image, self.draw.uniform(0, LONGEST_DELAY))
        process = FORK.Process(target=_command, args=options)
        process.start()
        if arm is not None:
            arm(process)
        process.join()
        for front in (self.source, self.target):
            front.arm(None)
        if server is not None:
            server.start()
        row = {"attempt": len(self.rows) + 1, "killed": killed}
        row |= {"end": {0: "done", -signal.SIGKILL: "killed"}.get(process.exitcode, "an error")} | self.counts()
        self.rows.append(row | {"seconds": round(time.perf_counter() - started, 1)})
        print(self.rows[-1], flush=True)
        return process.exitcode == 0

    def kill_command(self, front: Front, at: int, what: str) -> None:
        """Kill the command a moment after a request of this number."""
        delay = self.draw.uniform(0, LONGEST_DELAY)

        def arm(process: Any) -> None:
            front.arm(at, lambda: threading.Timer(delay, process.kill).start())

        self.attempt(f"the command, which {what}", arm)

    def kill_server(self, front: Front, at: int, what: str) -> None:
        """Kill a server before it answers a request of this number, or after it."""
        after = self.draw.random() < 0.5
        what = {"fetches": "is asked", "stores": "is given releases"}[what]
        self.attempt(
            f"the server that {what}", lambda _: front.arm(at, front.archive.kill, after), server=front.archive
        )

    def some(self, left: int) -> int:
        """Return a random number of those that are left."""
        return self.draw.randint(1, max(1, int(SHARE * left)))


def _command(arguments: list[str], said: Path, at_image: int | None, delay: float) -> None:
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout, sys.stderr = (open(stream, "w", closefd=False) for stream in (1, 2))
    if at_image is not None:
        _kill_after(at_image, delay)
    code = 3
    try:
        code = command_line(arguments)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _kill_after(number: int, delay: float) -> None:
    """Have this process killed a moment after it has written an image of this number."""
    write, count = ReleasedFolder.write, iter(range(number))

    def dying(*arguments: Any, **keywords: Any) -> None:
        if next(count, None) == number - 1:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        write(*arguments, **keywords)

    ReleasedFolder.write = dying  # type: ignore[method-assign]


def run(batch: Batch) -> None:
    """Kill the command and the servers while they fetch, release and store, and go on until everything is done."""
    kills: list[tuple[str, bool]] = []
    for what, count in KILLS.items():
        of_servers = [False] * count + [True] * SERVER_KILLS.get(what, 0)
        batch.draw.shuffle(of_servers)
        kills += [(what, of_server) for of_server in of_servers]
    for number, (what, of_server) in enumerate(kills):
        # How much this one may let pass, so that the others find something to do.
        rest = sum(other == what for other, _ in kills[number:])
        if what == "releases":
            batch.attempt("the command, which releases", at_image=batch.some(batch.patients // rest))
            continue
        is_fetching = what == "fetches"
        front = batch.source if is_fetching else batch.target
        done = batch.counts()["originals" if is_fetching else "stored"]
        # Two requests for every film; whether a release is there already is asked again.
        at = batch.some(2 * (batch.patients - done) // rest) + (0 if is_fetching else done)
        (batch.kill_server if of_server else batch.kill_command)(front, at, what)
    for _ in range(len(kills)):
        if batch.attempt("nothing"):
            return
    raise RuntimeError("The command does not end; look at what it said.")


def found(batch: Batch, canaries: set[bytes]) -> dict[str, Any]:
    """Return what the other archive and the ledger hold, and how many canaries are in what has left."""
    objects = batch.target.archive.files()
    written = sorted(path.read_bytes() for path in (batch.folder / "work" / "released").glob("*.dcm"))
    requests = batch.target.requests
    sent = b"\n".join(repr(request[:3]).encode() + request[3] for request in requests)
    left = b"\n".join([sent, (batch.folder / "said").read_bytes(), *objects])
    originals = b"\n".join(batch.source.archive.files())
    patients = [_patient(number) for number in range(batch.patients)]
    of_servers = [row for row in batch.rows if str(row["killed"]).startswith("the server")]
    return {
        "patients": batch.patients,
        "image": f"{SIZE}x{SIZE}",
        "kills of the command": sum(row["end"] == "killed" for row in batch.rows),
        "kills of a server": sum(row["end"] == "an error" for row in of_servers),
        "objects stored": len(objects),
        "objects that differ": len(set(objects)),
        "objects as the release has written them": len(set(objects) & set(written)),
        "objects of the release": len(written),
        "releases in the ledger": batch.ledger.summary()["released"],
        "patients who spent the budget of one release": sum(
            batch.ledger.spent(patient) == (EPSILON, 0.0) for patient in patients
        ),
        "problems of the ledger": len(batch.ledger.verify()),
        "requests to the other archive": len(requests),
        "objects sent": sum(method == "POST" for method, *_ in requests),
        "megabytes sent": round(len(sent) / 2**20, 1),
        "canaries": len(canaries),
        "canaries in what was sent, said or stored": sum(canary in left for canary in canaries),
        "canaries in the originals": sum(canary in originals for canary in canaries),
    }


def _patient(number: int) -> str:
    return f"{CANARY}-{number:05d}"


@contextmanager
def started(patients: int, folder: Path) -> Iterator[tuple[Batch, set[bytes]]]:
    """Fill an archive with films, start the other one, and yield the batch, and what must not come out of it."""
    draw, canaries = np.random.default_rng(0), {CANARY.encode(), *(date.encode() for date in DATES.values())}
    for name in ("films", "hospital", "research"):
        (folder / name).mkdir()
    for number in range(patients):
        canaries |= write_film(folder / "films" / f"{number}.dcm", _patient(number), draw)
    archives = [Archive(folder / "hospital"), Archive(folder / "research")]
    try:
        archives[0].store(folder / "films")
        source, target = map(Front, archives)
        with answering(source) as one, answering(target) as other:
            yield Batch(source, target, (one, other), folder, patients), canaries
    finally:
        for archive in archives:
            archive.kill()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/dicomweb_batch.json"))
    parser.add_argument("--patients", type=int, default=1000)
    options = parser.parse_args()
    torch.manual_seed(0)
    # A process that computes in several threads cannot be forked.
    torch.set_num_threads(1)
    begun = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        started(options.patients, Path(folder)) as (batch, canaries),
    ):
        run(batch)
        result = found(batch, canaries)
    result |= {"minutes": round((time.perf_counter() - begun) / 60, 1), "threads": 1}
    print_table(batch.rows)
    print_table([{"what": name, "number": value} for name, value in result.items()])
    write_json(options.out, result | {"attempts": batch.rows})


if __name__ == "__main__":
    main()
