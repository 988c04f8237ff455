# SPDX-License-Identifier: Apache-2.0
"""Originals from a DICOMweb server, on the disk of those who may see them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pydicom
from filelock import FileLock
from pydicom.dataset import Dataset
from tqdm import tqdm

from monai_cadp.data.dicomweb_server import DicomWebError, DicomWebQuery, DicomWebServer
from monai_cadp.data.silence import Refusal, read_silently, silenced
from monai_cadp.data.subjects_file import HEADER
from monai_cadp.privacy import ItemId, SubjectId
from monai_cadp.privacy.private_files import OTHERS, sync_folder, write_private

__all__ = ["DATALIST", "SUBJECTS", "Fetched", "fetch_series"]

#: Beside the series: who they are of, for volumes, and the list of all images, for images in two dimensions.
SUBJECTS, DATALIST = "subjects.csv", "datalist.json"
LOCK, PART = ".lock", ".part"
UNWRITABLE = "The folder for originals could not be written; check its space and permissions."
OCCUPIED = "The folder for originals is being filled by another process, or cannot be written; wait for the other one."
UNENCODABLE = "An instance that the server has sent cannot be written as a DICOM file; leave its series out."
# The key of the images that a release takes where no split is named.
RELEASED_KEY = "test"


@dataclass(frozen=True)
class Fetched:
    """What a folder of originals holds.

    Args:
        num_new: series that were not there before.
        num_series: series in all.
        num_images: files in all.
        num_nameless: series that name no patient.
    """

    num_new: int
    num_series: int
    num_images: int
    num_nameless: int


def fetch_series(server: DicomWebServer, query: DicomWebQuery, folder: str | os.PathLike[str]) -> Fetched:
    """Fetch all series that a query means into a folder that its owner alone may look into, each whole or not at all.

    Every series becomes a folder of DICOM files, called by codes of their UIDs (:class:`~monai_cadp.privacy.ItemId`).
    Beside them, ``subjects.csv`` says whose each is, for :class:`~monai_cadp.data.VolumeFiles`, and ``datalist.json``
    lists the images with their subjects, for :class:`~monai_cadp.data.ImageList`; the subject is the PatientID. A file
    is on the disk before it has its name, and so is a series: whoever was killed starts again, and what is complete is
    not fetched a second time.

    Args:
        server: of the query's address.
        query: which series.
        folder: new, or of an earlier call.

    Returns:
        What the folder holds, of this call and earlier ones.

    Raises:
        ValueError: if nothing is found, or the folder may be looked into by others, cannot be written, or is being
            filled by another process.
        DicomWebError: if the server does not send a series whole; what was fetched so far stays.
    """
    folder = Path(folder)
    with _locked(folder):
        found = server.find(query)
        if not found:
            raise ValueError("The query finds no series; look whether its filters mean what they should.")
        num_new = 0
        for study, series in tqdm(found, "fetching", unit="series"):
            target = folder / ItemId.from_uids(study, series).code
            if not target.is_dir():
                _fetch(server, study, series, target)
                num_new += 1
        return Fetched(num_new, *read_silently(lambda: _write_lists(folder), UNWRITABLE))


def _fetch(server: DicomWebServer, study: str, series: str, folder: Path) -> None:
    """Fetch the instances of a series beside its folder, and rename them to it when the last one is there."""
    part = folder.with_name(f".{folder.name}{PART}")
    instances = {f"{ItemId.from_uids(study, series, uid).code}.dcm": uid for uid in server.instances(study, series)}
    if not instances:
        raise DicomWebError(f"The DICOMweb server {server.host} names a series, and no instance of it; ask it again.")
    read_silently(lambda: _prepare(part, instances), UNWRITABLE)
    for name, uid in instances.items():
        if not (part / name).exists():
            content = _encoded(server.retrieve(study, series, uid))
            read_silently(partial(write_private, part / name, content), UNWRITABLE)
    read_silently(lambda: _complete(part, folder), UNWRITABLE)


def _prepare(part: Path, names: Collection[str]) -> None:
    part.mkdir(mode=0o700, exist_ok=True)
    # Of an earlier call: half a file, or an instance that the server has no more.
    for left in part.iterdir():
        if left.name not in names:
            left.unlink()


def _complete(part: Path, folder: Path) -> None:
    if len({_patient(path) for path in part.iterdir()}) > 1:
        raise Refusal("A series names several patients, and would be paid for by one of them; leave it out.")
    part.rename(folder)
    sync_folder(folder.parent)


def _encoded(dataset: Dataset) -> bytes:
    """Return an instance as a file; values that are odd are written as they came, and not talked about."""
    buffer = io.BytesIO()
    read_silently(lambda: dataset.save_as(buffer, enforce_file_format=True), UNENCODABLE)
    return buffer.getvalue()


def _patient(path: Path) -> str | None:
    """Return the patient that a file names, where it names one."""
    with silenced():
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
            patient = str(header.get("PatientID") or "").strip(" \0")
            SubjectId(patient)
            return patient
        except Exception:
            return None


def _write_lists(folder: Path) -> tuple[int, int, int]:
    """Write whose all series of the folder are; return the numbers of series, images, and series without a patient."""
    series = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    images = {path.name: sorted(file.name for file in path.iterdir()) for path in series}
    people = {path.name: _patient(path / images[path.name][0]) for path in series}
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(HEADER)
    named = {name: person for name, person in people.items() if person is not None}
    writer.writerows(named.items())
    # All entries of a list have a subject, or none.
    subjects = {name: {"subject": named[name]} if len(named) == len(people) else {} for name in people}
    entries = [{"image": f"{name}/{file}", **subjects[name]} for name, files in images.items() for file in files]
    write_private(folder / SUBJECTS, rows.getvalue())
    write_private(folder / DATALIST, json.dumps({RELEASED_KEY: entries}, indent=2) + "\n")
    return len(people), len(entries), len(people) - len(named)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder if it is not there, and keep every other process out of it."""
    status = read_silently(lambda: _made(folder), UNWRITABLE)
    if os.name == "posix" and status.st_mode & OTHERS:
        raise ValueError(
            "The folder for originals may be looked into by others than its owner; give a new one, or type chmod 700 "
            "and its name."
        )
    lock = FileLock(folder / LOCK, mode=0o600)
    read_silently(lambda: lock.acquire(timeout=0), OCCUPIED)
    try:
        read_silently(lambda: _remove_halves(folder), UNWRITABLE)
        yield
    finally:
        lock.release()


def _made(folder: Path) -> os.stat_result:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / LOCK).exists() and any(folder.iterdir()):
        raise Refusal("The folder for originals holds something else; give a new one.")
    return folder.stat()


def _remove_halves(folder: Path) -> None:
    """Remove what a killed process has left of a list that it was writing."""
    for name in (SUBJECTS, DATALIST):
        for left in folder.glob(f".{name}.*.tmp"):
            left.unlink()
