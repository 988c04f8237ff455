# SPDX-License-Identifier: Apache-2.0
"""Releases to a DICOMweb server, and nothing but releases."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import FileDataset
from tqdm import tqdm

from monai_cadp.certificate.document import CertificateError, sha256
from monai_cadp.certificate.folder import CARD, CARDS, PAIRS, FolderFiles, described
from monai_cadp.data.dicom_segmentation import is_segmentation_written_here
from monai_cadp.data.dicom_writing import is_written_here
from monai_cadp.data.dicomweb_server import DicomWebServer
from monai_cadp.data.silence import read_silently, silenced
from monai_cadp.privacy import PrivacyGuarantee

__all__ = ["Stored", "store_release"]

DICOM = ".dcm"
IMAGES, MASKS = (f"{folder}/" for folder in PAIRS)
UNREADABLE = "The released folder could not be read; check its path and its permissions."


@dataclass(frozen=True)
class Stored:
    """How many objects a released folder has, and how many of them the server did not have before."""

    num_objects: int
    num_new: int


def store_release(server: DicomWebServer, folder: str | os.PathLike[str]) -> Stored:
    """Store the DICOM files of a released folder, which are all looked at before the first one is sent.

    The folder must be as a release has written it: every file belongs to a release with a card that states a guarantee,
    and every DICOM file is, to its last byte, one that a release writes for the guarantee of its card
    (:func:`~monai_cadp.data.dicom_writing.is_written_here`), and says that it is synthetic; a segmentation is the one
    of the released series whose number it has
    (:func:`~monai_cadp.data.dicom_segmentation.is_segmentation_written_here`). An original is none of these. Series go
    before their segmentations. What the server has is not sent again: whoever was killed, on either side, starts again.

    Args:
        server: that gets the objects.
        folder: of a release.

    Returns:
        How many there are, and how many were sent.

    Raises:
        ValueError: if the folder holds anything else, or no DICOM; nothing is sent then.
        DicomWebError: if the server does not store an object; what it has so far stays.
    """
    folder = Path(folder)
    digests = _checked(folder)
    series: dict[tuple[str, str], dict[str, str]] = {}
    for name in digests:
        header = _parsed(_read(folder, name, digests))
        series.setdefault((str(header.StudyInstanceUID), str(header.SeriesInstanceUID)), {})[
            str(header.SOPInstanceUID)
        ] = name
    num_new = 0
    with tqdm(total=len(digests), desc="storing", unit="object") as progress:
        for (study, one), names in series.items():
            known = set(server.instances(study, one))
            for instance, name in names.items():
                if instance not in known:
                    server.store(_parsed(_read(folder, name, digests)))
                    num_new += 1
                progress.update()
    return Stored(len(digests), num_new)


def _checked(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every DICOM file of a released folder by its name; raises ValueError for any other one."""
    is_release = False
    try:
        files = FolderFiles.read(folder)
        # Every card is a JSON document with one meaning, then.
        described(files)
        cards = {name: json.loads(content) for name, content in files.documents.items() if name.endswith(CARD)}
        is_release = True
    except (CertificateError, OSError):
        # Either may name a file, which may be called after somebody.
        pass
    if not is_release:
        raise ValueError(
            "The folder is not as a release has written it: a file is missing, or none of its own; give one that "
            "nothing was added to."
        )
    names = [name for name in files.digests if name.endswith(DICOM)]
    if not names:
        raise ValueError("The released folder holds no DICOM; release with the output_format dicom.")
    digests = {name: files.digests[name]["sha256"] for name in names}
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    for name in names:
        content = _read(folder, name, digests)
        if name.startswith(MASKS):
            number = name.removeprefix(MASKS).removesuffix(DICOM)
            series = [_read(folder, one, digests) for one in folders.get(f"{IMAGES}{number}", [])]
            with silenced():
                is_released = is_segmentation_written_here(content, series)
        else:
            guarantee = _stated(cards.get(_card(name), {}))
            with silenced():
                is_released = guarantee is not None and is_written_here(content, guarantee)
        if not is_released:
            raise ValueError(
                "A DICOM file of the folder is not one that a release has written for the guarantee of its card, or "
                "no segmentation of the series that it lies beside; nothing is sent."
            )
    return digests


def _card(name: str) -> str:
    """Return what the card of an image is called."""
    number = name.removeprefix(IMAGES).partition("/")[0].removesuffix(DICOM)
    return f"{CARDS}/{number}{CARD}" if name.startswith(IMAGES) else f"{number}{CARD}"


def _stated(card: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the guarantee of a card, in plain data; None where it states none."""
    try:
        return PrivacyGuarantee.from_dict(card["guarantee"]).to_dict()
    except (KeyError, TypeError, ValueError):
        return None


def _read(folder: Path, name: str, digests: Mapping[str, str]) -> bytes:
    """Return the content of a file that is still what was looked at."""
    content = read_silently((folder / name).read_bytes, UNREADABLE)
    if sha256(content) != digests[name]:
        raise ValueError("A file of the released folder was changed while it was being sent; start again.")
    return content


def _parsed(content: bytes) -> FileDataset:
    with silenced():
        return pydicom.dcmread(io.BytesIO(content))
