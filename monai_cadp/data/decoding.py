# SPDX-License-Identifier: Apache-2.0
"""From an image file to its voxels, and to nothing else that the file holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from monai_cadp.data.decoded_image import DecodedImage, numeric
from monai_cadp.data.dicom_preamble import is_dicom
from monai_cadp.data.itk_reading import decode_itk
from monai_cadp.data.nifti_reading import decode_nifti
from monai_cadp.data.silence import Refusal, read_silently
from monai_cadp.extras import extra

__all__ = ["IMAGE_SUFFIXES", "decode_image"]


# Tags of TIFF, and what they say.
TIFF_BITS, TIFF_COMPRESSION, TIFF_PHOTOMETRIC, TIFF_SAMPLES, TIFF_PLANES = 258, 259, 262, 277, 284
TIFF_SAMPLE_FORMAT, TIFF_DEPTH = 339, 32997
TIFF_UNCOMPRESSED, TIFF_WHITE_IS_ZERO, TIFF_SEPARATE, TIFF_SIGNED = 1, 0, 2, 2
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*")
OPAQUE = 255
# How Pillow calls samples of 16 bits of which it keeps the upper 8, but for gray; BGR;16 are pixels of 16 bits.
SHORTENED = (";16B", ";16L", ";16N")
# From 255 to 65535.
LENGTHENING = 257


def decode_image(path: str | os.PathLike[str], spatial_dims: int) -> DecodedImage:
    r"""Decode a picture, a NIfTI, DICOM, MetaImage or NRRD file, or a folder that holds one DICOM series.

    Volumes whose file states an orientation are flipped and permuted to point right, anterior, superior. Images in two
    dimensions, and frames that do not say where they lie, keep the order of the file. Nothing is interpolated.

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
    return read_silently(lambda: _checked(_decode(Path(path), spatial_dims), spatial_dims), reason)


def _decode(path: Path, spatial_dims: int) -> DecodedImage:
    # Not by methods of the path, which fail for names that are too long.
    if os.path.isdir(path):
        return _decode_series(path)
    if not os.path.isfile(path):
        raise Refusal(
            "An image file does not exist, is no file, or may not be read; check the paths and their base folder."
        )
    name = path.name.lower()
    for suffix, decoder in DECODERS.items():
        if name.endswith(suffix):
            return decoder(path, spatial_dims)
    if is_dicom(path):
        return _decode_dicom(path, spatial_dims)
    raise Refusal(f"An image file has an unknown format; expected DICOM or one of {', '.join(DECODERS)}.")


def _checked(decoded: DecodedImage, spatial_dims: int) -> DecodedImage:
    voxels = decoded.voxels
    if voxels.ndim != spatial_dims + 1:
        raise Refusal(
            f"An image has {voxels.ndim - 1} spatial dimensions; expected {spatial_dims}, as many as in spatial_shape."
        )
    if voxels.size == 0:
        raise Refusal("An image file holds no voxels; replace or remove it.")
    if not np.isfinite(voxels).any():
        raise Refusal("An image holds no number, but NaN or infinity everywhere; expected an image.")
    return decoded


def _decode_picture(path: Path, spatial_dims: int) -> DecodedImage:
    with _opened(path) as stored:
        if getattr(stored, "n_frames", 1) > 1:
            raise Refusal("A picture file holds several frames; expected one image a file.")
        bits, is_signed, is_white_zero = _samples(stored)
        is_shortened = _raw_mode(stored).endswith(SHORTENED)
        picture = ImageOps.exif_transpose(stored)
        _check_opaque(picture)
        if picture.mode == "F" or picture.mode.startswith("I"):
            # What is signed, or has more bits than a scale is made for, has no public scale of its own.
            has_scale = picture.mode != "F" and not is_signed and bits <= 16
            array = np.asarray(picture)
            if bits == 32 and not is_signed and picture.mode == "I":
                # Pillow takes them as signed.
                array = array.view(np.uint32)
            return DecodedImage(
                numeric(array)[None],
                format_range=(0.0, 2.0**bits - 1) if has_scale else None,
                is_inverted=is_white_zero,
            )
        if is_signed:
            raise Refusal("A picture holds signed samples of 8 bits, which are not read; save it as unsigned.")
        is_color = picture.mode not in ("1", "L", "LA", "La")
        array = numeric(np.asarray(picture.convert("RGB" if is_color else "L")))
    voxels = np.moveaxis(array, -1, 0) if is_color else array[None]
    if is_shortened:
        return DecodedImage(LENGTHENING * voxels, format_range=(0.0, 65535.0), is_color=is_color)
    return DecodedImage(voxels, format_range=(0.0, 255.0), is_color=is_color)


def _raw_mode(picture: Image.Image) -> str:
    """Return how the samples of a picture are stored, in Pillow's words; a picture that is loaded does not tell."""
    stated = next((tile.args for tile in getattr(picture, "tile", [])), "")
    return stated if isinstance(stated, str) else str(stated[0])


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        if path.read_bytes()[:4] not in TIFF_BEGINNINGS:
            raise
    raise Refusal("A TIFF file is damaged, or its samples are of a kind that is not read; save 8 or 16 unsigned bits.")


def _samples(picture: Image.Image) -> tuple[int, bool, bool]:
    """Return how many bits a sample of a picture has, whether it is signed, and whether 0 is white."""
    tags = getattr(picture, "tag_v2", {})
    if tags.get(TIFF_DEPTH, 1) > 1:
        raise Refusal("A TIFF file holds a volume; expected a picture, or a volume as NIfTI or DICOM.")
    stated, signed = tags.get(TIFF_BITS, 16), tags.get(TIFF_SAMPLE_FORMAT, 1)
    bits = max(stated) if isinstance(stated, tuple) else int(stated)
    in_planes = tags.get(TIFF_SAMPLES, 1) > 1 and tags.get(TIFF_PLANES) == TIFF_SEPARATE
    if in_planes and bits > 8 and tags.get(TIFF_COMPRESSION, TIFF_UNCOMPRESSED) == TIFF_UNCOMPRESSED:
        # Pillow takes their bytes as samples.
        raise Refusal(
            "A TIFF file holds a plane for every color, of more than 8 bits; save it with the colors of a pixel side "
            "by side, or as PNG."
        )
    return (
        bits,
        TIFF_SIGNED in (signed if isinstance(signed, tuple) else (signed,)),
        tags.get(TIFF_PHOTOMETRIC) == TIFF_WHITE_IS_ZERO,
    )


def _check_opaque(picture: Image.Image) -> None:
    """Refuse a picture parts of which show what lies behind it."""
    if not picture.has_transparency_data:
        return
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    if alpha.min() < OPAQUE:
        raise Refusal("A picture is transparent in parts, which have no grey value of their own; save it opaque.")


def _decode_dicom(path: Path, spatial_dims: int) -> DecodedImage:
    with extra("dicom", "Reading DICOM"):
        from monai_cadp.data.dicom_reading import decode_dicom
    return decode_dicom(path)


def _decode_series(folder: Path) -> DecodedImage:
    with extra("dicom", "Reading DICOM"):
        from monai_cadp.data.dicom_reading import decode_dicom_series
    return decode_dicom_series(folder)


DECODERS: dict[str, Callable[[Path, int], DecodedImage]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff"), _decode_picture),
    **dict.fromkeys((".nii", ".nii.gz"), decode_nifti),
    **dict.fromkeys((".dcm", ".dicom", ".ima"), _decode_dicom),
    **dict.fromkeys((".mha", ".mhd", ".nrrd", ".nhdr"), decode_itk),
}
IMAGE_SUFFIXES = tuple(DECODERS)
