# SPDX-License-Identifier: Apache-2.0
"""A released folder is whole or not there at all."""

from __future__ import annotations

import traceback

import numpy as np
import pytest
import torch
from PIL import Image

from monai_cadp.release import ReleasedFolder

CANARY = "Mustermann-1954"
GUARANTEE = {"unit": "image", "relation": "replace-one", "epsilon": 8.0, "delta": 0.0, "mechanism": "SubsetSelection"}


def release(folder, images, labels=None, guarantees=None):
    with ReleasedFolder(folder, num_expected=len(images)) as released:
        for index, image in enumerate(images):
            released.write(
                image,
                guarantee=GUARANTEE if guarantees is None else guarantees[index],
                label=None if labels is None else labels[index],
            )
    return folder


def marked(count, shape=(1, 4, 4)):
    """Images whose brightness tells their place in the source."""
    return [torch.full(shape, index / 255) for index in range(count)]


def order(folder):
    """Places in the source in the order of the released numbers."""
    return [int(np.asarray(Image.open(path))[0, 0]) for path in sorted(folder.glob("*.png"))]


def test_a_folder_with_content_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "earlier.png").write_bytes(b"earlier")
    with pytest.raises(ValueError, match="not empty") as caught:
        ReleasedFolder(tmp_path / "out", num_expected=1)
    assert str(tmp_path) not in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "earlier.png"]


def test_a_folder_that_was_filled_meanwhile_is_left_as_it_is(tmp_path):
    with pytest.raises(ValueError, match="not empty"):
        with ReleasedFolder(tmp_path / "out", num_expected=1) as released:
            released.write(torch.zeros(1, 4, 4), guarantee=GUARANTEE)
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "other.png").write_bytes(b"other")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["other.png", "out"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ValueError, match="file or a link"):
        ReleasedFolder(tmp_path / "out", num_expected=1)


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    assert len(order(release(tmp_path / "empty", marked(2)))) == 2
    assert len(order(release(tmp_path / "new" / "study" / "out", marked(2)))) == 2


def test_nothing_is_there_before_the_end_and_nothing_else_after_it(tmp_path):
    with ReleasedFolder(tmp_path / "out", num_expected=1) as released:
        released.write(torch.zeros(1, 4, 4), guarantee=GUARANTEE)
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_nothing_is_left_behind_after_an_error(tmp_path, error):
    with pytest.raises(error):
        with ReleasedFolder(tmp_path / "study" / "out", num_expected=2) as released:
            released.write(torch.zeros(1, 4, 4), guarantee=GUARANTEE)
            raise error
    assert list(tmp_path.iterdir()) == []


def test_too_few_images_are_no_release(tmp_path):
    with pytest.raises(ValueError, match="1 of 2 expected"):
        with ReleasedFolder(tmp_path / "out", num_expected=2) as released:
            released.write(torch.zeros(1, 4, 4), guarantee=GUARANTEE)
    assert list(tmp_path.iterdir()) == []


def test_too_many_images_are_no_release(tmp_path):
    with pytest.raises(ValueError, match="More than the 1 expected"):
        with ReleasedFolder(tmp_path / "out", num_expected=1) as released:
            for image in marked(2):
                released.write(image, guarantee=GUARANTEE)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_error_is_told_without_a_path(tmp_path):
    with pytest.raises(OSError, match="could not be written") as caught:
        with ReleasedFolder(tmp_path / "out", num_expected=1) as released:
            for left in [path for path in tmp_path.iterdir() if path.is_dir()]:
                (left / "drafts").rename(left / "gone")
            released.write(torch.zeros(1, 4, 4), guarantee=GUARANTEE)
    shown = "".join(traceback.format_exception(caught.value))
    assert str(tmp_path) not in shown and "release_0" not in shown and caught.value.filename is None
    assert list(tmp_path.iterdir()) == []


def test_writing_outside_of_the_context_is_refused(tmp_path):
    released = ReleasedFolder(tmp_path / "out", num_expected=1)
    with pytest.raises(RuntimeError, match="closed"):
        released.write(torch.zeros(1, 4, 4), guarantee=GUARANTEE)
    with released:
        released.write(torch.zeros(1, 4, 4), guarantee=GUARANTEE)
    with pytest.raises(RuntimeError, match="closed"):
        released.write(torch.zeros(1, 4, 4), guarantee=GUARANTEE)


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(4, 4),
        torch.zeros(2, 4, 4),
        torch.zeros(1, 0, 4),
        torch.full((1, 4, 4), torch.nan),
        torch.zeros(1, 5, 4),
    ],
    ids=["rank", "channels", "empty", "not a number", "another shape"],
)
def test_an_image_that_does_not_fit_is_refused_and_may_be_mended(tmp_path, image):
    with ReleasedFolder(tmp_path / "out", num_expected=2) as released:
        released.write(torch.zeros(1, 4, 4), guarantee=GUARANTEE)
        with pytest.raises(ValueError, match="A released image"):
            released.write(image, guarantee=GUARANTEE)
        released.write(torch.ones(1, 4, 4), guarantee=GUARANTEE)
    assert sorted(order(tmp_path / "out")) == [0, 255]


@pytest.mark.parametrize(
    "guarantee", [{}, {"epsilon": float("nan")}, {"epsilon": torch.tensor(1.0)}, {"epsilon": object()}]
)
def test_a_release_without_a_stated_guarantee_is_refused(tmp_path, guarantee):
    with pytest.raises(ValueError, match="guarantee"):
        release(tmp_path / "out", [torch.zeros(1, 4, 4)], guarantees=[guarantee])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", [CANARY, True, 0.5, [], [float("nan")], [CANARY]], ids=str)
def test_a_label_that_is_no_number_is_refused_unseen(tmp_path, label):
    with pytest.raises(ValueError, match="label") as caught:
        release(tmp_path / "out", [torch.zeros(1, 4, 4)], labels=[label])
    assert CANARY not in str(caught.value)


def test_an_expected_number_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="num_expected"):
        ReleasedFolder(tmp_path / "out", num_expected=0)
