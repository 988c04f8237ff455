# SPDX-License-Identifier: Apache-2.0
"""A datalist gives image, label and subject, and nothing else that it may hold."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch

from monai_cadp.data import ImageList

CANARY = "Mustermann-1954"
RANGE = (0.0, 100.0)


@pytest.fixture
def folder(tmp_path):
    for index in range(3):
        array = np.full((4, 4, 4), 10.0 * index, dtype=np.float32)
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"{CANARY}-{index}.nii.gz")
    return tmp_path


def entries(**more):
    return [
        {"image": f"{CANARY}-{i}.nii.gz", **{key: values[i] for key, values in more.items()}} for i in range(3)
    ]  # fmt: skip


def test_volumes_are_read_with_their_labels(folder):
    images = ImageList(entries(label=[2, 0, 1]), (4, 4, 4), 1, RANGE, base_dir=folder)
    assert [int(images[i]["label"]) for i in range(3)] == [2, 0, 1]
    assert [round(float(images[i]["image"].mean()), 6) for i in range(3)] == [0.0, 0.1, 0.2]
    assert images[0]["label"].dtype == torch.int64 and images[0]["image"].shape == (1, 4, 4, 4)


def test_paths_in_a_file_are_relative_to_the_file(folder):
    (folder / "list.json").write_text(json.dumps({"training": entries(label=[0, 0, 0]), "test": entries()[:1]}))
    assert len(ImageList(folder / "list.json", (4, 4, 4), 1, RANGE)) == 3
    images = ImageList(str(folder / "list.json"), (4, 4, 4), 1, RANGE, datalist_key="test")
    assert len(images) == 1 and list(images[0]) == ["image"]


def test_absolute_paths_stay_as_they_are(folder, tmp_path_factory):
    listed = [{"image": str(folder / entry["image"])} for entry in entries()]
    assert len(ImageList(listed, (4, 4, 4), 1, RANGE, base_dir=tmp_path_factory.mktemp("other"))[0]["image"]) == 1


def test_vectors_are_labels_too(folder):
    images = ImageList(entries(label=[[1, 0.5], [0, 1], [0, 0]]), (4, 4, 4), 1, RANGE, base_dir=folder)
    assert images[0]["label"].tolist() == [1.0, 0.5] and images[0]["label"].dtype == torch.float32


def test_the_subject_is_handed_on_and_every_other_key_is_dropped(folder):
    listed = entries(subject=["a", "b", "b"], birthday=["1954", "1955", "1955"])
    item = ImageList(listed, (4, 4, 4), 1, RANGE, base_dir=folder)[1]
    assert list(item) == ["image", "subject", "item"] and item["subject"] == "b"
    assert not any(name in item["item"] for name in ("/", ".", "b.nii"))


@pytest.mark.parametrize(
    "listed",
    [
        [],
        {"image": "a.nii"},
        ["a.nii"],
        [{"label": 1}],
        [{"image": 3}],
        [{"image": "a", "label": 1}, {"image": "b"}],
        [{"image": "a", "label": 1}, {"image": "b", "label": [1.0]}],
        [{"image": "a", "label": [1.0, 2.0]}, {"image": "b", "label": [1.0]}],
        [{"image": "a", "label": "1"}],
        [{"image": "a", "label": -1}],
        [{"image": "a", "label": True}],
        [{"image": "a", "label": []}],
        [{"image": "a", "subject": "x"}, {"image": "b"}],
        [{"image": "a", "subject": ""}],
        [{"image": "a", "subject": None}],
    ],
    ids=str,
)
def test_an_entry_of_another_form_is_refused_before_anything_is_read(listed):
    with pytest.raises(ValueError, match="expected"):
        ImageList(listed, (4, 4, 4), 1, RANGE)


@pytest.mark.parametrize(
    ("listed", "match"),
    [
        ([], '^The datalist is empty; expected a list of entries {"image": path}'),
        ({"image": "a"}, "^The datalist is no list"),
        ([{"image": "a"}, {"image": ["b", "c"]}], "^Entry 2 of 2 .*expected the path of one file"),
        ([{"image": "a", "label": 1}, {"image": "b"}], "^1 of 2 entries .*: add the others, or remove these"),
    ],
)
def test_the_form_of_a_list_is_refused_with_what_came_and_what_to_do(refused, listed, match):
    with refused(ValueError, match):
        ImageList(listed, (4, 4, 4), 1, RANGE)


def test_an_image_whose_name_is_too_long_is_said_not_to_exist(tmp_path, refused):
    with refused(ValueError, "does not exist"):
        ImageList([{"image": 20 * CANARY}], (4, 4, 4), 1, RANGE, base_dir=tmp_path)[0]


@pytest.mark.parametrize("subject", [112, 12.0, True, float("nan")])
def test_a_subject_that_is_no_text_is_refused_with_how_to_type_it(refused, subject):
    with refused(ValueError, "put it in quotes"):
        ImageList([{"image": "a.nii", "subject": subject}], (4, 4, 4), 1, RANGE)


@pytest.mark.parametrize("other", ["./img/a.nii", "img//a.nii", "img/b/../a.nii", "img\\a.nii", "img/a.nii "])
def test_an_image_that_is_listed_twice_is_refused_by_its_positions(tmp_path, refused, other):
    listed = [{"image": "img/b.nii"}, {"image": "img/a.nii"}, {"image": other}]
    with refused(ValueError, "numbers 2 and 3"):
        ImageList(listed, (4, 4, 4), 1, RANGE)
    with refused(ValueError, "numbers 2 and 3"):
        ImageList(listed, (4, 4, 4), 1, RANGE, base_dir=tmp_path)


def test_an_image_is_the_same_item_however_its_path_was_typed(folder, monkeypatch):
    def item(image, base_dir=folder):
        return ImageList([{"image": image, "subject": "a"}], (4, 4, 4), 1, RANGE, base_dir=base_dir)[0]["item"]

    name = entries()[0]["image"]
    monkeypatch.chdir(folder)
    (folder / "x").mkdir()
    assert len({item(name), item(f"./{name}"), item(str(folder / name)), item(name, "."), item(f"x/../{name}")}) == 1


def test_lists_of_two_splits_name_two_items(tmp_path, files):
    items = []
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        files.nifti(tmp_path / split / "a.nii", np.zeros((4, 4, 4), np.int16))
        listed = [{"image": "a.nii", "subject": "anna"}]
        items.append(ImageList(listed, (4, 4, 4), 1, RANGE, base_dir=tmp_path / split)[0]["item"])
    assert items[0] != items[1]


@pytest.mark.parametrize("content", [None, "", "[]", '{"training": ', '{"Mustermann-1954": ['], ids=str)
def test_a_damaged_file_is_refused_without_name_and_content(tmp_path, content):
    path = tmp_path / f"{CANARY}.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match="does not exist" if content is None else "no JSON object") as caught:
        ImageList(path, (4, 4, 4))
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None and caught.value.__cause__ is None


def test_a_missing_key_is_refused_without_the_keys_there_are(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({CANARY: []}))
    with pytest.raises(ValueError, match="'training'") as caught:
        ImageList(tmp_path / "a.json", (4, 4, 4))
    assert CANARY not in str(caught.value)


def test_a_missing_image_is_refused_without_its_name(folder):
    (folder / f"{CANARY}-1.nii.gz").unlink()
    images = ImageList(entries(), (4, 4, 4), 1, RANGE, base_dir=folder)
    with pytest.raises(ValueError, match="does not exist") as caught:
        images[1]
    assert CANARY not in str(caught.value)
