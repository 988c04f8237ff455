# SPDX-License-Identifier: Apache-2.0
"""The bundle for volumes with masks trains on an organ that it has never heard of, and releases pairs."""

from __future__ import annotations

import gzip
import json
import traceback
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import run, verify_metadata, verify_net_in_out

from monai_cadp.data import LabelledVolumes, PublicGrid, ReadLabelledVolume
from monai_cadp.privacy import Budget, PriorOnly, PrivacyLedger
from monai_cadp.privacy.ledger import write_secret
from monai_cadp.release.checkpoint import load_privatizer

pytestmark = pytest.mark.slow

BUNDLE = Path(__file__).parents[2] / "bundles" / "cadp_3d"
CONFIGS = BUNDLE / "configs"
SCHEMA = Path(__file__).with_name("metadata_schema.json")
CANARY = "Mustermann-1954"
SHAPE, SPACING, CLASSES = [16, 16, 16], 20.0, 4
SMALL = {"spatial_shape": SHAPE, "spacing": SPACING, "num_mask_classes": CLASSES}
NETWORK = {"rank": 40, "context_width": 16, "num_detail_couplings": 2, "detail_width": 16}


def torso(seed, size=20):
    """Voxels of 16 mm: a body with lungs (1), a liver (2) and a spine (3), of a size and in a place of their own."""
    rng = np.random.default_rng(seed)
    axis = (np.arange(size) - (size - 1) / 2) / (size / 2)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    x, y, z = (one - rng.normal(0, 0.03) for one in (x, y, z))

    def inside(centre, radii):
        scaled = np.array(radii) * rng.normal(1, 0.06, 3)
        return sum(((one - c) / r) ** 2 for one, c, r in zip((x, y, z), centre, scaled, strict=True)) < 1

    body = inside((0, 0, 0), (0.9, 0.7, 1.4))
    organs = [
        inside((-0.42, 0, 0.3), (0.28, 0.4, 0.5)) | inside((0.42, 0, 0.3), (0.28, 0.4, 0.5)),
        inside((0.25, 0.05, -0.55), (0.45, 0.4, 0.28)),
        inside((0, -0.5, 0), (0.16, 0.16, 2.0)),
    ]
    image, mask = np.where(body, 40.0, -900.0), np.zeros(x.shape, dtype=np.uint8)
    for label, (organ, value) in enumerate(zip(organs, (-700.0, 90.0, 500.0), strict=True), 1):
        image[organ], mask[organ] = value, label
    return (image + rng.normal(0, 30, image.shape)).astype(np.int16), mask


@pytest.fixture(scope="module")
def torsos(tmp_path_factory, files):
    """Twelve of them, in files that know a name."""
    folder = tmp_path_factory.mktemp("torsos")
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for index in range(12):
        for part, voxels in zip(("images", "labels"), torso(index), strict=True):
            name = f"{CANARY}_{index // 2}_{index}.nii.gz"
            files.nifti(folder / part / name, voxels, np.diag([16.0, 16.0, 16.0, 1.0]))
    return folder


@pytest.fixture(scope="module")
def checkpoint(torsos, tmp_path_factory):
    """Two epochs of training, for all tests."""
    folder = tmp_path_factory.mktemp("trained")
    run(
        config_file=str(CONFIGS / "train.yaml"),
        bundle_root=str(BUNDLE),
        dataset_dir=str(torsos),
        checkpoint=f"{folder}/model.pt",
        output_dir=f"{folder}/runs",
        intensity_range=[-1000, 1000],
        subject_pattern=f"{CANARY}_([0-9]+)_",
        shares=[0.7, 0.3, 0.0],
        max_epochs=2,
        batch_size=4,
        validation_interval=1,
        preview_interval=1,
        num_content_samples=8,
        num_directions=4,
        **SMALL,
        **{f"network#{name}": value for name, value in NETWORK.items()},
    )
    return folder / "model.pt"


def release(output, checkpoint, torsos, **options):
    run(
        config_file=str(CONFIGS / "inference.yaml"),
        bundle_root=str(BUNDLE),
        checkpoint=str(checkpoint),
        output=str(output),
        **{"input": str(torsos), "epsilon": 4.0, "intensity_range": [-1000, 1000], **SMALL, **options},
    )
    return Path(output)


def everything(folder):
    """All names and all bytes of a folder, packed files unpacked."""
    parts = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        parts += [str(path.relative_to(folder)).encode(), content]
        parts.append(gzip.decompress(content) if path.suffix == ".gz" else b"")
    return b"".join(parts)


def test_the_metadata_are_valid():
    verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=str(SCHEMA))


def test_the_network_takes_and_gives_what_the_metadata_say():
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.yaml"),
        bundle_root=str(BUNDLE),
    )


def test_training_leaves_a_network_of_both_that_says_unprotected_and_pictures(checkpoint):
    privatizer = load_privatizer(checkpoint, PriorOnly())
    assert privatizer.image_shape == (CLASSES, *SHAPE)
    assert privatizer.training_data.protection == "unprotected"
    assert privatizer.content.directions.shape == (CLASSES * 8**3, 4)
    assert (checkpoint.parent / "runs" / "samples" / "samples_epoch_0001.png").exists()


def test_volumes_of_another_spacing_than_in_the_training_are_not_released(checkpoint, torsos, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        release(tmp_path / "out", checkpoint, torsos, spacing=16.0)
    said = "".join(traceback.format_exception(caught.value))
    assert "'spacing' is 16.0, but the network has learnt from inputs that were read with 20.0" in said
    assert not (tmp_path / "out").exists()


def test_a_release_is_a_pair_on_the_declared_grid(checkpoint, torsos, tmp_path):
    output = release(tmp_path / "out", checkpoint, torsos)
    names = [f"{number:04d}.nii.gz" for number in range(1, 13)]
    assert [sorted(path.name for path in (output / part).iterdir()) for part in ("images", "labels")] == [names] * 2
    grid = PublicGrid(SHAPE, SPACING)
    for name in names:
        image, mask = (nibabel.load(output / part / name) for part in ("images", "labels"))
        assert image.shape == mask.shape == tuple(SHAPE)
        assert np.allclose(image.affine, grid.affine) and np.allclose(mask.affine, grid.affine)
        assert 0 <= image.get_fdata().min() and image.get_fdata().max() <= 1
        assert set(np.unique(np.asarray(mask.dataobj))) <= set(range(CLASSES))
        assert mask.get_data_dtype() == np.uint8
    card = json.loads((output / "cards" / "0001_privacy.json").read_text())
    # One budget for both.
    assert (card["guarantee"]["epsilon"], card["guarantee"]["unit"]) == (4.0, "volume")
    assert json.loads((output / "summary.json").read_text())["count"] == 12


def test_nothing_of_the_originals_files_comes_out(checkpoint, torsos, tmp_path):
    output = release(tmp_path / "out", checkpoint, torsos)
    found = everything(output)
    assert CANARY.encode() not in found and b"Mustermann" not in found and str(torsos).encode() not in found
    originals = {nibabel.load(path).get_fdata().tobytes() for path in torsos.rglob("*.nii.gz")}
    assert not originals & {nibabel.load(path).get_fdata().tobytes() for path in output.rglob("*.nii.gz")}


def test_what_was_released_is_read_as_originals_are(checkpoint, torsos, tmp_path):
    output = release(tmp_path / "out", checkpoint, torsos)
    read = ReadLabelledVolume(PublicGrid(SHAPE, SPACING), CLASSES, intensity_range=(0, 1))
    volumes = LabelledVolumes(output, read)
    assert len(volumes) == 12
    written = nibabel.load(output / "labels" / "0003.nii.gz")
    assert np.array_equal(volumes[2]["mask"][0].numpy(), np.asarray(written.dataobj))


def test_dicom_in_becomes_dicom_out(checkpoint, torsos, tmp_path):
    first = release(tmp_path / "first", checkpoint, torsos, output_format="dicom")
    assert len(list(first.glob("images/*/slice_*.dcm"))) == 12 * SHAPE[2]
    # Read as a hospital's: series with their segmentations.
    output = release(tmp_path / "out", checkpoint, first, output_format="dicom", intensity_range=[0, 4095])
    assert [path.name for path in sorted((output / "labels").iterdir())] == [f"{n:04d}.dcm" for n in range(1, 13)]
    one, other = (
        {
            str(pydicom.dcmread(path, stop_before_pixels=True)[name].value)
            for path in folder.rglob("*.dcm")
            for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID")
        }
        for folder in (first, output)
    )
    assert one and not one & other


def test_declared_volumes_are_content(checkpoint, torsos, tmp_path):
    output = release(tmp_path / "out", checkpoint, torsos, declared=["volume_1", "volume_2"], num_candidates=16)
    card = json.loads((output / "cards" / "0001_privacy.json").read_text())
    assert card["guarantee"]["epsilon"] == 4.0 and card["guarantee"]["parameters"]["num_candidates"] == 16


def test_volumes_of_one_patient_share_a_budget(checkpoint, torsos, tmp_path):
    ledger = PrivacyLedger.create(tmp_path / "ledger.db", write_secret(tmp_path / "secret"), Budget(8.0))
    options = {"ledger": str(tmp_path / "ledger.db"), "secret_file": str(tmp_path / "secret")}
    pattern = f"{CANARY}_([0-9]+)_"
    for name in ("out", "again"):
        release(tmp_path / name, checkpoint, torsos, subject_pattern=pattern, **options)
    assert ledger.spent("3") == (8.0, 0.0)
    one, other = ({path.read_bytes() for path in (tmp_path / name / "labels").iterdir()} for name in ("out", "again"))
    assert one == other


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epsilon": None}, "epsilon"),
        ({"spatial_shape": [8, 8, 8]}, "spatial_shape"),
        ({"num_mask_classes": 3}, "cannot be read, and nothing was released"),
        ({"declared": ["size_1"]}, "size_1"),
        ({"num_candidates": 16}, "'num_candidates' was given without 'declared'"),
        ({"datalist_key": "test"}, "datalist_key was given, but the source is a folder"),
        ({"input": "nothing"}, "The input does not exist"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(checkpoint, torsos, tmp_path, options, match):
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        release(tmp_path / "out", checkpoint, torsos, **options)
    shown = "".join(traceback.format_exception(caught.value))
    assert match in shown and CANARY not in shown
    assert not (tmp_path / "out").exists()
    if "num_mask_classes" in options:
        assert "classes 0 to 2" in (tmp_path / "out_problems.csv").read_text()


def test_the_evaluation_tells_dice_and_content(checkpoint, torsos, tmp_path):
    pairs = [
        {"image": f"images/{path.name}", "mask": f"labels/{path.name}"}
        for path in sorted((torsos / "images").iterdir())
    ]
    (torsos / "list.json").write_text(json.dumps({"training": pairs[:8], "test": pairs[8:]}))
    run(
        config_file=str(CONFIGS / "evaluate.yaml"),
        bundle_root=str(BUNDLE),
        checkpoint=str(checkpoint),
        dataset_dir=str(torsos / "list.json"),
        output_file=str(tmp_path / "evaluation.json"),
        epsilons=[4.0],
        intensity_range=[-1000, 1000],
        segmentation_epochs=1,
        **SMALL,
    )
    rows = json.loads((tmp_path / "evaluation.json").read_text())
    assert [row["name"] for row in rows] == ["originals", "prior only", "epsilon 4"]
    assert all(0 <= row["dice"] <= 1 for row in rows) and "kept_volume_3" in rows[-1]


def test_released_volumes_are_finite_and_in_range(checkpoint):
    released = load_privatizer(checkpoint, PriorOnly())(torch.rand(2, CLASSES, *SHAPE))
    assert released.isfinite().all() and -0.5 < float(released.min()) and float(released.max()) < 1.5
