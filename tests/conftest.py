# SPDX-License-Identifier: Apache-2.0
"""What several test files need: errors that are one sentence, small files of every format, archives, one core."""

from __future__ import annotations

import ast
import os
import re
import sqlite3
import warnings
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

# One core for each process, of which there is one a core already: read when NumPy and torch are imported, here and in
# the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from benchmarks.archives import Archive, is_installed
from monai_cadp.handlers import TrackedRun

# A name planted in the headers of files, which must never come out.
CANARY = "Mustermann-1954"

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Files with many slow tests begin first, so that no processor ends up waiting for one of them."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def assert_one_sentence(error: BaseException) -> None:
    """One sentence (a semicolon may join two), ended by a full stop, on one line, and no path in it."""
    (message,) = error.args
    assert re.fullmatch(r"[^\n]+\.", message), message
    assert not re.search(r"\.\s", message), message
    assert not re.search(r"/\w+/\w+|\\\w+\\\w+", message), message


def study_files(path: Path) -> list[str]:
    """The files that make up a study, in the order of the command at the top of the one that is its own."""
    return ast.literal_eval(re.search(r'--config_file "(\[.*?\])"', path.read_text())[1])


@contextmanager
def _refused(kind: type[BaseException], match: str):
    with pytest.raises(kind, match=match) as caught:
        yield
    assert type(caught.value) is kind
    assert_one_sentence(caught.value)


@pytest.fixture(scope="session")
def refused():
    """Context manager ``refused(kind, match)``: the block must raise exactly this kind, in one sentence."""
    return _refused


@pytest.fixture(scope="session")
def files():
    """Writers of small files; each returns the path that it was given."""
    return SimpleNamespace(picture=picture, nifti=nifti, dicom=dicom, series=series)


def picture(path, array):
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path)
    return path


def nifti(path, array, affine=None):
    image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine)
    image.header["descrip"] = CANARY.encode()
    nibabel.save(image, path)
    return path


def dicom(path, pixels=None, **changes):
    # Quiet: some headers are odd on purpose.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
        dataset.PatientName = CANARY
        for name, value in changes.items():
            setattr(dataset, name, value)
        if pixels is not None:
            dataset.Rows, dataset.Columns = pixels.shape
            dataset.PixelData = pixels.astype("<i2").tobytes()
        dataset.save_as(path)
    return path


def series(folder, volume, uid=None, pixel_spacing=0.661468, step=1.0):
    """Axial slices of ``volume`` (x, y, z), x to the left and y to the back, written in an order that is not theirs."""
    folder.mkdir()
    uid = uid or generate_uid()
    for z in range(volume.shape[2]):
        dicom(
            folder / f"{(z * 7) % volume.shape[2]}.dcm",
            pixels=volume[:, :, z].T,
            SeriesInstanceUID=uid,
            SOPInstanceUID=generate_uid(),
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, 0, z * step],
            PixelSpacing=[pixel_spacing, pixel_spacing],
            RescaleIntercept=0,
        )
    return folder


@pytest.fixture(scope="session", autouse=True)
def tables_of_mlflow():
    """MLflow takes a new database through seventy migrations, for seconds; in a process, the first one alone.

    Those after it get the tables that the first one had in the end, and everything else from MLflow.
    """
    made: list[str] = []
    open_store = TrackedRun.open_store

    def opened(tracked):
        from mlflow.store.db import utils

        migrate = utils._initialize_tables

        def initialize(engine):
            if engine.dialect.name != "sqlite" or not made:
                migrate(engine)
            else:
                with closing(sqlite3.connect(engine.url.database)) as database:
                    database.executescript("\n".join(made))
            if engine.dialect.name == "sqlite" and not made:
                with closing(sqlite3.connect(engine.url.database)) as database:
                    made.extend(database.iterdump())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(utils, "_initialize_tables", initialize)
            return open_store(tracked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrackedRun, "open_store", opened)
        yield


@pytest.fixture(scope="module")
def start_archive(tmp_path_factory):
    """Start an archive, and stop it at the end."""
    if not is_installed() and not os.environ.get("CI"):
        pytest.skip("Orthanc and dcmtk are not installed (Debian: apt-get install orthanc orthanc-dicomweb dcmtk)")
    started = []

    def start():
        started.append(Archive(tmp_path_factory.mktemp("orthanc")))
        return started[-1]

    yield start
    for archive in started:
        archive.kill()
