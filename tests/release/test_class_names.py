# SPDX-License-Identifier: Apache-2.0
"""A class is known by its name: releases never carry the label of another class than their originals'."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from monai_cadp.data import class_names_of, open_images, open_originals
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.privacy import Budget, PriorOnly, PrivacyLedger, SubsetSelection
from monai_cadp.release import Privatizer, RecordedReleaser, release_batches, release_folder
from monai_cadp.release.checkpoint import load_network, load_privatizer, save_model

NAMES = ["class_1", "class_3", "class_5", "class_7"]


def model(names=NAMES, num_classes=4):
    inn = ConditionalINN(spatial_shape=(4, 4), num_classes=num_classes)
    return TrainedModel(inn, ContentBasis.leading(inn, 2), condition_names=names)


def privatizer(names=NAMES, num_classes=4):
    return Privatizer(model(names, num_classes), SubsetSelection(epsilon=4.0))


@pytest.fixture
def folder(tmp_path):
    """Images of the second and the last class, and what a file server has left beside them."""
    for name in ("class_3", "class_7", "@eaDir"):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.fromarray(np.full((4, 4), 99, np.uint8)).save(tmp_path / "in" / name / "a.png")
    return tmp_path / "in"


def published(output):
    return sorted(json.loads(path.read_text())["label"] for path in output.glob("*_privacy.json"))


def test_a_folder_of_some_classes_is_released_under_the_labels_of_the_model(folder, tmp_path):
    releaser = privatizer()
    images = open_originals(folder, None, (4, 4), class_names=releaser.condition_space.names)
    assert published(release_folder(releaser, images, tmp_path / "out")) == [1, 3]


def test_a_folder_that_was_opened_without_the_names_of_the_model_is_refused(folder, tmp_path, refused):
    releaser, images = privatizer(), open_originals(folder, None, (4, 4))
    said = "2 class folders of the images are not the classes of the model, which are class_1, class_3"
    with refused(ValueError, said):
        release_folder(releaser, images, tmp_path / "out")
    with refused(ValueError, said):
        next(release_batches(releaser, images))
    with refused(ValueError, said):
        release_folder(releaser.with_mechanism(PriorOnly()), images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_the_model_does_not_know_is_refused_and_nothing_is_spent(folder, tmp_path, refused):
    with refused(ValueError, "1 sub folders that are not among the classes class_1, class_2, class_3, class_4;"):
        open_originals(folder, None, (4, 4), class_names=["class_1", "class_2", "class_3", "class_4"])
    ledger = PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(epsilon=8.0))
    images = open_originals(folder, None, (4, 4), subject_pattern="(.)")
    with refused(ValueError, "2 class folders of the images are not the classes of the model"):
        release_folder(privatizer(), images, tmp_path / "out", ledger=ledger)
    with refused(ValueError, "2 class folders of the images are not the classes of the model"):
        release_folder(RecordedReleaser(privatizer(), ledger), images, tmp_path / "out")
    assert ledger.spent("a") == (0.0, 0.0) and not (tmp_path / "out").exists()


def test_a_model_without_names_takes_as_many_folders_as_it_has_classes_and_says_how(folder, tmp_path):
    images = open_originals(folder, None, (4, 4))
    with pytest.warns(UserWarning, match="2 class folders, sorted by their names, are taken for its classes 0 to 1"):
        assert published(release_folder(privatizer(None, 2), images, tmp_path / "out")) == [0, 1]


def test_a_model_without_names_takes_no_other_number_of_folders(folder, tmp_path, refused):
    with refused(ValueError, "2 named classes, but the model has 4 without names; give class_names"):
        release_folder(privatizer(None), open_originals(folder, None, (4, 4)), tmp_path / "out")


def test_names_are_no_part_of_what_a_ledger_knows_a_release_by():
    named, nameless = model(), model(None)
    nameless.network.load_state_dict(named.network.state_dict())
    one, other = (Privatizer(part, SubsetSelection(epsilon=4.0)) for part in (named, nameless))
    assert one.identity == other.identity and one.guarantee == other.guarantee


def test_sources_without_class_folders_have_numbers(tmp_path):
    arrays = {"test_images": np.zeros((2, 4, 4), np.uint8), "test_labels": np.array([[1], [3]])}
    np.savez(tmp_path / "a.npz", **arrays)
    images = open_originals(tmp_path / "a.npz", None, (4, 4), class_names=NAMES)
    assert published(release_folder(privatizer(), images, tmp_path / "out")) == [1, 3]


def test_a_checkpoint_without_names_can_be_told_them_and_one_with_names_no_others(tmp_path, refused):
    mechanism = SubsetSelection(epsilon=4.0)
    save_model(model(None), tmp_path / "nameless.pt")
    save_model(model(), tmp_path / "named.pt")
    told = load_privatizer(tmp_path / "nameless.pt", mechanism, class_names=NAMES)
    kept = load_privatizer(tmp_path / "named.pt", mechanism)
    assert list(told.condition_space.names) == list(kept.condition_space.names) == NAMES
    spelled = load_privatizer(tmp_path / "named.pt", mechanism, class_names=[name.replace("_", " ") for name in NAMES])
    assert spelled.condition_space.names[0] == "class 1"
    for load in (load_network, lambda path, **names: load_privatizer(path, mechanism, **names)):
        with refused(ValueError, "those of the checkpoint are class_1, class_3, class_5, class_7, in this order"):
            load(tmp_path / "named.pt", class_names=NAMES[::-1])


def test_a_network_goes_on_with_images_of_its_own_classes_only(folder, tmp_path, refused):
    save_model(model(["class_3", "class_7"], 2), tmp_path / "model.pt")
    names = open_images(folder, "train", (4, 4)).class_names
    assert load_network(tmp_path / "model.pt", class_names=names).condition_space.num_classes == 2
    (folder / "class_0").mkdir()
    names = open_images(folder, "train", (4, 4)).class_names
    with refused(ValueError, "Other names of classes were given, but those of the checkpoint"):
        load_network(tmp_path / "model.pt", class_names=names)


def test_no_error_and_no_warning_names_a_folder_that_may_be_called_after_a_patient(folder, tmp_path, files):
    """A folder with one sub folder a patient is easily given in the place of one with classes."""
    for name in ("class_3", "class_7"):
        (folder / name).rename(folder / f"Mustermann_{name}")
    images, said = open_originals(folder, None, (4, 4)), []
    with pytest.warns(UserWarning) as caught:
        release_folder(privatizer(None, 2), images, tmp_path / "out")
    said += [str(warning.message) for warning in caught]
    for releaser in (privatizer(), privatizer(None)):
        with pytest.raises(ValueError) as error:
            release_folder(releaser, images, tmp_path / "other")
        said.append(str(error.value))
    save_model(model(), tmp_path / "model.pt")
    with pytest.raises(ValueError) as error:
        load_network(tmp_path / "model.pt", class_names=class_names_of(images))
    with pytest.raises(ValueError) as of_split:
        for split, names in (("train", ("Mustermann_a", "b")), ("test", ("Mustermann_c", "b"))):
            for name in names:
                (tmp_path / "splits" / split / name).mkdir(parents=True)
                files.picture(tmp_path / "splits" / split / name / "film.png", np.zeros((4, 4)))
        open_originals(tmp_path / "splits", "test", (4, 4))
    said += [str(error.value), str(of_split.value)]
    assert "call every one by its class" in said[-1] and not any("Mustermann" in one for one in said)
