# SPDX-License-Identifier: Apache-2.0
"""How many values of the headers of originals reach the files of a release: a million are tried, none may.

Every element of DICOM's dictionary that takes a text or a number, private and nested ones, every free field of NIfTI
and its extensions, affines, MetaImage's comments and fields hold a value that stands nowhere else. Scans are read,
carried on as tensors with all these values as their meta, and written as NIfTI and as DICOM series with their cards;
what is written is unpacked and searched for each value, as a text, in UTF-16 and as the number in its binary forms.

The negative control is a writer with one more entry on its list, which is made to pass one field of the source.

python -m benchmarks.header_fuzz --out results/header_fuzz.json
"""

from __future__ import annotations

import argparse
import gzip
import random
import struct
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import SimpleITK
from monai.data import MetaTensor
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from benchmarks.report import print_table, write_json
from monai_cadp.data import PublicGrid, ReadVolume
from monai_cadp.release import ReleasedFolder

VALUES, QUICK_VALUES = 1_000_000, 20_000
GRID = PublicGrid((6, 6, 4), spacing=4.0)
SHAPE = (8, 8, 6)
SLICES = 4
# No shorter window of a file is looked at, so that nothing is found by chance.
WINDOW = 8
TEXTS = {"LO": 64, "SH": 16, "PN": 64, "LT": 64, "ST": 64, "UT": 64, "UC": 64, "AE": 16}
NUMBERS = ("FD", "DS", "IS", "UI", "UL", "FL")
# What a reader needs to find the voxels; all else may hold anything.
NEEDED = {
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "PixelData", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
    *("BurnedInAnnotation", "PlanarConfiguration", "FloatPixelData", "DoubleFloatPixelData", "SpecificCharacterSet"),
    *("PixelDataProviderURL", "ModalityLUTSequence", "SmallestImagePixelValue", "LargestImagePixelValue", "Modality"),
}
GUARANTEE = {"epsilon": 4.0, "delta": 0.0, "unit": "volume", "mechanism": "SubsetSelection"}


@dataclass
class Source:
    """One original: its file or folder, and the forms in which each value of its header would be recognised."""

    path: Path
    values: list[list[bytes]] = field(default_factory=list)

    def text(self, draw: random.Random, length: int = 12) -> str:
        """Return a new text, and remember it."""
        value = "".join(draw.choices("ABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=length))
        self.values.append([value.encode(), value.encode("utf-16-le")])
        return value

    def number(self, draw: random.Random) -> float:
        """Return a new number, and remember it: its binary form, and seven digits of its decimal one or more."""
        value = draw.uniform(1000.0, 9999.0)
        self.values.append([struct.pack("<d", value), f"{value:.6f}".encode(), repr(value).encode()])
        return value

    def whole(self, draw: random.Random) -> int:
        """Return a new whole number of nine digits, and remember it."""
        value = draw.randint(100_000_000, 999_999_999)
        self.values.append([str(value).encode()])
        return value

    def floats(self, draw: random.Random, count: int, low: float = 500.0, high: float = 999.0) -> list[float]:
        """Return neighbouring numbers of single precision; two of them are one value."""
        values = [float(np.float32(draw.uniform(low, high))) for _ in range(count)]
        for first, second in zip(values[::2], values[1::2], strict=True):
            self.values.append([struct.pack("<ff", first, second), struct.pack("<dd", first, second)])
        return values


def dicom_source(folder: Path, draw: random.Random) -> Source:
    """Write a series whose elements of every keyword hold values."""
    source = Source(folder)
    folder.mkdir()
    series = f"2.25.{source.whole(draw)}"
    place = source.floats(draw, 2)
    for index in range(SLICES):
        data = Dataset()
        _fill(data, source, draw)
        nested = Dataset()
        _fill(nested, source, draw, share=0.1)
        data.OtherPatientIDsSequence = [nested]
        for number in range(100):
            block = data.private_block(0x0011 + 2 * (number // 50), f"CREATOR {number // 50}", create=True)
            block.add_new(number % 50, "LO", source.text(draw))
        data.SOPClassUID, data.SeriesInstanceUID = MRImageStorage, series
        data.SOPInstanceUID = f"2.25.{source.whole(draw)}"
        data.Modality, data.BurnedInAnnotation = "MR", "NO"
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 8, 8, 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.ImageOrientationPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], [2, 2]
        data.ImagePositionPatient = [f"{place[0]:.4f}", f"{place[1]:.4f}", str(3 * index)]
        data.PixelData = np.random.RandomState(index).randint(0, 999, 64).astype("<u2").tobytes()
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
        meta.TransferSyntaxUID, meta.ImplementationVersionName = ExplicitVRLittleEndian, source.text(draw)
        FileDataset("", data, file_meta=meta, preamble=source.text(draw, 128).encode()).save_as(
            folder / f"{source.text(draw)}.dcm", enforce_file_format=True
        )
    return source


def _fill(data: Dataset, source: Source, draw: random.Random, share: float = 1.0) -> None:
    for tag, (kind, _, _, _, keyword) in DicomDictionary.items():
        if not keyword or keyword in NEEDED or tag < 0x00080000 or (share < 1 and draw.random() > share):
            continue
        value: Any = None
        if kind in TEXTS:
            value = source.text(draw)
        elif kind in ("FD", "DS"):
            value = source.number(draw)
            value = f"{value:.6f}" if kind == "DS" else value
        elif kind in ("IS", "UL"):
            value = source.whole(draw)
        elif kind == "UI":
            value = f"1.2.{source.whole(draw)}"
        if value is not None:
            data.add_new(tag, kind, value)


def nifti_source(folder: Path, draw: random.Random) -> Source:
    """Write a NIfTI file whose free fields, geometry and extensions hold values."""
    source = Source(folder / f"{draw.getrandbits(64):x}.nii.gz")
    affine = np.eye(4)
    affine[:3, :3] *= 2.0
    affine[:2, 3] = source.floats(draw, 2)
    image = nibabel.Nifti1Image(np.random.RandomState(0).rand(*SHAPE).astype(np.float32), affine)
    header = image.header
    for name, length in (("descrip", 80), ("aux_file", 24), ("intent_name", 16), ("db_name", 18), ("data_type", 10)):
        header[name] = source.text(draw, min(length, 12)).encode()
    for names in (("intent_p1", "intent_p2"), ("slice_duration", "toffset"), ("cal_max", "cal_min")):
        for name, value in zip(names, source.floats(draw, 2), strict=True):
            header[name] = value
    header["extents"] = source.whole(draw)
    for _ in range(8):
        texts = " ".join(source.text(draw) for _ in range(1000))
        header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", texts.encode()))
    nibabel.save(image, source.path)
    return source


def metaimage_source(folder: Path, draw: random.Random) -> Source:
    """Write a MetaImage file with a comment and unknown fields."""
    source = Source(folder / f"{draw.getrandbits(64):x}.mha")
    image = SimpleITK.GetImageFromArray(np.random.RandomState(0).rand(*SHAPE).astype(np.float32))
    image.SetOrigin([*source.floats(draw, 2), 0.0])
    image.SetSpacing([2.0, 2.0, 2.0])
    SimpleITK.WriteImage(image, str(source.path))
    # No more: MetaImage's reader takes headers of some 8000 characters.
    comment, *others = (" ".join(source.text(draw) for _ in range(18)) for _ in range(24))
    fields = "".join(f"Field{number} = {texts}\n" for number, texts in enumerate(others))
    raw = source.path.read_bytes()
    source.path.write_bytes(raw.replace(b"NDims", f"Comment = {comment}\n{fields}NDims".encode(), 1))
    return source


# Each with its share of the values; a header of MetaImage holds few.
SOURCES = {"DICOM": (dicom_source, 0.5), "NIfTI": (nifti_source, 0.4), "MetaImage": (metaimage_source, 0.1)}


def written(source: Source, folder: Path, leaked: str | None = None) -> Iterator[bytes]:
    """Release a scan as NIfTI and as DICOM, and yield every file, unpacked, and every name.

    Args:
        source: the original.
        folder: an empty one.
        leaked: a value that a writer with a hole passes; None for the writers as they are.
    """
    # A network that changed nothing: whatever rides along with a tensor rides on.
    image = MetaTensor(ReadVolume(GRID)(source.path), meta={f"field {i}": v[0] for i, v in enumerate(source.values)})
    guarantee = GUARANTEE if leaked is None else GUARANTEE | {"unit": leaked}
    for volume_format in ("nifti", "dicom"):
        output = folder / volume_format
        with ReleasedFolder(output, num_expected=1, affine=GRID.affine, volume_format=volume_format) as release:
            release.write(image, guarantee)
        for path in sorted(output.rglob("*")):
            yield str(path.relative_to(output)).encode()
            if path.is_file():
                raw = path.read_bytes()
                yield raw
                if path.suffix == ".gz":
                    yield gzip.decompress(raw)


def through(source: Source, contents: Iterator[bytes]) -> set[int]:
    """Return which values of a header stand in what was written."""
    windows = {raw[start : start + WINDOW] for raw in contents for start in range(len(raw) - WINDOW + 1)}
    # By its first bytes: a value that is there has them there.
    return {place for place, forms in enumerate(source.values) if any(form[:WINDOW] in windows for form in forms)}


def fuzz(kind: str, number: int, seed: int = 0) -> dict[str, Any]:
    """Try values of one format of originals until there are enough of them.

    Returns:
        Numbers of files, values and values that came through, and whether the negative control was caught.
    """
    draw = random.Random(f"{kind} {seed}")
    files = values = passed = 0
    caught = None
    while values < number:
        with tempfile.TemporaryDirectory() as place:
            source = SOURCES[kind][0](Path(place) / "source" if kind == "DICOM" else Path(place), draw)
            found = through(source, written(source, Path(place) / "out"))
            if found:
                # The digits of fresh identifiers are those of some number now and then; a field that is carried on
                # stands in every release.
                found &= through(source, written(source, Path(place) / "again"))
            if caught is None:
                texts = (forms[0] for forms in source.values)
                number_of, leaked = next(
                    (n, text) for n, text in enumerate(texts) if text.isalnum() and not text.isdigit()
                )
                control = through(source, written(source, Path(place) / "control", leaked.decode()))
                caught = number_of in control - found
        files, values, passed = files + 1, values + len(source.values), passed + len(found)
    return {"originals": kind, "files": files, "values": values, "through": passed, "control caught": caught}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_VALUES:,} values instead of {VALUES:,}")
    parser.add_argument("--out", type=Path, default=Path("results/header_fuzz.json"), help="JSON file")
    options = parser.parse_args()
    number = QUICK_VALUES if options.quick else VALUES
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
        rows = [fuzz(kind, round(number * share)) for kind, (_, share) in SOURCES.items()]
    print_table(rows)
    result = {
        "values": sum(row["values"] for row in rows),
        "through": sum(row["through"] for row in rows),
        "controls_caught": all(row["control caught"] for row in rows),
        "seconds": round(time.perf_counter() - started),
        "by_format": rows,
    }
    write_json(options.out, result)


if __name__ == "__main__":
    main()
