# SPDX-License-Identifier: Apache-2.0
"""The brain bundle trains on made-up patients and releases scans from files and DICOM series, by MONAI's commands."""

from __future__ import annotations

import json
import stat
import traceback
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import run, verify_metadata, verify_net_in_out
from PIL import Image

from monai_cadp.data import BrainCohort, PublicGrid
from monai_cadp.privacy import Budget, PriorOnly, PrivacyLedger
from monai_cadp.privacy.ledger import write_secret
from monai_cadp.release.checkpoint import load_privatizer
from tests.made_up_heads import head_and_brain

pytestmark = pytest.mark.slow

BUNDLE = Path(__file__).parents[2] / "bundles" / "cadp_brain_mr"
CONFIGS = BUNDLE / "configs"
SCHEMA = Path(__file__).with_name("metadata_schema.json")
CANARY = "Mustermann-1954"
SHAPE, SPACING = [12, 16, 12], 14.4
SMALL = {"spatial_shape": SHAPE, "num_directions": 4}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Two steps of training on small patients, for all tests."""
    folder = tmp_path_factory.mktemp("trained")
    run(
        config_file=str(CONFIGS / "train.yaml"),
        bundle_root=str(BUNDLE),
        checkpoint=f"{folder}/model.pt",
        output_dir=f"{folder}/runs",
        spacing=SPACING,
        patients_per_epoch=8,
        batch_size=4,
        num_workers=0,
        max_epochs=1,
        num_content_samples=16,
        **SMALL,
        **{"network#rank": 16, "validate#dataset#num_patients": 4},
    )
    return folder / "model.pt"


@pytest.fixture
def scan(tmp_path, files):
    """A made-up patient as a file, lying on its own grid, with a name in its header."""
    volume = BrainCohort(7, 1, spatial_shape=(24, 30, 24), spacing=7.2)[0]["image"][0].numpy()
    (tmp_path / "scans").mkdir()
    return files.nifti(tmp_path / "scans" / f"{CANARY}.nii.gz", 900 * volume, np.diag([7.2, 7.2, 7.2, 1]))


def release(output, checkpoint, **options):
    run(
        config_file=str(CONFIGS / "inference.yaml"),
        bundle_root=str(BUNDLE),
        checkpoint=str(checkpoint),
        output=str(output),
        **{"checkpoint_sha256": "any", "epsilon": 4.0, "grid#spacing": SPACING, **SMALL, **options},
    )
    return Path(output)


def test_the_metadata_are_valid():
    verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=str(SCHEMA))


def test_the_network_takes_and_gives_what_the_metadata_say():
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.yaml"),
        bundle_root=str(BUNDLE),
    )


def test_training_leaves_a_checkpoint_that_says_public(checkpoint):
    privatizer = load_privatizer(checkpoint, PriorOnly())
    assert privatizer.training_data.protection == "public"
    assert privatizer.content.directions.shape == (6 * 8 * 6, 4)


def test_the_network_is_trained_further_privately_on_scans_of_people(checkpoint, tmp_path, files):
    for index, kind in enumerate(("healthy", "healthy", "lesion")):
        volume = BrainCohort(7, 3, spatial_shape=(24, 30, 24), spacing=7.2)[index]["image"][0].numpy()
        (tmp_path / "volumes" / kind).mkdir(parents=True, exist_ok=True)
        path = tmp_path / "volumes" / kind / f"{'ab'[index % 2]}_{index}.nii.gz"
        files.nifti(path, 900 * volume, np.diag([7.2, 7.2, 7.2, 1]))
    run(
        config_file=[str(CONFIGS / "train.yaml"), str(CONFIGS / "train_dp.yaml")],
        bundle_root=str(BUNDLE),
        dataset_dir=str(tmp_path / "volumes"),
        pretrained=str(checkpoint),
        checkpoint=f"{tmp_path}/model.pt",
        output_dir=f"{tmp_path}/runs",
        subject_pattern="([ab])_",
        unit="patient",
        spacing=SPACING,
        batch_size=1,
        max_epochs=1,
        epsilon=8.0,
        delta=1e-3,
        num_content_samples=16,
        **SMALL,
    )
    trained = load_privatizer(tmp_path / "model.pt", PriorOnly()).training_data
    assert trained.protection == "dp" and trained.guarantee["unit"] == "patient"
    # Two patients have three scans.
    private = [event["guarantee"] for event in trained.events if event["protection"] == "dp"]
    assert private and all(guarantee["sums"][0][1:3] == [0.5, 2] for guarantee in private)
    assert trained.guarantee["epsilon"] <= 8.0


def test_a_scan_is_released_on_the_public_grid_with_a_card_and_a_picture(checkpoint, scan, tmp_path):
    output = release(tmp_path / "out", checkpoint, input=str(scan))
    names = ["release_000001.nii.gz", "release_000001_preview.png", "release_000001_privacy.json", "summary.json"]
    assert sorted(path.name for path in output.iterdir()) == ["datalist.json", *names]
    released = nibabel.load(output / names[0])
    grid = PublicGrid(SHAPE, SPACING, (0.0, -17.0, 5.0))
    assert released.shape == tuple(SHAPE) and np.allclose(released.affine, grid.affine)
    guarantee = json.loads((output / names[2]).read_text())["guarantee"]
    assert (guarantee["epsilon"], guarantee["unit"]) == (4.0, "volume")
    assert guarantee["training_data"]["protection"] == "public"
    assert not any(CANARY.encode() in path.read_bytes() for path in output.iterdir())


def test_a_head_with_its_skull_is_released_and_nothing_of_its_mask_or_place(checkpoint, tmp_path, files, caplog, capfd):
    head, _, affine = head_and_brain(tilt=9.0, shift=(7.0, 12.0, -30.0))
    (tmp_path / "scans").mkdir()
    files.nifti(tmp_path / "scans" / f"{CANARY}.nii.gz", head, affine)
    output = release(tmp_path / "out", checkpoint, input=str(tmp_path / "scans"))
    assert np.allclose(
        nibabel.load(output / "release_000001.nii.gz").affine, PublicGrid(SHAPE, SPACING, (0, -17, 5)).affine
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "scans"]
    assert not any(CANARY.encode() in path.read_bytes() for path in output.iterdir())
    said = "".join([*capfd.readouterr(), caplog.text])
    assert CANARY not in said
    # The card of a head says what that of any volume says, word by word, but for its own numbers.
    cards = [json.loads((output / "release_000001_privacy.json").read_text())]
    noise = np.random.RandomState(0).rand(12, 12, 10).astype(np.float32)
    brain = files.nifti(tmp_path / "brain.nii.gz", noise, np.diag([2.0, 2.0, 2.0, 1.0]))
    other = release(tmp_path / "other", checkpoint, input=str(brain), input_kind="brain")
    cards.append(json.loads((other / "release_000001_privacy.json").read_text()))
    assert cards[0]["guarantee"] == cards[1]["guarantee"] and cards[0].keys() == cards[1].keys()


@pytest.mark.parametrize("skip", [False, True])
def test_what_is_no_head_is_refused_with_a_picture_for_the_curator(
    checkpoint, scan, tmp_path, files, caplog, capfd, skip
):
    x, y, z = (axis - 31.5 for axis in np.ogrid[:64, :64, :64])
    torso = 900.0 * ((x / 30) ** 2 + (y / 20) ** 2 + 0 * z < 1)
    files.nifti(scan.with_name(f"{CANARY}-torso.nii.gz"), torso.astype(np.float32), np.diag([5.0, 5.0, 5.0, 1.0]))
    # Of an earlier attempt, which had one more.
    (tmp_path / "out_problems.2.png").touch()
    if skip:
        release(tmp_path / "out", checkpoint, input=str(scan.parent), skip_unreadable=True)
        assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 1
    else:
        with pytest.raises((RuntimeError, ValueError)) as caught:
            release(tmp_path / "out", checkpoint, input=str(scan.parent))
        shown = "".join(traceback.format_exception(caught.value))
        assert "out_problems.csv with pictures beside the output" in shown and CANARY not in shown
        assert not (tmp_path / "out").exists()
    (row,) = (tmp_path / "out_problems.csv").read_text().splitlines()[1:]
    assert f"{CANARY}-torso" in row and "larger than a head" in row and "Seen in out_problems.1.png." in row
    picture = tmp_path / "out_problems.1.png"
    assert not (tmp_path / "out_problems.2.png").exists()
    assert stat.S_IMODE(picture.stat().st_mode) == 0o600
    assert np.asarray(Image.open(picture)).std() > 20 and CANARY.encode() not in picture.read_bytes()
    said = "".join([*capfd.readouterr(), caplog.text])
    assert CANARY not in said and "larger than a head" not in said


def test_a_kind_that_was_stated_is_not_detected(checkpoint, tmp_path, files):
    (tmp_path / "scans").mkdir()
    noise = np.random.RandomState(0).rand(12, 12, 10).astype(np.float32)
    path = files.nifti(tmp_path / "scans" / "a.nii.gz", noise, np.diag([2.0, 2.0, 2.0, 1.0]))
    assert release(tmp_path / "out", checkpoint, input=str(path), input_kind="brain").exists()


def test_a_dicom_series_in_becomes_a_dicom_series_out(checkpoint, tmp_path, files):
    volume = BrainCohort(7, 1, spatial_shape=(24, 30, 24), spacing=7.2)[0]["image"][0].numpy()
    folder = files.series(tmp_path / "series", (900 * volume[::-1, ::-1]).astype(np.int16), pixel_spacing=7.2, step=7.2)
    output = release(tmp_path / "out", checkpoint, input=str(folder), output_format="dicom")
    slices = [pydicom.dcmread(path) for path in sorted((output / "release_000001").iterdir())]
    assert len(slices) == SHAPE[2] and {part.Modality for part in slices} == {"MR"}
    assert not any(CANARY.encode() in path.read_bytes() for path in output.rglob("*") if path.is_file())


def test_a_folder_of_scans_is_released_under_a_ledger(checkpoint, scan, tmp_path):
    scan.rename(scan.with_name("anna_1.nii.gz"))
    (scan.parent / "anna_2.nii.gz").write_bytes((scan.parent / "anna_1.nii.gz").read_bytes())
    (scan.parent / "bert_1.nii.gz").write_bytes((scan.parent / "anna_1.nii.gz").read_bytes())
    ledger = PrivacyLedger.create(tmp_path / "ledger.db", write_secret(tmp_path / "secret"), Budget(8.0))
    options = {"ledger": str(tmp_path / "ledger.db"), "secret_file": str(tmp_path / "secret")}
    for name in ("out", "again"):
        release(tmp_path / name, checkpoint, input=str(scan.parent), subject_pattern="^([a-z]+)_", **options)
    assert (ledger.spent("anna"), ledger.spent("bert")) == ((8.0, 0.0), (4.0, 0.0))
    one, other = (
        {nibabel.load(path).get_fdata().tobytes() for path in (tmp_path / name).glob("*.nii.gz")}
        for name in ("out", "again")
    )
    assert one == other and len(one) == 3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"input": "nothing.nii.gz"}, "does not exist"),
        ({"input_kind": "knee"}, "expected head or brain"),
        ({"output_format": "jpeg"}, "volume_format is 'jpeg'"),
        ({"checkpoint_sha256": "0" * 64}, "not the one that was shipped"),
        ({"epsilon": None}, "epsilon"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(checkpoint, scan, tmp_path, options, match):
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        release(tmp_path / "out", checkpoint, **{"input": str(scan), **options})
    shown = "".join(traceback.format_exception(caught.value))
    assert match in shown and CANARY not in shown
    assert not (tmp_path / "out").exists()


def test_the_network_is_evaluated_on_patients_that_it_has_not_seen(checkpoint, capsys):
    run(
        config_file=str(CONFIGS / "evaluate.yaml"),
        bundle_root=str(BUNDLE),
        checkpoint=str(checkpoint),
        spatial_shape=SHAPE,
        spacing=SPACING,
        num_patients=4,
    )
    assert "bits per dimension: " in capsys.readouterr().out


def test_released_volumes_are_finite_and_in_range(checkpoint):
    released = load_privatizer(checkpoint, PriorOnly())(torch.rand(2, 1, *SHAPE), torch.tensor([0, 1]))
    assert released.isfinite().all()
