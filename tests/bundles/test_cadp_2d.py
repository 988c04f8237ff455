# SPDX-License-Identifier: Apache-2.0
"""The 2D bundle trains, releases and evaluates through MONAI's own commands, on every layout that it names."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ckpt_export, run, verify_metadata, verify_net_in_out
from PIL import Image

from monai_cadp.data import Digits, open_images
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.privacy import SubsetSelection, TrainingData
from monai_cadp.release.checkpoint import load_network, load_privatizer, save_model

pytestmark = pytest.mark.slow

BUNDLE = Path(__file__).parents[2] / "bundles" / "cadp_2d"
CONFIGS = BUNDLE / "configs"
SCHEMA = Path(__file__).with_name("metadata_schema.json")
CANARY = "Mustermann-1954"
SMALL = {"spatial_shape": [8, 8], "num_directions": 4}


def train(folder, *overlays, **options):
    run(
        config_file=[str(CONFIGS / f"{name}.yaml") for name in ("train", "small_images", *overlays)],
        bundle_root=str(BUNDLE),
        checkpoint=f"{folder}/model.pt",
        output_dir=f"{folder}/runs",
        **{"max_epochs": 1, **SMALL, **options},
    )
    return Path(folder, "model.pt")


def train_privately(folder, *overlays, **options):
    """Through MONAI's command, as the overlays say; returns the checkpoint."""
    run(
        config_file=[str(CONFIGS / f"{name}.yaml") for name in ("train", "train_dp", *overlays)],
        bundle_root=str(BUNDLE),
        checkpoint=f"{folder}/model.pt",
        output_dir=f"{folder}/runs",
        **{"max_epochs": 1, "batch_size": 256, **SMALL, **options},
    )
    return Path(folder, "model.pt")


def release(output, checkpoint, **options):
    run(
        config_file=str(CONFIGS / "inference.yaml"),
        bundle_root=str(BUNDLE),
        checkpoint=str(checkpoint),
        output=str(output),
        **{"epsilon": 8.0, "num_directions": 4, **options},
    )
    return Path(output)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """One training of an epoch on the real digits, for all tests."""
    return train(tmp_path_factory.mktemp("trained"))


def npz(folder):
    """MedMNIST's format."""
    path = Path(folder, "images.npz")
    arrays = {}
    for split in ("train", "val", "test"):
        digits = Digits(split)
        arrays[f"{split}_images"] = (digits.images[:60, 0] * 15).numpy()
        arrays[f"{split}_labels"] = digits.labels[:60, None].numpy().astype(np.uint8)
    np.savez(path, **arrays)
    return path


def class_folders(folder, suffix="png"):
    """The layout of the OCT and chest X-ray sets."""
    for split in ("train", "val", "test"):
        digits = Digits(split)
        for index in range(40):
            image, label = digits.images[index, 0].numpy() * 15, int(digits.labels[index])
            where = Path(folder, "images", split, str(label))
            where.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(np.uint8)).save(where / f"{CANARY}-{index}.{suffix}")
    return Path(folder, "images")


def nifti_list(folder, files):
    """A MONAI datalist of NIfTI files with public intensities 0 to 16."""
    lists = {"training": "train", "validation": "val", "test": "test"}
    content: dict[str, list] = {}
    for key, split in lists.items():
        digits = Digits(split)
        content[key] = []
        for index in range(30):
            name = f"{CANARY}-{split}-{index}.nii.gz"
            files.nifti(Path(folder, name), digits.images[index, 0].numpy().astype(np.float32))
            content[key].append({"image": name, "label": int(digits.labels[index])})
    Path(folder, "list.json").write_text(json.dumps(content))
    return Path(folder, "list.json")


def assert_released(output, count, epsilon=8.0):
    """Every image once, a card for each that states the guarantee, a list, a summary, and nothing of a source."""
    names = sorted(path.name for path in output.iterdir())
    numbers = [f"{number:06d}" for number in range(1, count + 1)]
    images = [f"release_{number}.png" for number in numbers]
    cards = [f"release_{number}_privacy.json" for number in numbers]
    assert names == sorted([*images, *cards, "datalist.json", "summary.json"])
    card = json.loads((output / f"release_{numbers[0]}_privacy.json").read_text())
    assert card["guarantee"]["epsilon"] == epsilon and card["guarantee"]["unit"] == "image"
    assert json.loads((output / "summary.json").read_text())["count"] == count
    assert not any(CANARY.encode() in path.read_bytes() for path in output.iterdir())


def test_the_metadata_are_valid_and_broken_ones_are_not(tmp_path):
    verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=str(SCHEMA))
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    for broken in (
        {key: value for key, value in metadata.items() if key != "network_data_format"},
        metadata | {"version": "first"},
        metadata | {"unknown": 1},
    ):
        (tmp_path / "metadata.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match="Failed validating"):
            verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(SCHEMA))


def test_the_network_takes_and_gives_what_the_metadata_say():
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.yaml"),
        device="cpu",
    )


def test_the_trained_privatizer_is_exported_by_tracing_and_draws_afresh(checkpoint, tmp_path):
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(checkpoint),
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.yaml"),
        key_in_ckpt="privatizer",
        use_trace=True,
        input_shape=[1, 1, 8, 8],
        spatial_shape=[8, 8],
        num_directions=4,
        **{"network_def#content#in_subspace": False},  # as in small_images.yaml
    )
    traced = torch.jit.load(str(tmp_path / "model.ts"))
    x = torch.rand(1, 1, 8, 8)
    assert traced(x).shape == x.shape and not torch.equal(traced(x), traced(x))


def test_the_default_data_are_real_and_need_no_download(checkpoint, tmp_path):
    output = release(tmp_path / "released", checkpoint)
    assert_released(output, len(Digits("test")))
    assert (tmp_path / "released_preview.png").exists()
    labels = json.loads((output / "summary.json").read_text())["labels"]
    assert labels == {str(digit): int((Digits("test").labels == digit).sum()) for digit in range(10)}


def test_arrays_in_the_format_of_medmnist(tmp_path):
    source = npz(tmp_path)
    trained = train(tmp_path / "t", dataset_dir=str(source))
    assert_released(release(tmp_path / "released", trained, input=str(source)), 60)


@pytest.mark.parametrize("suffix", ["png", "jpeg"])
def test_one_folder_of_pictures_a_class(tmp_path, suffix):
    source = class_folders(tmp_path, suffix)
    trained = train(tmp_path / "t", dataset_dir=str(source))
    assert_released(release(tmp_path / "released", trained, input=str(source)), 40)
    # A class is known by its name, whichever others are there.
    for name in ("3", "7"):
        shutil.copytree(source / "test" / name, tmp_path / "some" / name)
    (tmp_path / "some" / "@eaDir").mkdir()
    output = release(tmp_path / "of_some", trained, input=str(tmp_path / "some"))
    assert set(json.loads((output / "summary.json").read_text())["labels"]) == {"3", "7"}
    shutil.copytree(source / "test" / "3", tmp_path / "some" / "unknown")
    with pytest.raises(Exception) as caught:
        release(tmp_path / "refused", trained, input=str(tmp_path / "some"))
    assert "not among the classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9;" in refusal(caught)
    assert not (tmp_path / "refused").exists()


def test_a_list_of_nifti_files_with_a_public_range(tmp_path, files):
    source = nifti_list(tmp_path, files)
    options = {"intensity_range": [0, 16]}
    trained = train(tmp_path / "t", dataset_dir=str(source), **options)
    assert_released(release(tmp_path / "released", trained, input=str(source), **options), 30)


def test_a_folder_without_labels_is_released_under_one_stated_condition(checkpoint, tmp_path):
    (tmp_path / "flat").mkdir()
    for index in range(3):
        Image.fromarray(np.full((8, 8), 60 * index, np.uint8)).save(tmp_path / "flat" / f"{CANARY}-{index}.png")
    assert_released(release(tmp_path / "out", checkpoint, input=str(tmp_path / "flat"), condition=7), 3)
    with pytest.raises(Exception) as caught:
        release(tmp_path / "none", checkpoint, input=str(tmp_path / "flat"))
    assert "give the option condition" in refusal(caught) and not (tmp_path / "none").exists()


def test_a_private_label_costs_its_own_epsilon(checkpoint, tmp_path):
    output = release(tmp_path / "released", checkpoint, epsilon=4.0, label_epsilon=1.0)
    card = json.loads((output / "release_000001_privacy.json").read_text())
    assert card["guarantee"]["epsilon"] == 5.0 and card["guarantee"]["public"] == []


def test_the_evaluation_names_originals_prior_only_and_every_epsilon(checkpoint, tmp_path):
    run(
        config_file=str(CONFIGS / "evaluate.yaml"),
        bundle_root=str(BUNDLE),
        checkpoint=str(checkpoint),
        output_file=str(tmp_path / "evaluation.json"),
        epsilons=[8.0],
        spatial_shape=[8, 8],
    )
    rows = json.loads((tmp_path / "evaluation.json").read_text())
    assert [row["name"] for row in rows] == ["originals", "prior only", "epsilon 8"]
    assert all(0 <= row["accuracy"] <= 1 for row in rows)


def test_the_evaluation_knows_class_folders_by_the_names_of_the_model(tmp_path):
    """Of four classes a hospital has two, and the network has four outputs still."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for index in range(8):
            folder = tmp_path / "images" / split / ("class_3", "class_7")[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 255, (8, 8), np.uint8)).save(folder / f"{index}.png")
    inn = ConditionalINN((8, 8), 1, num_classes=4)
    names = ["class_1", "class_3", "class_5", "class_7"]
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 2), condition_names=names), tmp_path / "model.pt")
    options = {"config_file": str(CONFIGS / "evaluate.yaml"), "bundle_root": str(BUNDLE), "epsilons": [8.0]}
    options |= {"checkpoint": str(tmp_path / "model.pt"), "dataset_dir": str(tmp_path / "images")}
    run(**options, output_file=str(tmp_path / "evaluation.json"))
    assert len(json.loads((tmp_path / "evaluation.json").read_text())) == 3
    for split in ("train", "test"):
        (tmp_path / "images" / split / "class_7").rename(tmp_path / "images" / split / "other")
    with pytest.raises(Exception) as caught:
        run(**options, output_file=str(tmp_path / "other.json"))
    assert "not among the classes class_1, class_3, class_5, class_7" in str(caught.value.__cause__ or caught.value)
    assert not (tmp_path / "other.json").exists()


def test_colours_are_released_as_the_checkpoint_has_them(tmp_path):
    """The channels of images are those of the network, whatever is given for the architecture by itself."""
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 255, (8, 12, 3), np.uint8)
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{index}.png")
    inn = ConditionalINN((8, 12), 3)
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 4)), tmp_path / "model.pt")
    output = release(tmp_path / "released", tmp_path / "model.pt", input=str(tmp_path / "in"))
    pictures = [Image.open(path) for path in output.glob("*.png")]
    assert [(picture.mode, picture.size) for picture in pictures] == [("RGB", (12, 8))] * 3


def findings(folder, count=60, num_labels=14):
    """MedMNIST's format with several labels an image, as ChestMNIST has it; the second one brightens a half."""
    generator, arrays = np.random.default_rng(0), {}
    for split in ("train", "val", "test"):
        labels = (generator.random((count, num_labels)) < 0.1).astype(np.uint8)
        labels[:, 1] = generator.integers(0, 2, count)
        images = generator.normal(90, 20, (count, 8, 8))
        images[:, :4] += 100 * labels[:, 1, None, None]
        arrays |= {f"{split}_images": images.clip(0, 255).astype(np.uint8), f"{split}_labels": labels}
    np.savez(Path(folder, "findings.npz"), **arrays)
    return Path(folder, "findings.npz"), arrays


def test_images_of_several_labels_from_training_to_a_classifier_of_releases(tmp_path):
    source, arrays = findings(tmp_path)
    trained = train(tmp_path / "t", "multi_label", dataset_dir=str(source), num_content_samples=64)
    assert load_network(trained).condition_space.condition_size == 14
    output = release(tmp_path / "released", trained, input=str(source))
    assert_released(output, 60)
    # As they came: labels are public.
    listed = open_images(output / "datalist.json", split="train", spatial_shape=(8, 8))
    labels = torch.stack([listed[index]["label"] for index in range(len(listed))])
    assert sorted(labels.tolist()) == sorted(arrays["test_labels"].astype(float).tolist())
    # Whoever has the release trains with it as with any data set.
    again = train(tmp_path / "again", "multi_label", dataset_dir=str(output / "datalist.json"), num_content_samples=64)
    assert load_network(again).condition_space.condition_size == 14
    run(
        config_file=str(CONFIGS / "evaluate.yaml"),
        bundle_root=str(BUNDLE),
        checkpoint=str(trained),
        dataset_dir=str(source),
        output_file=str(tmp_path / "evaluation.json"),
        epsilons=[8.0],
        spatial_shape=[8, 8],
    )
    rows = json.loads((tmp_path / "evaluation.json").read_text())
    assert [row["name"] for row in rows] == ["originals", "prior only", "epsilon 8"]
    assert all(0 <= row["auc"] <= 1 for row in rows) and "kept_mean" in rows[1]


def test_several_labels_have_a_budget_together_and_those_that_are_no_labels_are_refused(tmp_path):
    source, arrays = findings(tmp_path, num_labels=3)
    trained = train(tmp_path / "t", "multi_label", dataset_dir=str(source), num_labels=3, num_content_samples=64)
    output = release(tmp_path / "released", trained, input=str(source), epsilon=4.0, label_epsilon=3.0)
    card = json.loads((output / "release_000001_privacy.json").read_text())
    assert card["guarantee"]["epsilon"] == 7.0 and card["guarantee"]["public"] == []
    listed = json.loads((output / "datalist.json").read_text())["training"]
    assert sorted(entry["label"] for entry in listed) != sorted(arrays["test_labels"].astype(float).tolist())
    np.savez(source, **{**arrays, "test_labels": 0.5 * arrays["test_labels"]})
    with pytest.raises(Exception) as caught:
        release(tmp_path / "out", trained, input=str(source), label_epsilon=3.0)
    assert "something besides 0 and 1" in refusal(caught) and not (tmp_path / "out").exists()


def test_films_larger_than_32_pixels_are_augmented_and_held_out_by_patient(tmp_path):
    arrays, generator = {}, np.random.default_rng(0)
    for split in ("train", "test"):
        coarse = generator.integers(0, 255, (20, 5, 6), np.uint8)
        arrays[f"{split}_images"] = coarse.repeat(8, 1).repeat(8, 2)
        arrays[f"{split}_labels"] = generator.integers(0, 2, (20, 1))
        arrays[f"{split}_patients"] = np.arange(20) // 2
    np.savez(tmp_path / "films.npz", **arrays)
    run(
        config_file=str(CONFIGS / "train.yaml"),
        bundle_root=str(BUNDLE),
        dataset_dir=str(tmp_path / "films.npz"),
        checkpoint=str(tmp_path / "model.pt"),
        output_dir=str(tmp_path / "runs"),
        spatial_shape=[40, 48],
        num_classes=2,
        num_directions=4,
        max_epochs=2,
    )
    network = load_network(tmp_path / "model.pt")
    assert (network.num_flows, network.num_parts) == (4, 5) and network.has_refiner
    assert float(network.input_noise) == pytest.approx(0.01)
    assert_released(release(tmp_path / "out", tmp_path / "model.pt", input=str(tmp_path / "films.npz")), 20)


def test_an_interrupted_training_goes_on_where_it_was(tmp_path):
    train(tmp_path / "t", max_epochs=1)
    train(tmp_path / "t", max_epochs=2)
    state = torch.load(tmp_path / "t" / "runs" / "last.pt", weights_only=True)
    assert state["trainer"]["iteration"] == 2 * -(-round(0.9 * len(Digits("train"))) // 128)


def refusal(caught):
    """MONAI wraps what a config's part raises; the innermost is ours."""
    error = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


@pytest.mark.parametrize("epsilon", [None, 0.0, -1.0, float("nan")])
def test_without_a_usable_epsilon_nothing_is_written(checkpoint, tmp_path, epsilon):
    with pytest.raises(Exception) as caught:
        release(tmp_path / "released", checkpoint, epsilon=epsilon)
    assert "epsilon is" in refusal(caught)
    assert not list(tmp_path.iterdir())


def test_bad_input_leaves_no_folder_behind(checkpoint, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    with pytest.raises(Exception) as caught:
        release(tmp_path / "out", checkpoint, input=str(source))
    assert "holds no image file" in refusal(caught)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(source / "a.png")
    (source / f"{CANARY}.png").write_bytes(b"not a picture")
    with pytest.raises(Exception) as caught:
        release(tmp_path / "out", checkpoint, input=str(source), condition=1)
    assert "1 of 2 images cannot be read" in refusal(caught) and CANARY not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out_problems.csv"]
    (problem,) = (tmp_path / "out_problems.csv").read_text().splitlines()[1:]
    assert f"{CANARY}.png" in problem and "could not be decoded" in problem


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(Exception) as caught:
        release(tmp_path / "out", tmp_path / "other.pt")
    assert "checkpoint could not be read" in refusal(caught)
    assert [path.name for path in tmp_path.iterdir()] == ["other.pt"]


def private_training(checkpoint):
    return load_privatizer(checkpoint, SubsetSelection(1.0, num_candidates=64)).guarantee.training_data.guarantee


def test_private_training_spends_its_budget_and_every_release_says_so(tmp_path):
    trained = train_privately(tmp_path, epsilon=6.0, delta=1e-5, rank=8)
    spent = private_training(trained)
    assert 0.98 * 6.0 < spent["epsilon"] <= 6.0 and spent["delta"] == 1e-5 and spent["unit"] == "image"
    released = release(tmp_path / "released", trained)
    card = json.loads(next(released.rglob("*_privacy.json")).read_text())
    assert card["guarantee"]["training_data"]["protection"] == "dp"
    assert card["guarantee"]["training_data"]["guarantee"]["epsilon"] == spent["epsilon"]


def test_a_network_of_public_images_is_trained_further_privately(tmp_path):
    public = train(tmp_path / "public", training_data="public")
    trained = train_privately(tmp_path / "private", "finetune_dp", pretrained=str(public), epsilon=6.0, delta=1e-5)
    # Nothing was spent on moments.
    (event,) = [event for event in load_network(trained).training_events if event["protection"] == "dp"]
    assert [part[1] < 1 for part in event["guarantee"]["sums"]] == [True]
    assert load_network(trained).fingerprint() != load_network(public).fingerprint()


def test_private_training_needs_a_budget_and_refuses_a_network_of_private_images(tmp_path, checkpoint):
    with pytest.raises(Exception) as caught:
        train_privately(tmp_path, delta=1e-5)
    assert "epsilon is None; expected a finite number above 0" in refusal(caught)
    with pytest.raises(Exception) as caught:
        train_privately(tmp_path, "finetune_dp", pretrained=str(checkpoint), epsilon=6.0, delta=1e-5)
    assert "nothing can undo" in refusal(caught)


def test_two_processes_train_one_network(tmp_path):
    configs = str([str(CONFIGS / f"{name}.yaml") for name in ("train", "small_images", "multi_gpu_train")])
    options = {"bundle_root": BUNDLE, "checkpoint": tmp_path / "model.pt", "output_dir": tmp_path / "runs"}
    options |= {"backend": "gloo", "max_epochs": 1, **SMALL}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, "-m", "monai.bundle", "run", "--config_file", configs]
    done = subprocess.run(
        [*command, *(part for name, value in options.items() for part in (f"--{name}", str(value)))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert TrainingData.of(load_network(tmp_path / "model.pt")).protection == "unprotected"
