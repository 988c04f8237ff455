# SPDX-License-Identifier: Apache-2.0
"""From an image file to its voxels, and to nothing else that the file holds."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK
from nibabel.orientations import apply_orientation, io_orientation
from PIL import Image, ImageOps
from pydicom.pixels import apply_color_lut, apply_rescale, pixel_array

__all__ = ["IMAGE_SUFFIXES", "DecodedImage", "decode_image"]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class DecodedImage:
    """The voxels of one file in the file's own units, and what is needed to read them.

    Args:
        voxels: float32 array (C, \\*spatial).
        format_range: smallest and largest value that the file format can hold, where that is a useful scale (pictures);
            None where it is not (NIfTI, DICOM).
        is_color: whether three channels are red, green and blue.
        is_inverted: whether small values are bright.
    """

    voxels: np.ndarray
    format_range: tuple[float, float] | None = None
    is_color: bool = False
    is_inverted: bool = False


class _Refusal(Exception):
    """A sentence that is safe to show."""


def decode_image(path: str | os.PathLike[str], spatial_dims: int) -> DecodedImage:
    r"""Decode a picture, a NIfTI, DICOM, MetaImage or NRRD file, or a folder that holds one DICOM series.

    Volumes whose file states an orientation are flipped and permuted to point right, anterior, superior. Images in two
    dimensions and multi-frame DICOM files keep the order of the file. Nothing is interpolated.

    Args:
        path: the file, or the folder of a DICOM series.
        spatial_dims: 2 or 3, the number of dimensions that is expected.

    Returns:
        The decoded image, voxels (C, \*spatial).

    Raises:
        ValueError: if the file is missing, damaged, of an unknown format, not numeric, or has another number of
            dimensions. The error names no file, and has no inner error that does.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (5, 4)).save(f"{folder}/a.png")
        ...     decode_image(f"{folder}/a.png", spatial_dims=2).voxels.shape
        (1, 4, 5)
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"An image was given as {type(path).__name__}; expected the path of a file.")
    reason = "The image file could not be decoded: it is damaged or of another format; replace or remove it."
    # The refusal is raised after the except clauses: an inner error, even a suppressed one, may hold the path.
    # Warnings may hold it too, those about files that a library left open even after the error is gone.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            decoded = _decode(Path(path), spatial_dims)
            _check(decoded.voxels, spatial_dims)
            return decoded
        except _Refusal as refusal:
            reason = str(refusal)
        except Exception:
            pass
    raise ValueError(reason)


def _decode(path: Path, spatial_dims: int) -> DecodedImage:
    if not path.exists():
        raise _Refusal("An image file does not exist or may not be read; check the paths and their base folder.")
    if path.is_dir():
        return _decode_dicom_series(path)
    name = path.name.lower()
    for suffix, decoder in DECODERS.items():
        if name.endswith(suffix):
            return decoder(path, spatial_dims)
    if pydicom.misc.is_dicom(path):
        return _decode_dicom(path, spatial_dims)
    raise _Refusal(f"An image file has an unknown format; expected DICOM or one of {', '.join(DECODERS)}.")


def _check(voxels: np.ndarray, spatial_dims: int) -> None:
    if voxels.ndim != spatial_dims + 1:
        raise _Refusal(
            f"An image has {voxels.ndim - 1} spatial dimensions; expected {spatial_dims}, as many as in spatial_shape."
        )
    if voxels.size == 0:
        raise _Refusal("An image file holds no voxels; replace or remove it.")


def _numeric(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise _Refusal("An image file holds values that are not real numbers; expected integers or floats.")
    return array.astype(np.float32)


def _decode_picture(path: Path, spatial_dims: int) -> DecodedImage:
    with Image.open(path) as stored:
        if getattr(stored, "n_frames", 1) > 1:
            raise _Refusal("A picture file holds several frames; expected one image a file.")
        picture = ImageOps.exif_transpose(stored)
        if picture.mode == "F":
            return DecodedImage(_numeric(np.asarray(picture))[None])
        if picture.mode.startswith("I"):
            return DecodedImage(_numeric(np.asarray(picture))[None], format_range=(0.0, 65535.0))
        is_color = picture.mode not in ("1", "L", "LA", "La")
        array = _numeric(np.asarray(picture.convert("RGB" if is_color else "L")))
    voxels = np.moveaxis(array, -1, 0) if is_color else array[None]
    return DecodedImage(voxels, format_range=(0.0, 255.0), is_color=is_color)


def _decode_nifti(path: Path, spatial_dims: int) -> DecodedImage:
    image = nibabel.load(path)
    array = _numeric(np.asanyarray(image.dataobj))  # type: ignore[attr-defined]
    if array.ndim == 5 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    if array.ndim in (3, 4) and spatial_dims == 2 and array.shape[2] == 1:
        array = array[:, :, 0]
    elif array.ndim in (3, 4) and spatial_dims == 3:
        array = apply_orientation(array, io_orientation(image.affine))  # type: ignore[attr-defined]
    has_channels = array.ndim == spatial_dims + 1 and (spatial_dims == 3 or image.ndim == 4)  # type: ignore[attr-defined]
    return DecodedImage(np.moveaxis(array, -1, 0) if has_channels else array[None])


def _decode_itk(path: Path, spatial_dims: int) -> DecodedImage:
    image = SimpleITK.ReadImage(str(path))
    array = _numeric(SimpleITK.GetArrayFromImage(image))
    voxels = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    if image.GetDimension() == 3:
        voxels = voxels.transpose(0, 3, 2, 1)
        voxels = _to_ras(voxels, np.reshape(image.GetDirection(), (3, 3)))
    return DecodedImage(voxels)


def _decode_dicom(path: Path, spatial_dims: int) -> DecodedImage:
    dataset = pydicom.dcmread(path)
    array = pixel_array(dataset)
    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        array = apply_color_lut(array, dataset)
    is_color = photometric == "PALETTE COLOR" or int(dataset.get("SamplesPerPixel", 1)) == 3
    array = _numeric(array if is_color else apply_rescale(array, dataset))
    return DecodedImage(
        np.moveaxis(array, -1, 0) if is_color else array[None],
        is_color=is_color,
        is_inverted=photometric == "MONOCHROME1",
    )


def _decode_dicom_series(folder: Path) -> DecodedImage:
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    if len(headers) < 2 or len({str(header.SeriesInstanceUID) for header in headers}) != 1:
        raise _Refusal("A folder does not hold one DICOM series of several slices; give every series its own folder.")
    across, down = np.reshape(np.array(headers[0].ImageOrientationPatient, dtype=float), (2, 3))
    normal = np.cross(across, down)
    heights = [float(np.dot(np.array(header.ImagePositionPatient, dtype=float), normal)) for header in headers]
    if len(set(heights)) != len(heights):
        raise _Refusal("A DICOM series holds two slices at one position; expected one volume a folder.")
    slices = [_decode_dicom(paths[index], 2) for index in np.argsort(heights)]
    if any(part.is_color or part.voxels.ndim != 3 or part.is_inverted != slices[0].is_inverted for part in slices):
        raise _Refusal("A DICOM series mixes kinds of slices, or holds color or frames; expected plain gray slices.")
    volume = np.stack([part.voxels for part in slices], axis=1)
    return DecodedImage(_to_ras(volume, np.stack([normal, down, across], axis=1)), is_inverted=slices[0].is_inverted)


def _to_ras(voxels: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Flip and permute (C, a, b, c), whose axes point along the columns of ``directions`` (in LPS), to RAS."""
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ directions
    return np.moveaxis(apply_orientation(np.moveaxis(voxels, 0, -1), io_orientation(affine)), -1, 0)


DECODERS: dict[str, Callable[[Path, int], DecodedImage]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"), _decode_picture),
    **dict.fromkeys((".nii", ".nii.gz"), _decode_nifti),
    **dict.fromkeys((".dcm", ".dicom", ".ima"), _decode_dicom),
    **dict.fromkeys((".mha", ".mhd", ".nrrd"), _decode_itk),
}
IMAGE_SUFFIXES = tuple(DECODERS)
