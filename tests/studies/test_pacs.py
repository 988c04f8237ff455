# SPDX-License-Identifier: Apache-2.0
"""A series goes through a real archive and back: stored, fetched, released, stored again, read again."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pydicom
import pytest
from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector

from monai_cadp import Privatizer
from monai_cadp.data import BrainCohort, PublicGrid, ReadVolume, VolumeFiles
from monai_cadp.networks import ConditionalINN, ContentBasis
from monai_cadp.privacy import SubsetSelection
from monai_cadp.release import release_folder

pytestmark = pytest.mark.slow

CANARY = "Mustermann-1954"
GRID = PublicGrid((12, 16, 12), spacing=14.4)
PROFILE = "dicomfields_2024b"


@pytest.fixture(scope="module")
def archive(start_archive):
    return start_archive()


@pytest.fixture(scope="module")
def original(tmp_path_factory, files):
    """A series with a name wherever one can stand."""
    volume = BrainCohort(7, 1, spatial_shape=(24, 30, 24), spacing=7.2)[0]["image"][0].numpy()
    folder = tmp_path_factory.mktemp("original") / "series"
    files.series(folder, (900 * volume[::-1, ::-1]).astype(np.int16), pixel_spacing=7.2, step=7.2)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        for name in ("PatientID", "AccessionNumber", "InstitutionName", "StudyDescription", "ReferringPhysicianName"):
            setattr(dataset, name, CANARY[:16])
        dataset.PatientBirthDate, dataset.StudyDate = "19540313", "20210704"
        dataset.save_as(path)
    return folder


@pytest.fixture(scope="module")
def released(archive, original, tmp_path_factory):
    """Stored, fetched, released and stored again; the files as the archive gives them in the end."""
    folder = tmp_path_factory.mktemp("released")
    archive.store(original)
    (stored,) = archive.series()
    (folder / "fetched").mkdir()
    for index, content in enumerate(archive.fetch(stored)):
        (folder / "fetched" / f"{index}.dcm").write_bytes(content)
    inn = ConditionalINN(GRID.spatial_shape, num_classes=2, width=8, num_couplings=2)
    privatizer = Privatizer(inn, SubsetSelection(4.0), ContentBasis.leading(inn, 4), condition=0, unit="volume")
    scans = VolumeFiles(folder / "fetched", ReadVolume(GRID))
    release_folder(privatizer, scans, folder / "out", grid=GRID, volume_format="dicom")
    archive.store(folder / "out" / "release_000001")
    (new,) = archive.series() - {stored}
    return archive.fetch(new)


def test_the_archive_gives_back_the_released_series_whole(released):
    slices = sorted((pydicom.dcmread(io.BytesIO(content)) for content in released), key=lambda s: s.InstanceNumber)
    assert [part.InstanceNumber for part in slices] == list(range(1, GRID.spatial_shape[2] + 1))
    assert len({part.SeriesInstanceUID for part in slices}) == 1
    assert {part.pixel_array.shape for part in slices} == {(GRID.spatial_shape[1], GRID.spatial_shape[0])}
    heights = [float(part.ImagePositionPatient[2]) for part in slices]
    assert np.allclose(np.diff(heights), GRID.spacing)


def test_nothing_that_names_the_patient_is_in_the_archive_a_second_time(released):
    for content in released:
        for named in (CANARY, "19540313", "20210704"):
            assert named.encode() not in content
        # Random UIDs have dozens of digits, in which a year comes up by itself; pixels are numbers as well.
        texts = [
            element for element in pydicom.dcmread(io.BytesIO(content)).iterall() if element.VR not in ("UI", "OW")
        ]
        assert len(texts) > 20 and not [element.tag for element in texts if "1954" in str(element.value)]


def test_no_attribute_of_the_confidentiality_profile_survived(original, released):
    """The table of an independent tool says which attributes may tell who somebody is."""
    table = dicom_anonymization_database_selector(PROFILE)
    protected = {tuple(tag[:2]) for tags in table.values() for tag in tags if len(tag) == 2}
    assert len(protected) > 400 and (0x10, 0x10) in protected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = [pydicom.dcmread(path) for path in original.iterdir()]
    values = {tag: {str(part[tag].value) for part in before if tag in part} for tag in protected}
    compared = 0
    for part in (pydicom.dcmread(io.BytesIO(content)) for content in released):
        for tag, originals in values.items():
            if tag in part and str(part[tag].value):
                compared += 1
                assert str(part[tag].value) not in originals, tag
    assert compared > 0


def test_the_table_would_have_noticed_a_copy(original):
    table = dicom_anonymization_database_selector(PROFILE)
    protected = {tuple(tag[:2]) for tags in table.values() for tag in tags if len(tag) == 2}
    part = pydicom.dcmread(next(original.iterdir()))
    assert {(0x10, 0x10), (0x10, 0x20), (0x08, 0x20), (0x08, 0x18)} <= {tag for tag in protected if tag in part}
