# SPDX-License-Identifier: Apache-2.0
"""Scans wherever they lie: a file, the folder of a DICOM series, or a folder of both kinds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_cadp.data.dicom_preamble import is_dicom
from monai_cadp.data.file_items import file_items
from monai_cadp.data.folder_entries import entries_of, is_empty, is_note, unclaimed
from monai_cadp.data.silence import Refusal, read_silently
from monai_cadp.data.subjects import subjects_by_name
from monai_cadp.data.subjects_file import subjects_by_file
from monai_cadp.data.volume_reading import ReadVolume
from monai_cadp.privacy import SubjectId

__all__ = ["VolumeFiles", "volumes_among"]

UNREADABLE = "The input could not be read; check its path and its permissions."
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr")
# Of what lies beside scans and is none.
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


class VolumeFiles(Dataset):
    r"""Items {"image": float32 (1, \*spatial) in [0, 1]} of one scan or of a folder of scans.

    A folder whose own files are DICOM is one series. Any other folder holds NIfTI, MetaImage or NRRD files, and sub
    folders with one DICOM series each. Notes such as tables, texts and pictures, empty folders, and what systems leave
    in folders (hidden files, ``Thumbs.db``, ``__MACOSX``, ``#recycle``, folders whose names begin with ``@``) are
    passed over; whatever else might be a scan is refused. Scans are read when an item is asked for.

    Args:
        source: the file or folder.
        read: brings a scan to the public grid.
        subject: whose scans all of these are, a text; items have a "subject" then, and an "item", by which a ledger
            knows the scan: a code of a DICOM series' UIDs, or of where the file really lies, however the way to it was
            typed. The names of scans are often alike (``visit1/scan.nii.gz`` and ``visit2/scan.nii.gz``), so all of the
            way counts: a file that was moved is another scan, and paid for again.
        subject_pattern: regular expression that finds, as its first group, the subject in the name of a scan's file or
            folder without its ending, where scans are of several people.
        subjects: CSV file with the columns ``file`` and ``subject``, in place of a pattern; see
            :func:`~monai_cadp.data.subjects_file.subjects_by_file`.
        label: class of all these scans, for training; items have a "label" then.

    Raises:
        ValueError: if there is no scan, or the same scan twice, or something that might be one; if two of subject,
            pattern and file of subjects are given, the subject is no text, or one of them does not fit a name; when an
            item is read, as :class:`ReadVolume`.

    Example:
        >>> import tempfile, nibabel, numpy
        >>> from monai_cadp.data import PublicGrid
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scan = nibabel.Nifti1Image(numpy.random.rand(8, 8, 8).astype("float32"), numpy.eye(4))
        ...     nibabel.save(scan, f"{folder}/scan.nii.gz")
        ...     scans = VolumeFiles(folder, ReadVolume(PublicGrid((4, 4, 4), spacing=2.0)), subject="patient 7")
        ...     scans[0]["image"].shape, scans[0]["subject"]
        (torch.Size([1, 4, 4, 4]), 'patient 7')
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        read: ReadVolume,
        subject: str | None = None,
        subject_pattern: str | None = None,
        subjects: str | os.PathLike[str] | None = None,
        label: int | None = None,
    ) -> None:
        if subject is not None and subject_pattern is not None:
            raise ValueError("A subject and a subject_pattern were given; give one of them, or none.")
        if subjects is not None and (subject is not None or subject_pattern is not None):
            raise ValueError("A file of subjects was given beside another source of them; give one of them, or none.")
        if subject is not None:
            SubjectId(subject)
        self.input_folders = [Path(source)]
        self._paths, self._read = read_silently(lambda: _scans(Path(source)), UNREADABLE), read
        self._label: dict[str, Tensor] = {} if label is None else {"label": torch.tensor(label)}
        # The name of "." is that of its folder.
        paths = [os.path.abspath(path) for path in self._paths]
        items = file_items([os.path.realpath(path) for path in paths], None, "scans, in the order of their names,")
        self._subjects: Sequence[dict[str, str]] = [{}] * len(paths)
        people: Sequence[str] | None = None
        if subject is not None:
            people = [subject] * len(paths)
        elif subject_pattern is not None:
            people = subjects_by_name(paths, subject_pattern)
        elif subjects is not None:
            people = subjects_by_file([os.path.basename(path) for path in paths], subjects)
        if people is not None:
            self._subjects = [{"subject": one, "item": item} for one, item in zip(people, items, strict=True)]

    def __len__(self) -> int:
        """Return the number of scans."""
        return len(self._paths)

    @property
    def file_names(self) -> list[str]:
        """Path of every scan, for its curator only."""
        return [str(path) for path in self._paths]

    def picture(self, index: int) -> np.ndarray | None:
        """Return three central slices of a scan for its curator only, as :meth:`ReadVolume.picture`."""
        return self._read.picture(self._paths[index])

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Read one scan; returns it, and its class and subject where there is one."""
        return {"image": self._read(self._paths[index])} | self._label | self._subjects[index]


def _scans(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise Refusal(
            "The input does not exist, or is neither file nor folder; give a NIfTI file, the folder of a DICOM "
            "series, or a folder of either."
        )
    entries = entries_of(source)
    if any(is_dicom(path) for path in entries if not is_note(path)):
        return [source]
    scans, others = volumes_among(entries)
    others = [path for path in others if not is_note(path) and not path.name.lower().endswith(PICTURE_SUFFIXES)]
    if others:
        raise Refusal(
            f"{len(others)} files of a folder are neither NIfTI, MetaImage or NRRD nor notes; convert what is a scan, "
            "and move the others away."
        )
    if not scans:
        raise Refusal("The folder holds no scan; expected NIfTI files, or folders with one DICOM series each.")
    return scans


def volumes_among(entries: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the volumes and folders among the entries of a folder, and what is none; empty folders are neither.

    Example:
        >>> volumes_among([Path("a.mhd"), Path("a.raw"), Path("b.raw"), Path("c.nii")])[1]
        [PosixPath('b.raw')]
    """
    entries = [path for path in entries if not is_empty(path)]
    volumes = [path for path in entries if path.is_dir() or path.name.lower().endswith(VOLUME_SUFFIXES)]
    return volumes, unclaimed(entries, volumes)
