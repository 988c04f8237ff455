# SPDX-License-Identifier: Apache-2.0
"""Small files of every format, with a name planted in their headers that must never come out."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

CANARY = "Mustermann-1954"


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


def series(folder, volume, uid=None):
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
            ImagePositionPatient=[0, 0, float(z)],
            RescaleIntercept=0,
        )
    return folder
