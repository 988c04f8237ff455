# SPDX-License-Identifier: Apache-2.0
"""Released images, in files that tell nothing about the originals but what was released."""

from __future__ import annotations

import gzip
import importlib.metadata
import io
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, cast

import nibabel
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from monai_cadp.data import split_masks
from monai_cadp.data.stage import Stage, check_output
from monai_cadp.extras import extra

__all__ = ["ReleasedFolder", "nameless_errors", "software_versions"]

# Any fixed moment does; this one is within the range of every file system and archive format.
MODIFIED_AT = 946684800
VOLUME_FORMATS = ("nifti", "dicom")
IMAGE_FORMATS = ("png", "dicom")
SOFTWARE = ("monai_cadp", "monai", "torch", "FrEIA")


class ReleasedFolder:
    r"""A new folder of released images, complete or not there at all.

    Images in two dimensions become 8-bit PNG files, or new DICOM objects of a study each; volumes float32 NIfTI files
    with a fresh header, or folders with a new DICOM series. Beside each ``release_000001.png`` lies a card
    ``release_000001_privacy.json`` with the guarantee, and ``summary.json`` counts them. Volumes with masks become
    ``images/0001.nii.gz`` and ``labels/0001.nii.gz``, with ``cards/0001_privacy.json``; or, as DICOM, the slices of
    ``images/0001`` and the segmentation ``labels/0001.dcm``, which refers to them. Where all have labels or masks,
    ``datalist.json`` lists the images with theirs, as :class:`~monai_cadp.data.ImageList` and MONAI's
    ``load_decathlon_datalist`` read it. Every byte is made from what is passed to :meth:`write`: no name, header or
    date of a source can get in.

    Numbers are a random permutation from the operating system, drawn before anything is written, and files reach the
    final folder in the order of their numbers with one fixed time of modification: neither names, times nor places on
    the disk tell the order of the source. Files are collected in a temporary folder and renamed into place when the
    context ends without an error; otherwise everything is removed, by the next attempt if the process was killed.

    Args:
        output_dir: the folder; it must not exist, or be empty. Missing parents are made.
        num_expected: how many images will be written, exactly; it is public.
        affine: of volumes, from indices to millimetres (4, 4), of a public grid; the identity if left out.
        volume_format: of volumes, "nifti" or "dicom".
        drawing: how releases are drawn, in plain data, for every card; None to state nothing.
        set_guarantee: plain data of what all releases promise together to those who see nothing else; cards and the
            summary begin with it. None to state nothing.
        left_out: images that could not be read and are not among them, for every card; public.
        num_mask_classes: with the background, of the masks that volumes hold as their last channels; None for images
            without masks.
        image_format: of images in two dimensions, "png" or "dicom".

    Raises:
        ValueError: if the folder exists and is not empty, or can never be made, ``num_expected`` is not positive, or
            the format is unknown; nothing is written then.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with ReleasedFolder(f"{parent}/released", num_expected=1) as folder:
        ...         folder.write(torch.rand(1, 8, 8), guarantee={"epsilon": 8.0, "delta": 0.0}, label=3)
        ...     sorted(os.listdir(f"{parent}/released"))
        ['datalist.json', 'release_000001.png', 'release_000001_privacy.json', 'summary.json']
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        num_expected: int,
        affine: np.ndarray | None = None,
        volume_format: str = "nifti",
        drawing: Mapping[str, Any] | None = None,
        set_guarantee: Mapping[str, Any] | None = None,
        left_out: int = 0,
        num_mask_classes: int | None = None,
        image_format: str = "png",
    ) -> None:
        if volume_format not in VOLUME_FORMATS:
            raise ValueError(f"volume_format is {volume_format!r}; expected one of {', '.join(VOLUME_FORMATS)}.")
        if image_format not in IMAGE_FORMATS:
            raise ValueError(f"image_format is {image_format!r}; expected one of {', '.join(IMAGE_FORMATS)}.")
        if "dicom" in (volume_format, image_format):
            # Before anything is spent.
            _dicom_writers()
        self._affine = np.eye(4) if affine is None else np.asarray(affine, dtype=float)
        self._volume_format, self._image_format = volume_format, image_format
        self._num_mask_classes = num_mask_classes
        if num_expected < 1:
            raise ValueError(f"num_expected is {num_expected}; expected the positive number of images to be written.")
        self.output_dir = Path(output_dir).absolute()
        self.num_expected = num_expected
        self._drawing = None if drawing is None else dict(drawing)
        self._whole = {} if set_guarantee is None else {"set_guarantee": json.loads(_checked_guarantee(set_guarantee))}
        self._left_out = {"left_out": left_out} if left_out else {}
        self._refuse_existing()
        self._stage: Stage | None = None

    def __enter__(self) -> ReleasedFolder:
        """Make the temporary folder and draw the order."""
        self._refuse_existing()
        self._numbers = list(range(1, self.num_expected + 1))
        secrets.SystemRandom().shuffle(self._numbers)
        self._shape: tuple[int, ...] | None = None
        self._labels: Counter[str] = Counter()
        self._listed: list[dict[str, Any]] = []
        self._guarantees: Counter[str] = Counter()
        self._software = software_versions()
        with nameless_errors():
            self._stage = Stage(self.output_dir)
            (self._stage.path / "drafts").mkdir(mode=0o700)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Move the complete folder into place, or remove everything."""
        stage, self._stage = self._stage, None
        if stage is None:
            return
        try:
            if error_type is None:
                self._finish(stage.path)
        finally:
            stage.remove()

    def write(
        self,
        image: Tensor,
        guarantee: Mapping[str, Any],
        label: int | list[float] | Tensor | None = None,
        picture: np.ndarray | None = None,
    ) -> None:
        r"""Add one released image.

        Args:
            image: (C, \*spatial), in two dimensions with 1 or 3 channels, all images of one shape. Values outside [0,
                1] are clipped.
            guarantee: plain data that states the privacy guarantee of this release, as ``PrivacyGuarantee.to_dict()``
                returns it.
            label: the released (public or privatized) label: a class index or a vector; None to release none.
            picture: of the release, pixels (height, width, 3), uint8, to lie beside it as ``*_preview.png``.

        Raises:
            RuntimeError: if called outside of the context.
            ValueError: if there are more images than expected, the image has another shape, holds NaN or infinity, or
                the guarantee or label is not plain data.
            OSError: if the file could not be written; the error names no file.
        """
        if self._stage is None:
            raise RuntimeError("An image was written to a closed folder; use it in a with statement.")
        if not self._numbers:
            raise ValueError(f"More than the {self.num_expected} expected images were written; raise num_expected.")
        array = _checked_array(image)
        if self._shape is not None and array.shape != self._shape:
            raise ValueError(f"A released image has shape {array.shape}; expected {self._shape} as before.")
        label = _plain_label(label)
        statement = _checked_guarantee(guarantee)
        card = {
            **self._whole,
            "guarantee": json.loads(statement),
            "shape": list(array.shape),
            "software": self._software,
            **({} if label is None else {"label": label}),
            **({} if self._drawing is None else {"drawing": self._drawing}),
            **self._left_out,
        }
        number = self._numbers[-1]
        if self._num_mask_classes is None:
            name = before = f"release_{number:06d}"
            encoded = self._encoded(array, json.loads(statement))
            contents = {f"{name}{suffix}": content for suffix, content in encoded.items()}
        else:
            name, before = f"{number:04d}", f"cards/{number:04d}"
            contents = self._encoded_pair(array, name, json.loads(statement))
        if picture is not None:
            contents[f"{before}_preview.png"] = _png(picture)
        contents[f"{before}_privacy.json"] = _json(card).encode()
        with nameless_errors():
            for path, content in contents.items():
                draft = self._stage.path / "drafts" / path
                if "/" in path:
                    draft.parent.mkdir(parents=True, exist_ok=True)
                draft.write_bytes(content)
        self._numbers.pop()
        self._shape = array.shape
        self._guarantees[statement] += 1
        if isinstance(label, int):
            self._labels[str(label)] += 1
        if self._num_mask_classes is None:
            # A series is known by its folder.
            entry: dict[str, Any] = {"image": next(iter(contents)).partition("/")[0]}
        else:
            endings = ("", ".dcm") if self._volume_format == "dicom" else (".nii.gz", ".nii.gz")
            entry = {"image": f"images/{name}{endings[0]}", "mask": f"labels/{name}{endings[1]}"}
        if label is not None:
            entry["label"] = label
        if len(entry) > 1:
            self._listed.append(entry)

    def _finish(self, stage: Path) -> None:
        if self._numbers:
            raise ValueError(
                f"{self.num_expected - len(self._numbers)} of {self.num_expected} expected images were written; "
                "nothing was released: write all, or state the right num_expected."
            )
        summary: dict[str, Any] = {
            **self._whole,
            "count": self.num_expected,
            **self._left_out,
            "guarantees": [
                {"count": count, "guarantee": json.loads(text)} for text, count in sorted(self._guarantees.items())
            ],
        }
        if self._labels:
            summary["labels"] = {label: self._labels[label] for label in sorted(self._labels, key=int)}
        made = {"summary.json": summary}
        if len(self._listed) == self.num_expected:
            made["datalist.json"] = {"training": sorted(self._listed, key=itemgetter("image"))}
        self._refuse_existing()
        with nameless_errors():
            for name, content in made.items():
                (stage / "drafts" / name).write_text(_json(content), encoding="utf-8")
            final = stage / "final"
            final.mkdir()
            for draft in sorted(path for path in (stage / "drafts").rglob("*") if path.is_file()):
                # A new file, not a renamed one: inode numbers and change times can only be made to follow names.
                new = final / draft.relative_to(stage / "drafts")
                new.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(draft, new)
                os.utime(new, (MODIFIED_AT, MODIFIED_AT))
            for folder in final.rglob("*"):
                if folder.is_dir():
                    os.utime(folder, (MODIFIED_AT, MODIFIED_AT))
            # Before the folder appears: their times of creation tell the order of the source.
            shutil.rmtree(stage / "drafts")
            os.utime(final, (MODIFIED_AT, MODIFIED_AT))
            self.output_dir.parent.mkdir(parents=True, exist_ok=True)
            if self.output_dir.is_dir():
                self.output_dir.rmdir()
            final.rename(self.output_dir)

    def _encoded(self, array: np.ndarray, guarantee: Mapping[str, Any]) -> dict[str, bytes]:
        """Return the files of an image by what follows its name in theirs."""
        channels_last = np.ascontiguousarray(array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1))
        if array.ndim == 3:
            pixels = (channels_last * 255).round().astype(np.uint8)
            if self._image_format == "dicom":
                return {".dcm": _dicom_writers().picture(pixels, guarantee)}
            return {".png": _png(pixels)}
        if self._volume_format == "dicom":
            if array.shape[0] != 1:
                raise ValueError(f"A released volume has {array.shape[0]} channels; DICOM series take one.")
            slices = _dicom_writers().series(array[0], self._affine, guarantee)
            return {f"/slice_{index:04d}.dcm": content for index, content in enumerate(slices, 1)}
        return {".nii.gz": self._nifti(channels_last)}

    def _encoded_pair(self, array: np.ndarray, name: str, guarantee: Mapping[str, Any]) -> dict[str, bytes]:
        """Return the files of a volume (C, a, b, c) and its mask by their paths."""
        if array.ndim != 4:
            raise ValueError(f"A released image with a mask has shape {array.shape}; expected a volume (C, a, b, c).")
        num_classes = cast(int, self._num_mask_classes)
        image, mask = (part[0].numpy() for part in split_masks(torch.from_numpy(array)[None], num_classes))
        classes = mask[0].astype(np.uint8)
        encoded = self._encoded(image, guarantee)
        if self._volume_format == "dicom":
            labels = {".dcm": _dicom_writers().masks(classes, list(encoded.values()), num_classes)}
        else:
            labels = {".nii.gz": self._nifti(classes)}
        return {
            **{f"images/{name}{suffix}": content for suffix, content in encoded.items()},
            **{f"labels/{name}{suffix}": content for suffix, content in labels.items()},
        }

    def _nifti(self, voxels: np.ndarray) -> bytes:
        volume = nibabel.Nifti1Image(voxels, self._affine)
        volume.header.set_xyzt_units("mm")
        # Packed here, not by nibabel: the gzip header would hold the time and the name.
        return gzip.compress(volume.to_bytes(), mtime=0)

    def _refuse_existing(self) -> None:
        check_output(self.output_dir)
        if self.output_dir.is_symlink() or (self.output_dir.exists() and not self.output_dir.is_dir()):
            raise ValueError("The output folder's path is a file or a link; give a new folder.")
        if self.output_dir.is_dir() and any(self.output_dir.iterdir()):
            raise ValueError("The output folder is not empty; give a new folder, releases are never mixed.")


class _DicomWriters(NamedTuple):
    """What writes volumes, images in two dimensions, and masks."""

    series: Callable[..., list[bytes]]
    picture: Callable[..., bytes]
    masks: Callable[..., bytes]


def _dicom_writers() -> _DicomWriters:
    """Return the writers, whose libraries are an extra."""
    with extra("dicom", "Writing DICOM"):
        from monai_cadp.data.dicom_segmentation import dicom_segmentation
        from monai_cadp.data.dicom_writing import dicom_picture, dicom_series
    return _DicomWriters(dicom_series, dicom_picture, dicom_segmentation)


@contextmanager
def nameless_errors() -> Iterator[None]:
    """Raise errors of the file system anew, without the path that they name."""
    try:
        yield
    except OSError:
        error = OSError("The released files could not be written; check space and permissions of the output folder.")
        try:
            raise error from None
        finally:
            # A suppressed inner error still holds the path.
            error.__context__ = None


def software_versions() -> dict[str, str]:
    """Return the versions of what a release was made with, by name."""
    return {name: _version(name) for name in SOFTWARE}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"


def _json(content: Mapping[str, Any]) -> str:
    ordered = json.loads(json.dumps(content, sort_keys=True, allow_nan=False))
    # What is promised of the whole set comes first.
    leading = {name: ordered.pop(name) for name in ("set_guarantee",) if name in ordered}
    return json.dumps(leading | ordered, indent=2) + "\n"


def _checked_guarantee(guarantee: Mapping[str, Any]) -> str:
    text = ""
    try:
        text = json.dumps(dict(guarantee), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError):
        pass
    if text in ("", "{}"):
        raise ValueError("The guarantee is empty or not plain data; expected the dictionary of a PrivacyGuarantee.")
    return text


def _checked_array(image: Tensor) -> np.ndarray:
    array = image.detach().as_subclass(torch.Tensor).cpu().float().numpy()
    if array.ndim not in (3, 4) or array.size == 0 or (array.ndim == 3 and array.shape[0] not in (1, 3)):
        raise ValueError(
            f"A released image has shape {array.shape}; expected (1, H, W), (3, H, W) or (C, three sizes)."
        )
    if not np.isfinite(array).all():
        raise ValueError("A released image holds NaN or infinity; expected values in [0, 1].")
    return array.clip(0, 1)


def _plain_label(label: int | list[float] | Tensor | None) -> int | list[float] | None:
    plain = label.tolist() if isinstance(label, Tensor | np.ndarray | np.generic) else label
    if plain is None or (isinstance(plain, int) and not isinstance(plain, bool)):
        return plain
    if isinstance(plain, list) and plain and all(isinstance(value, int | float) for value in plain):
        values = [float(value) for value in plain]
        if np.isfinite(values).all():
            return values
    raise ValueError("A label is neither a class index nor a vector of finite numbers; expected one of them, or None.")


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
