# SPDX-License-Identifier: Apache-2.0
"""Every study of configs/studies runs from its data to its page, on small files of exactly the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from monai.bundle import run

from monai_cadp.data import Digits
from monai_cadp.release.checkpoint import load_model
from tests.conftest import study_files

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "configs" / "studies"
SHARED = ("images.yaml", "large_images.yaml", "rows.yaml")
# What takes minutes by itself, and has tests of its own.
SHORT = {"membership": "$None", "epsilons": [4.0]}
METHODS = [{"_target_": "monai_cadp.studies.NetworkContent", "epsilons": "@epsilons"}]


def study(name, folder, **options):
    output = folder / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(ROOT)
        run(config_file=study_files(STUDIES / f"{name}.yaml"), output_dir=str(output), quick=True, **options)
    page = (output / "report.html").read_text()
    variants = {variant["name"]: variant for variant in json.loads((output / "results.json").read_text())["variants"]}
    assert {"originals", "prior only"} <= variants.keys()
    assert "its figures mean nothing" in page and "What is released" in page
    return variants


def test_every_study_is_in_the_documentation_and_says_how_to_get_its_data():
    text = (ROOT / "docs" / "STUDIES.md").read_text()
    for path in STUDIES.glob("*.yaml"):
        files = study_files(path)
        if path.name not in SHARED:
            assert files[-1] == path.relative_to(ROOT).as_posix()
            assert f"| {', '.join(f'`{Path(file).name}`' for file in files)} |" in text


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.name)
def test_a_study_says_only_what_is_its_own(path):
    """It repeats neither an option nor a section of the files that it is put over."""
    own, below = yaml.safe_load(path.read_text()), {}
    for file in study_files(path)[: study_files(path).index(path.relative_to(ROOT).as_posix())]:
        below |= yaml.safe_load((ROOT / file).read_text())
    assert not {name for name in own if name in below and own[name] == below[name]}


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes", "two_moons"])
def test_tables_that_come_with_scikit_learn(tmp_path, name):
    variants = study(name, tmp_path, epsilons=[8.0])
    figure = "r2_p_o" if name == "diabetes" else "accuracy_p_o"
    assert variants["content basis, epsilon 8"]["figures"][figure] <= 1
    kept = {method: variants[method]["figures"]["kept_mean"]["value"] for method in variants}
    assert kept["content basis, epsilon 8"] > 0.3 > kept["prior only"]


def test_mnist_with_every_method_and_every_attacker(tmp_path):
    archive = tmp_path / "mnist.npz"
    arrays = {}
    for split in ("train", "val", "test"):
        digits = Digits(split, spatial_shape=(28, 28))
        arrays[f"{split}_images"] = np.stack([(255 * item["image"][0].numpy()).astype(np.uint8) for item in digits])
        arrays[f"{split}_labels"] = np.array([int(item["label"]) for item in digits])
    np.savez(archive, **arrays)
    small = {"depths": [1, 1], "num_dense": 1, "dense_width": 32, "spatial_shape": [28, 28], "num_classes": 10}
    network = {"_target_": "monai_cadp.networks.PaperINN", **small}
    options = {"published_network": network, "published_epsilons": [1.0], "classifier_epsilons": [8.0], **SHORT}
    variants = study("mnist", tmp_path, dataset_dir=str(tmp_path), **options)
    assert list(variants) == [
        "originals",
        "prior only",
        "content basis, epsilon 4",
        "declared content, epsilon 4",
        "Laplace on all latents, true sensitivity, epsilon 8",
        "pixel Laplace, epsilon 8",
        "DP-Pix, cells of 7, epsilon 8",
        "Gaussian blur",
        "mosaic",
        "DP-SGD classifier, epsilon 8",
        "the paper as published, nominal epsilon 1",
    ]
    assert variants["the paper as published, nominal epsilon 1"]["epsilon"] == 2 * 784
    assert variants["DP-SGD classifier, epsilon 8"]["figures"].keys() == {"accuracy_p_o"}
    figures = variants["Gaussian blur"]["figures"]
    assert figures["reidentification_auc"]["value"] > 0.9 and figures["reconstruction_success"]["value"] > 0.9
    prior = variants["prior only"]["figures"]
    assert prior["reidentification_auc"]["value"] < 0.7 and prior["reconstruction_success"]["value"] < 0.3
    assert figures["attribute_gain"]["value"] > prior["attribute_gain"]["value"] + 0.3


@pytest.mark.parametrize(
    ("name", "splits", "classes", "suffix"),
    [
        ("oct", ("train", "test"), ("CNV", "DME", "DRUSEN", "NORMAL"), "jpeg"),
        ("chest_xray", ("train", "test"), ("NORMAL", "PNEUMONIA"), "jpeg"),
        ("mednist", ("",), ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT"), "jpeg"),
    ],
)
def test_folders_with_one_sub_folder_a_class(tmp_path, files, name, splits, classes, suffix):
    generator = np.random.default_rng(0)
    for split in splits:
        for label, kind in enumerate(classes):
            folder = tmp_path / "data" / split / kind
            folder.mkdir(parents=True)
            for index in range(30):
                image = np.clip(40 * label + generator.normal(60, 20, (16, 16)), 0, 255)
                files.picture(folder / f"{kind}-{index}.{suffix}", image)
    short = {**SHORT, "methods": METHODS, "spatial_shape": [16, 16], "classifier_epochs": 1}
    variants = study(name, tmp_path, dataset_dir=str(tmp_path / "data"), **short)
    assert "content basis, epsilon 4" in variants
    assert load_model(tmp_path / "results" / "model.pt").condition_names == list(classes)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder with films of people who have two each, what their study takes, and the study's variants."""
    folder = tmp_path_factory.mktemp("films")
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 24), ("val", 8), ("test", 8)):
        blobs = generator.normal(0, 1, (count, 4, 4)).repeat(16, 1).repeat(16, 2)
        arrays[f"{split}_images"] = np.clip(128 + 40 * blobs, 0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] // 2 % 2
        arrays[f"{split}_patients"] = np.arange(count) // 2 + 100 * len(split)
    np.savez(folder / "films.npz", **arrays)
    sizes = {"context_width": 16, "num_couplings": 2, "num_detail_couplings": 1, "detail_width": 8, "num_classes": 2}
    network = {"_target_": "monai_cadp.networks.ConditionalINN", "spatial_shape": [64, 64], **sizes}
    options = {"spatial_shape": [64, 64], "dataset_dir": str(folder / "films.npz")}
    short = {**SHORT, "audit": "$None", "methods": METHODS, "classifier_epochs": 1}
    return folder, options, study("nih_chest_xray", folder, network=network, **short, **options)


def check_attackers(figures):
    attackers = ("linkage", "linkage_another", "reidentification", "reidentification_another")
    assert {f"{attacker}_{figure}" for attacker in attackers for figure in ("auc", "top_1")} <= figures.keys()
    assert {"attribute_auc", "set_membership_auc"} <= figures.keys()


def test_films_that_are_large_enough_for_levels(films):
    """Their network is trained and drawn as the bundle for such images does it."""
    figures = films[-1]["content basis, epsilon 4"]["figures"]
    assert {"accuracy_p_o", "kept_lung area", "kept_heart width"} <= figures.keys()
    check_attackers(figures)


def test_attackers_of_a_network_that_was_trained_before(films, tmp_path):
    folder, options, _ = films
    trained = folder / "results" / "model.pt"
    variants = study("nih_attackers", tmp_path, checkpoint=str(trained), epsilons=[1.0], **options)
    methods = ["originals", "prior only", "content basis, epsilon 1", "pixel Laplace, epsilon 8"]
    assert list(variants) == [*methods, "Gaussian blur", "mosaic"]
    for name in methods:
        check_attackers(variants[name]["figures"])
    assert (tmp_path / "results" / "model.pt").read_bytes() == trained.read_bytes()
    assert "It was trained before." in (tmp_path / "results" / "report.html").read_text()


def test_films_with_fourteen_findings_of_which_several_apply(tmp_path):
    """Of the layout of ChestMNIST; here two findings are common, each brightens one side, and twelve nobody has."""
    generator, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 80), ("val", 20), ("test", 60)):
        labels = np.zeros((count, 14), np.uint8)
        labels[:, [2, 5]] = generator.integers(0, 2, (count, 2))
        films = generator.normal(90, 15, (count, 16, 16))
        films[:, :8] += 60 * labels[:, 2, None, None]
        films[:, :, 8:] += 60 * labels[:, 5, None, None]
        arrays |= {f"{split}_images": films.clip(0, 255).astype(np.uint8), f"{split}_labels": labels}
    np.savez(tmp_path / "chestmnist.npz", **arrays)
    small = {"depths": [1, 1], "num_dense": 1, "dense_width": 32, "spatial_shape": [16, 16], "condition_size": 14}
    network = {"_target_": "monai_cadp.networks.PaperINN", **small}
    options = {"published_network": network, "published_epsilons": [1.0], "classifier_epsilons": [8.0], **SHORT}
    options |= {"spatial_shape": [16, 16], "classifier_epochs": 30, "audit": "$None"}
    variants = study("chest_mnist", tmp_path, dataset_dir=str(tmp_path / "chestmnist.npz"), **options)
    assert list(variants) == [
        "originals",
        "prior only",
        "content basis, epsilon 4",
        "Laplace on all latents, true sensitivity, epsilon 8",
        "pixel Laplace, epsilon 8",
        "DP-Pix, cells of 7, epsilon 8",
        "Gaussian blur",
        "mosaic",
        "DP-SGD classifier, epsilon 8",
        "the paper as published, nominal epsilon 1",
    ]
    assert variants["originals"]["figures"]["auc_p_o"]["value"] > 0.85
    assert variants["DP-SGD classifier, epsilon 8"]["figures"].keys() == {"auc_p_o"}
    blurred, prior = variants["Gaussian blur"]["figures"], variants["prior only"]["figures"]
    assert {"auc_p_o", "auc_p_p", "auc_o_p", "uncertainty_p_o", "kept_mean", "frechet_distance"} <= prior.keys()
    assert {"reidentification_auc", "attribute_gain", "perceptual_similarity_above_class"} <= prior.keys()
    assert blurred["kept_mean"]["value"] > prior["kept_mean"]["value"] + 0.1
    assert blurred["reconstruction_success"]["value"] > 0.5 > prior["reconstruction_success"]["value"]
    page = (tmp_path / "results" / "report.html").read_text()
    assert "mean AUC over labels" in page and "Which is which?" in page


@pytest.mark.parametrize("name", ["acdc", "acdc_slices", "acdc_segmentation"])
def test_cardiac_mr_as_volumes_as_slices_and_with_masks(tmp_path, files, name):
    generator = np.random.default_rng(0)
    groups = ("NOR", "MINF", "DCM", "HCM", "RV")
    for folder, start in (("training", 1), ("testing", 101)):
        for number in range(start, start + 10):
            patient = tmp_path / folder / f"patient{number:03d}"
            patient.mkdir(parents=True)
            (patient / "Info.cfg").write_text(f"ED: 1\nES: 9\nGroup: {groups[number % 5]}\nHeight: 170.0\n")
            for frame in (1, 9):
                volume = generator.normal(100 + 20 * (number % 5), 10, (20, 24, 4)).astype(np.float32)
                mask = (volume > 120 + 20 * (number % 5)).astype(np.uint8) * (number % 4)
                for voxels, suffix in ((volume, ""), (mask, "_gt")):
                    path = patient / f"{patient.name}_frame{frame:02d}{suffix}.nii.gz"
                    files.nifti(path, voxels, np.diag([1.5, 1.5, 10, 1]))
    size = [16, 16, 4] if name == "acdc" else [16, 16]
    epochs = {"segmentation_epochs": 1} if name == "acdc_segmentation" else {"classifier_epochs": 1}
    short = {**SHORT, "methods": METHODS, "spatial_shape": size, **epochs}
    variants = study(name, tmp_path, dataset_dir=str(tmp_path), volume_shape=[16, 16, 4], **short)
    figures = variants["content basis, epsilon 4"]["figures"]
    assert ("dice_p_o" if name == "acdc_segmentation" else "accuracy_p_o") in figures


def test_faces_whose_chosen_attributes_are_kept(tmp_path, files):
    generator = np.random.default_rng(0)
    names = ("Bald", "Eyeglasses", "Male", "Smiling")
    (tmp_path / "img_align_celeba").mkdir()
    faces = [f"{number:06d}.jpg" for number in range(1, 61)]
    for name in faces:
        files.picture(tmp_path / "img_align_celeba" / name, generator.integers(0, 255, (218, 178, 3)))
    shown = generator.choice([-1, 1], (len(faces), len(names)))
    rows = [f"{name} " + " ".join(f"{value:2d}" for value in row) for name, row in zip(faces, shown, strict=True)]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join([str(len(faces)), " ".join(names) + " ", *rows]) + "\n")
    splits = [f"{name} {0 if index < 30 else 1 if index < 40 else 2}\n" for index, name in enumerate(faces)]
    (tmp_path / "list_eval_partition.txt").write_text("".join(splits))
    options = {"spatial_shape": [16, 16], "attributes": list(names), "kept": ["Male", "Smiling"], "epsilons": [8.0]}
    variants = study("celeba", tmp_path, dataset_dir=str(tmp_path), **options)
    kept = variants["chosen attributes, epsilon 8"]
    assert kept["epsilon"] == 8.0 and "attribute 2" in kept["explanation"] and "attribute 3" in kept["explanation"]
