# SPDX-License-Identifier: Apache-2.0
"""Volumes of any organ with the masks of what they show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from monai_cadp.data.datalist import checked_entries, labels_of, load_datalist
from monai_cadp.data.dicom_preamble import is_dicom
from monai_cadp.data.file_items import file_items
from monai_cadp.data.folder_entries import entries_of, is_note
from monai_cadp.data.labelled_volume_reading import ReadLabelledVolume
from monai_cadp.data.silence import Refusal, read_silently
from monai_cadp.data.source import DATALIST_KEYS
from monai_cadp.data.subjects import subjects_by_name, without_ending
from monai_cadp.data.volume_files import volumes_among

__all__ = ["LabelledVolumes"]

UNREADABLE = "The input could not be read; check its path and its permissions."
PAIR = ("image", "mask")
FOLDERS = ("images", "labels")


class LabelledVolumes(Dataset):
    r"""Items {"image": float32 (1, \*spatial) in [0, 1], "mask": int64 (1, \*spatial), "label": ..., "subject": ...}.

    The source is a JSON file with MONAI datalists of {"image": path, "mask": path}, whose entries may have a "label" (a
    class index, or a list of numbers) and a "subject", all or none; or a folder with ``images/`` and ``labels/``, whose
    files have the same names but for their endings. A volume is a NIfTI, MetaImage or NRRD file, a folder with one
    DICOM series, or a DICOM file of many frames; a mask may be a DICOM segmentation. Nothing is left out in silence:
    whatever has no partner, or is no volume, is refused, but for notes and what systems leave in folders, as in
    :class:`VolumeFiles`. Files are read when an item is asked for.

    Args:
        source: the JSON file or the folder.
        read: brings an image and its mask to the public grid.
        datalist_key: list of a JSON file; "training", "validation" or "test" by the split if left out.
        subject_pattern: regular expression whose first group is the subject in a file's name, for folders. Items have
            an "item" beside a "subject", by which a ledger knows the volume.
        split: "train", "val" or "test"; a folder is one set, and taken whole for whichever.

    Raises:
        ValueError: if there is no volume, the same one twice, one without a mask or a mask without one, or a parameter
            does not belong to the source; when an item is read, as :class:`ReadLabelledVolume`. Errors never hold a
            path or a name.

    Example:
        >>> import tempfile, nibabel, numpy
        >>> from monai_cadp.data import PublicGrid
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part, values in (("images", numpy.random.rand(8, 8, 8)), ("labels", numpy.ones((8, 8, 8)))):
        ...         os.mkdir(f"{folder}/{part}")
        ...         volume = nibabel.Nifti1Image(values.astype("float32"), numpy.eye(4))
        ...         nibabel.save(volume, f"{folder}/{part}/a.nii.gz")
        ...     volumes = LabelledVolumes(folder, ReadLabelledVolume(PublicGrid((4, 4, 4), spacing=2.0), 2))
        ...     volumes[0]["image"].shape, volumes[0]["mask"].unique().tolist()
        (torch.Size([1, 4, 4, 4]), [1])
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        read: ReadLabelledVolume,
        datalist_key: str | None = None,
        subject_pattern: str | None = None,
        split: str = "train",
    ) -> None:
        if split not in DATALIST_KEYS:
            raise ValueError(f"The split is {split!r}; expected one of {', '.join(DATALIST_KEYS)}.")
        path, self._read = Path(source), read
        if not os.path.exists(path):
            raise ValueError(
                "The input does not exist or may not be read; give a folder with images/ and labels/, or a datalist "
                ".json."
            )
        is_folder = read_silently(path.is_dir, UNREADABLE)
        self._labels: list[Tensor] = []
        self._subjects: Sequence[str] = []
        if is_folder:
            if datalist_key is not None:
                raise ValueError(
                    "A datalist_key was given, but the source is a folder, which is one set; leave the key out, or "
                    "give a datalist .json."
                )
            self.input_folders = [path / folder for folder in FOLDERS]
            base, pairs = path, read_silently(lambda: _pairs(path), UNREADABLE)
            if subject_pattern is not None:
                self._subjects = subjects_by_name([image for image, _ in pairs], subject_pattern)
        else:
            if subject_pattern is not None:
                raise ValueError('A subject_pattern was given, but a datalist has "subject"; leave the pattern out.')
            entries = checked_entries(load_datalist(path, datalist_key or DATALIST_KEYS[split]), PAIR)
            base, pairs = path.parent, [(str(entry["image"]), str(entry["mask"])) for entry in entries]
            self._labels = labels_of(entries)
            self._subjects = [entry["subject"] for entry in entries if "subject" in entry]
        self._pairs = [(os.path.join(base, image), os.path.join(base, mask)) for image, mask in pairs]
        order = "files in the order of their names," if is_folder else "entries of the datalist, in their order,"
        self._items = file_items([image for image, _ in self._pairs], base, order)

    def __len__(self) -> int:
        """Return the number of volumes."""
        return len(self._pairs)

    @property
    def file_names(self) -> list[str]:
        """Path of every volume, for its curator only."""
        return [image for image, _ in self._pairs]

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Read one volume and its mask; returns them with label and subject, where there are any."""
        image, mask = self._read(*self._pairs[index])
        item: dict[str, Tensor | str] = {"image": image, "mask": mask}
        if self._labels:
            item["label"] = self._labels[index].clone()
        if self._subjects:
            item |= {"subject": self._subjects[index], "item": self._items[index]}
        return item


def _pairs(root: Path) -> list[tuple[str, str]]:
    """Return the files of images and masks, relative to their folder, in the order of the names of images."""
    files = [_named(root / folder) for folder in FOLDERS]
    alone = len(files[0].keys() ^ files[1].keys())
    if alone:
        raise Refusal(
            f"{alone} files in images/ and labels/ have no partner of the same name in the other folder; add what is "
            "missing, or move them away."
        )
    if not files[0]:
        raise Refusal("The folder holds no volume; expected files in images/ and labels/.")
    return [
        (os.path.join(FOLDERS[0], image), os.path.join(FOLDERS[1], files[1][name])) for name, image in files[0].items()
    ]


def _named(folder: Path) -> dict[str, str]:
    """Return the names of the volumes of a folder, by these names without ending."""
    if not folder.is_dir():
        raise Refusal("The input is neither a folder with images/ and labels/ nor a datalist .json; give one of them.")
    volumes, others = volumes_among([path for path in entries_of(folder) if not is_note(path)])
    # Of many frames: a volume, or the segments of one.
    frames = [path for path in others if is_dicom(path)]
    named = {without_ending(path.name): path.name for path in sorted([*volumes, *frames])}
    left = len(volumes) + len(others) - len(named)
    if left:
        raise Refusal(
            f"{left} files in images/ or labels/ are no volumes, or have the name of another one but for the ending; "
            "move them away."
        )
    return named
