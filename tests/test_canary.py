# SPDX-License-Identifier: Apache-2.0
"""A name stands wherever a patient's can: no byte that any command prints, logs or writes holds it, or a pixel.

Whole commands run in processes of their own, on files whose every header, name, folder and cell is a canary. Searched
is all that such a process can leave: its descriptors 1 and 2, its home, its caches, its temporary files, MLflow's
store, the ledger and the output, file names and bytes. Nothing is filtered. What ``docs/KNOWN_LIMITATIONS.md`` lists,
the options that MONAI's ``run`` prints, are neutral here, as it says they must be.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import textwrap
import warnings
import zlib
from pathlib import Path

import matplotlib
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from monai_cadp.data import Digits
from monai_cadp.privacy import Budget, PrivacyLedger
from monai_cadp.privacy.ledger import write_secret

ROOT = Path(__file__).parents[1]
CANARY = "Mustermann"
# A canary where only a number can stand; it comes out in decimal if it comes out.
NUMBER = 19547
SIZE = 16
FORMS = [CANARY.encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be")] + [CANARY.upper().encode(), b"mustermann"]


def pixels(index):
    image = Digits("test").images[index, 0].numpy()
    return np.kron(image * 15, np.ones((2, 2))).astype(np.uint8)


def write_picture(path, index):
    info = PngInfo()
    info.add_text(f"{CANARY}-key", f"{CANARY} text")
    info.add_itxt("Comment", f"{CANARY} international", zip=True)
    exif = Image.Exif()
    exif[0x013B], exif[0x010E] = f"{CANARY} artist", f"{CANARY} description"
    options = {".png": {"pnginfo": info}, ".jpg": {"comment": CANARY.encode()}, ".tif": {"software": CANARY}}
    Image.fromarray(pixels(index)).save(path, exif=exif, **options.get(path.suffix, {}))
    return path


def write_nifti(path, array):
    """With a canary in every text, an extension, and codes that make nibabel speak."""
    image = nibabel.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0]))
    for name in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[name] = f"{CANARY} {name}".encode()[:16]
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", f"{CANARY} extension".encode()))
    packed = bytearray(image.to_bytes())
    packed[252:254] = struct.pack("<h", NUMBER)  # qform_code, of which nibabel complains
    packed[76:80] = struct.pack("<f", float(NUMBER))  # qfac, too
    path.write_bytes(gzip.compress(bytes(packed)) if path.suffix == ".gz" else bytes(packed))
    return path


def write_dicom(path, plane, **changes):
    """With a canary in every text, private and nested ones too, and in elements that take none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
        data.remove_private_tags()
        for element in data:
            if element.VR in ("LO", "SH", "PN", "LT", "ST", "UT") and element.keyword:
                element.value = f"{CANARY} {element.keyword}"[:64]
        data.PatientName, data.PatientID = f"{CANARY}^Erika", f"{CANARY}-1954"
        for keyword in ("StudyDate", "PatientBirthDate", "StudyTime", "PatientAge"):
            setattr(data, keyword, CANARY)
        block = data.private_block(0x0011, f"{CANARY} creator", create=True)
        block.add_new(0x01, "LO", f"{CANARY} private")
        nested = pydicom.Dataset()
        nested.PatientName, nested.PatientWeight = f"{CANARY}^nested", None
        data.OtherPatientIDsSequence = [nested]
        data.Rows, data.Columns = plane.shape
        data.PixelData, data.RescaleIntercept = plane.astype("<i2").tobytes(), 0
        for name, value in changes.items():
            setattr(data, name, value)
        data.save_as(path, enforce_file_format=True)
    return path


def write_metaimage(path, array, **changes):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))
    raw = path.read_bytes()
    raw = raw.replace(b"\nNDims", f"\nComment = {CANARY} comment\n{CANARY}Field = {CANARY} value\nNDims".encode(), 1)
    for old, new in changes.items():
        raw = raw.replace(old.encode(), new.encode())
    path.write_bytes(raw)
    return path


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A folder that is called after a patient, with originals of every format; the commands run in it."""
    root = tmp_path_factory.mktemp("cohort") / f"{CANARY}-cohort"
    # Training: pictures of two classes.
    for split, start, count in (("train", 0, 24), ("val", 40, 8)):
        for index in range(start, start + count):
            folder = root / "pictures" / split / str(index % 2)
            folder.mkdir(parents=True, exist_ok=True)
            write_picture(folder / f"{CANARY}{index // 2}-{index}.png", index)
    # Releases: one of every format.
    mixed = root / "mixed" / "test" / "0"
    mixed.mkdir(parents=True)
    for index, suffix in enumerate((".png", ".jpg", ".tif", ".bmp")):
        write_picture(mixed / f"{CANARY}{index}-{index}{suffix}", index)
    write_nifti(mixed / f"{CANARY}4-4.nii", pixels(4).astype(np.float32)[:, :, None])
    write_nifti(mixed / f"{CANARY}5-5.nii.gz", pixels(5).astype(np.float32)[:, :, None])
    write_dicom(mixed / f"{CANARY}6-6.dcm", pixels(6))
    write_metaimage(mixed / f"{CANARY}7-7.mha", pixels(7))
    # Scans: NIfTI, MetaImage and a DICOM series.
    scans = root / "scans"
    scans.mkdir()
    volume = np.random.RandomState(0).rand(24, 24, 20).astype(np.float32) + np.eye(24)[:, :, None].astype(np.float32)
    write_nifti(scans / f"{CANARY}1-1.nii.gz", volume)
    write_metaimage(scans / f"{CANARY}2-1.mha", volume)
    series, uid = scans / f"{CANARY}3-1", generate_uid()
    series.mkdir()
    for z in range(6):
        write_dicom(
            series / f"{CANARY}{z}.dcm",
            (volume[:, :, z] * 100).astype(np.int16),
            SeriesInstanceUID=uid,
            SOPInstanceUID=generate_uid(),
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, 0, 4 * z],
            PixelSpacing=[4, 4],
        )
    # A table.
    with open(root / "rows.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "weight", "patient", "visit"])
        for index in range(60):
            writer.writerow([20 + index, 50 + index, f"{CANARY}{index // 2}", f"{CANARY}-visit-{index}"])
    columns = [
        {"name": name, "kind": "continuous", "lowest": 0, "highest": 120, "log": False} for name in ("age", "weight")
    ]
    (root / "schema.yaml").write_text(json.dumps({"columns": columns}))
    rows = (root / "rows.csv").read_text()
    (root / "train.csv").write_text("".join(line.rsplit(",", 1)[0] + "\n" for line in rows.splitlines()))
    (root / "bad.csv").write_text(rows.replace("\n25,", f"\n{CANARY},", 1))
    (root / "worse.csv").write_text(rows.replace("\n25,", f'\n"{CANARY}, "25,', 1))
    _damage(root)
    return root


def _damage(root):
    """Files that cannot be read, one for each way in which a library may speak of it."""
    damaged = root / "damaged"
    damaged.mkdir()
    whole = {path.suffix: path.read_bytes() for path in (root / "mixed" / "test" / "0").iterdir()}
    for suffix, content in whole.items():
        for share in (0.1, 0.5, 0.9):
            (damaged / f"{CANARY}-{share}{suffix}").write_bytes(content[: int(share * len(content))])
        (damaged / f"{CANARY}-empty{suffix}").write_bytes(b"")
        (damaged / f"{CANARY}-text{suffix}").write_bytes(CANARY.encode() * 200)
    mha = {
        "type": {"MET_UCHAR": f"MET_{CANARY}"},
        "size": {"DimSize = 16 16": f"DimSize = {CANARY} 16"},
        "elsewhere": {"ElementDataFile = LOCAL": f"ElementDataFile = {CANARY}.raw"},
        "list": {"ElementDataFile = LOCAL": f"ElementDataFile = LIST\n{CANARY}.raw\n{CANARY}2.raw"},
        "pattern": {"ElementDataFile = LOCAL": f"ElementDataFile = {CANARY}%03d.raw 1 3 1"},
        "spacing": {"ElementSpacing = 1 1": f"ElementSpacing = {CANARY} 1"},
        "object": {"ObjectType = Image": f"ObjectType = {CANARY}"},
        "line": {"NDims = 2": f"{CANARY} {CANARY}\nNDims = 2"},
    }
    for name, changes in mha.items():
        write_metaimage(damaged / f"{CANARY}-{name}.mha", pixels(1), **changes)
    (damaged / f"{CANARY}-text.nrrd").write_text(f"NRRD0004\n# {CANARY}\ntype: {CANARY}\nsizes: 4 4\n\n")
    for name, changes in {
        "number": {"RescaleSlope": None, "BitsAllocated": NUMBER},
        "photometric": {"PhotometricInterpretation": CANARY.upper()},
        "frames": {"NumberOfFrames": NUMBER},
        "syntax": {"PixelData": CANARY.encode() * 100},
    }.items():
        write_dicom(damaged / f"{CANARY}-{name}.dcm", pixels(1), **changes)
    fields = {"magic": (344, b"Must"), "type": (70, struct.pack("<h", NUMBER)), "size": (40, b"MMMM")}
    for name, (start, packed) in fields.items():
        raw = bytearray(whole[".nii"])
        raw[start : start + len(packed)] = packed
        (damaged / f"{CANARY}-{name}.nii").write_bytes(raw)


@pytest.fixture(scope="module")
def world(tmp_path_factory, cohort):
    """Where the processes live, and a way to run one of them in the cohort's folder."""
    place = tmp_path_factory.mktemp("world")
    for name in ("tmp", "home", "cache", "mlflow", "said", "out"):
        (place / name).mkdir()
    if os.path.isdir(matplotlib.get_cachedir()):
        # Or every process would look at all fonts first.
        shutil.copytree(matplotlib.get_cachedir(), place / "cache", dirs_exist_ok=True)
    env = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | {
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(place / "tmp"),
        "HOME": str(place / "home"),
        "XDG_CACHE_HOME": str(place / "cache"),
        "XDG_CONFIG_HOME": str(place / "cache"),
        "MPLCONFIGDIR": str(place / "cache"),
        "PYTHONWARNINGS": "always",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "DO_NOT_TRACK": "1",
    }

    def start(name, *arguments):
        said = place / "said" / name
        with open(f"{said}.out", "wb") as out, open(f"{said}.err", "wb") as err:
            return subprocess.Popen([sys.executable, *arguments], cwd=cohort, env=env, stdout=out, stderr=err)

    return place, start


def bundle(name, config, **options):
    folder = ROOT / "bundles" / name
    given = {"config_file": folder / "configs" / f"{config}.yaml", "bundle_root": folder} | options
    return ["-m", "monai.bundle", "run", *(part for key, value in given.items() for part in (f"--{key}", str(value)))]


def _rows(config, **options):
    return bundle("cadp_tabular", config, **options)


# Every file is read as a picture and as a scan, by a process that listens to everything and prints all errors in full.
READER = """
import logging, os, sys, traceback, warnings
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
logging.getLogger().addHandler(logging.FileHandler(sys.argv[1], delay=False))
import pydicom.config
pydicom.config.debug(True)
from monai_cadp.data import PublicGrid, ReadImage, ReadVolume
read, refused = 0, 0
for folder in ("damaged", "mixed/test/0", "scans"):
    for name in sorted(os.listdir(folder)):
        for reader in (ReadImage((8, 8), intensity_range=(0, 255)), ReadVolume(PublicGrid((8, 8, 8), 4.0))):
            try:
                reader(os.path.join(os.getcwd(), folder, name))
                read += 1
            except ValueError as error:
                refused += 1
                assert error.__cause__ is None and error.__context__ is None
                print(error)
                print(repr(traceback.TracebackException.from_exception(error).exc_type), file=sys.stderr)
                logging.error("refused", exc_info=True)
print(f"read {read}, refused {refused}")
"""
# The same libraries without us: the files make them speak.
CONTROL = """
import logging, os, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
import nibabel, numpy, pydicom
from PIL import Image
readers = {
    "nii": lambda path: nibabel.load(path).get_fdata(),
    "dcm": lambda path: print(pydicom.dcmread(path).PatientName),
    "tif": lambda path: Image.open(path).load(),
}
for folder in ("damaged", "mixed/test/0"):
    for name in sorted(os.listdir(folder)):
        ending = name.split(".")[-1]
        if ending in sys.argv[1:]:
            try:
                readers[ending](os.path.join(folder, name))
            except Exception as error:
                pass
"""


@pytest.fixture(scope="module")
def life(world, cohort):
    """All commands have run, two at a time; returns the place and the exit codes."""
    place, start = world
    out = place / "out"
    small = {"spatial_shape": "[8,8]", "num_directions": 4, "num_classes": 2, "checkpoint": out / "model.pt"}
    rows = {"schema": "schema.yaml", "subject_column": "patient", "checkpoint": out / "rows.pt"}
    secret = write_secret(place / "secret")
    PrivacyLedger.create(place / "ledger.db", secret, Budget(16.0)).close()
    paid = {"epsilon": 4.0, "ledger": place / "ledger.db", "secret_file": place / "secret"}
    named = paid | {"subject_pattern": "(.+)-"}
    mixed = small | {"intensity_range": "[0,255]"}
    training = {"max_epochs": 2, "output_dir": place / "mlflow"}
    steps = [
        {
            "train": bundle("cadp_2d", "train", dataset_dir="pictures", **training, **small),
            "train_rows": _rows("train", dataset_dir="train.csv", **rows, **training | {"output_dir": place / "rows"}),
        },
        {
            "release": bundle("cadp_2d", "inference", input="mixed", output=out / "released", **mixed, **named),
            "release_rows": _rows(
                "inference", input="rows.csv", output=out / "rows.csv", item_column="visit", **rows, **paid
            ),
        },
        {
            "brains": bundle(
                "cadp_brain_mr", "inference", input="scans", input_kind="brain", output=out / "brains", **named
            ),
            "refused": bundle("cadp_2d", "inference", input="damaged", output=out / "none", **mixed, **named),
        },
        {
            f"{kind}_rows": _rows(
                "inference", input=f"{kind}.csv", item_column="visit", output=out / f"{kind}.csv", **rows, **paid
            )
            for kind in ("bad", "worse")
        },
        {"reader": ["-c", textwrap.dedent(READER), str(place / "said" / "reader.log")]},
    ]
    codes = {}
    for step in steps:
        processes = {name: start(name, *arguments) for name, arguments in step.items()}
        codes |= {name: process.wait(1200) for name, process in processes.items()}
    return place, codes


def traces(place):
    """Every file with all that it holds, unpacked where it is packed."""
    for path in sorted(place.rglob("*")):
        yield path.relative_to(place), path.read_bytes() if path.is_file() else b""
        if path.name.endswith(".gz"):
            yield path.relative_to(place), unpacked(path.read_bytes())


def unpacked(content):
    """As much as a damaged archive still gives."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(content)
    except zlib.error:
        return b""


def canaries(found):
    """Where a canary is, in a file's name or in it."""
    return [
        str(name)
        for name, content in found
        if any(form in content or form in str(name).encode() for form in FORMS) or _has_number(content)
    ]


def _has_number(content):
    # In decimal and as a text: in a file of numbers any digits stand somewhere.
    return str(NUMBER).encode() in content and content.isascii()


@pytest.mark.slow
def test_the_commands_did_what_they_were_asked(life):
    place, codes = life
    said = {name: (place / "said" / f"{name}.err").read_text()[-1500:] for name in codes}
    ended = {name: code == 0 for name, code in codes.items()}
    refused = {"refused", "bad_rows", "worse_rows"}
    assert ended == {name: name not in refused for name in codes}, said
    out = {path.relative_to(place / "out").as_posix() for path in (place / "out").rglob("*") if path.is_file()}
    assert {"model.pt", "rows.pt", "rows.csv", "rows_privacy.json", "released/summary.json"} <= out
    assert sum(name.startswith("released/release_") and name.endswith(".png") for name in out) == 8
    assert sum(name.startswith("brains/release_") and name.endswith(".nii.gz") for name in out) == 3
    assert not any(name.startswith(("none", "bad", "worse")) for name in out)
    assert "read 8, refused" not in (place / "said" / "reader.out").read_text()
    assert (place / "mlflow" / "mlflow.db").exists() and (place / "said" / "reader.log").exists()


@pytest.mark.slow
def test_no_canary_is_in_anything_that_was_printed_logged_or_written(life, cohort):
    place, _ = life
    assert canaries(traces(place)) == []


@pytest.mark.slow
def test_the_paths_of_originals_are_nowhere_and_nothing_was_left_among_them(life, cohort):
    place, _ = life
    assert not [name for name, content in traces(place) if str(cohort.parent).encode() in content]
    assert {path.name for path in cohort.iterdir()} == {
        *("pictures", "mixed", "scans", "damaged"),
        *("rows.csv", "train.csv", "bad.csv", "worse.csv", "schema.yaml"),
    }


@pytest.mark.slow
def test_the_secret_is_nowhere_else(life):
    place, _ = life
    secret = (place / "secret").read_text().strip()
    for name, content in traces(place):
        if name.name != "secret":
            assert secret.encode() not in content and bytes.fromhex(secret) not in content, name


@pytest.mark.slow
def test_no_row_of_pixels_of_an_original_is_in_any_file(life):
    """Rows of an image, as bytes, as float32 or scaled, stand nowhere; releases are other images."""
    place, _ = life
    needles = []
    for index in range(8):
        image = pixels(index)[4:10]
        assert len(np.unique(image)) > 5
        needles += [image.tobytes(), image.astype(np.float32).tobytes(), (image / np.float32(255)).tobytes()]
    for name, content in traces(place):
        assert not any(needle in content for needle in needles), name


@pytest.mark.slow
def test_the_ledger_holds_codes_only_and_all_its_files_are_the_owners(life):
    place, _ = life
    with sqlite3.connect(place / "ledger.db") as connection:
        rows = connection.execute("SELECT subject, key, code FROM entries WHERE kind = 'reserved'").fetchall()
    connection.close()
    assert len(rows) == 8 + 3 + 60
    assert all(len(code) == 64 and set(code) <= set("0123456789abcdef") for row in rows for code in row)
    private = ("ledger.db", "mlflow.db", "secret")
    kept = [path for path in place.rglob("*") if path.name.startswith(private)]
    assert len(kept) >= 3 and all(path.stat().st_mode & 0o077 == 0 for path in kept)


@pytest.mark.slow
# MetaImage's reader speaks of damaged files too, but not of what stands in their headers.
@pytest.mark.parametrize("ending", ["nii", "dcm", "tif"])
def test_the_libraries_themselves_would_have_said_a_canary(world, ending):
    place, start = world
    assert start(f"control-{ending}", "-c", textwrap.dedent(CONTROL), ending).wait(120) == 0
    files = [place / "said" / f"control-{ending}.{end}" for end in ("out", "err")]
    assert canaries((path.name, path.read_bytes()) for path in files)
    for path in files:
        path.unlink()


@pytest.mark.slow
def test_the_search_finds_canaries_in_names_in_packed_and_in_open_files(cohort):
    found = canaries(traces(cohort.parent))
    assert f"{CANARY}-cohort/rows.csv" in found and f"{CANARY}-cohort/bad.csv" in found
    assert any(name.endswith(".nii.gz") for name in found) and any(name.endswith(".dcm") for name in found)
