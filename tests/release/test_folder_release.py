# SPDX-License-Identifier: Apache-2.0
"""A release into a folder that is killed again and again ends as one that was not."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Subset
from tqdm import tqdm

from monai_cadp import Privatizer
from monai_cadp.data import (
    FlatFolder,
    LabelledVolumes,
    PublicGrid,
    ReadLabelledVolume,
    ReadVolume,
    VolumeFiles,
    WithMasks,
    open_images,
)
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.privacy import Budget, BudgetExceededError, PriorOnly, PrivacyLedger, SubsetSelection
from monai_cadp.release import release_batches, release_folder
from monai_cadp.release.checkpoint import save_model

SHAPE = (1, 4, 4)
NUM_IMAGES = 60
NUM_KILLS = 50


class Cohort(torch.utils.data.Dataset):
    """Three images of every subject."""

    def __init__(self, count=NUM_IMAGES, subjects=True):
        self.pixels = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))
        self.subjects = subjects

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        item = {"image": self.pixels[index], "label": torch.tensor(index % 3)}
        return item | ({"subject": f"person {index // 3}"} if self.subjects else {})


@pytest.fixture
def privatizer():
    torch.manual_seed(0)
    inn = ConditionalINN(SHAPE[1:], 1, num_classes=3, width=8, num_couplings=2)
    return Privatizer(inn, SubsetSelection(2.0, num_candidates=64), ContentBasis.leading(inn, 4))


@pytest.fixture
def ledger(tmp_path):
    return PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(epsilon=6.0))


def test_cards_are_in_order_with_the_whole_set_first_and_beside_them_is_a_preview(privatizer, tmp_path):
    folder = release_folder(privatizer, Cohort(6), tmp_path / "out", num_preview=6)
    for card in sorted(folder.rglob("*.json")):
        names = list(json.loads(card.read_text()))
        names = names[names[0] == "set_guarantee" :]
        assert names == sorted(names), card.name
    assert Image.open(tmp_path / "out_preview.png").size[0] >= 6 * SHAPE[2]


@pytest.mark.parametrize("options", [{"num_pieces": 0, "num_mask_classes": 2}, {"num_pieces": 1}])
def test_pieces_of_no_masks_or_none_are_refused(privatizer, tmp_path, refused, options):
    with refused(ValueError, "num_pieces is .*expected 1 or more, for images with num_mask_classes"):
        release_folder(privatizer, Cohort(2), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_every_card_says_how_images_were_drawn_from_latents(privatizer, tmp_path):
    cooler = Privatizer(privatizer.inn, privatizer.mechanism, privatizer.content, temperature=0.5)
    for releaser, temperature in ((privatizer, 1.0), (cooler, 0.5)):
        folder = release_folder(releaser, Cohort(3, subjects=False), tmp_path / f"at_{temperature}")
        cards = [json.loads(path.read_text()) for path in folder.glob("*_privacy.json")]
        drawing = {"temperature": temperature, "detail_temperature": 1.0, "refined": False}
        assert [card["drawing"] for card in cards] == [drawing] * 3


def pictures(folder):
    """The released pixels with their labels, in an order of their own."""
    cards = {path.name.split("_privacy")[0]: json.loads(path.read_text()) for path in folder.glob("*_privacy.json")}
    return sorted(
        (cards[path.stem]["label"], np.asarray(Image.open(path)).tobytes()) for path in folder.glob("release_*.png")
    )


def contents(folder):
    """Key and content of every stored release."""
    with closing(sqlite3.connect(folder / "ledger.db")) as connection:
        return dict(connection.execute("SELECT key, content FROM contents JOIN entries USING (sequence)"))


def attempt(privatizer, ledger, output):
    # The lock of progress bars is shared by forks: a killed one that holds it would stop all others.
    tqdm.set_lock(threading.RLock())
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    release_folder(privatizer, Cohort(), output, batch_size=1, ledger=ledger)


@pytest.mark.slow
def test_fifty_kills_at_random_moments_break_nothing(privatizer, ledger, tmp_path):
    context = multiprocessing.get_context("fork")
    output = tmp_path / "released"
    moments = random.Random(0)
    seen: dict[str, bytes] = {}
    interrupted = 0
    longest = 0.05
    for _ in range(NUM_KILLS):
        process = context.Process(target=attempt, args=(privatizer, ledger, output))
        process.start()
        # The moments need not be the same every time: whatever they are, the claims hold.
        process.join(moments.uniform(0.0, longest))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            interrupted += 1
        else:
            longest = max(longest * 0.7, 0.02)
        process.join()
        stored = contents(tmp_path)
        assert all(stored[key] == content for key, content in seen.items()), "an image has two releases"
        seen = stored
        assert all(ledger.spent(f"person {index}")[0] <= 6.0 for index in range(NUM_IMAGES // 3))
        assert not output.exists() or len(pictures(output)) == NUM_IMAGES
        if output.exists():
            for path in output.iterdir():
                path.unlink()
            output.rmdir()
        elif longest < 2.0:
            longest *= 1.1
    assert interrupted >= NUM_KILLS // 2
    assert ledger.verify() == []
    release_folder(privatizer, Cohort(), output, batch_size=1, ledger=ledger)
    assert all(contents(tmp_path)[key] == content for key, content in seen.items())
    assert len(pictures(output)) == NUM_IMAGES == len(contents(tmp_path)) == ledger.summary()["reserved"]
    assert ledger.verify() == []
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("ledger")) == ["released"]


def test_a_second_folder_holds_the_same_releases_and_costs_nothing(privatizer, ledger, tmp_path):
    for name in ("first", "second"):
        release_folder(privatizer, Cohort(), tmp_path / name, batch_size=16, ledger=ledger)
    assert pictures(tmp_path / "first") == pictures(tmp_path / "second")
    assert ledger.summary()["reserved"] == NUM_IMAGES


class NumberedCohort(Cohort):
    """People by texts that look like numbers, and images by numbers."""

    def __getitem__(self, index):
        return super().__getitem__(index) | {"subject": f"{index // 3}", "item": index % 3}


def test_a_ledger_changes_neither_the_order_nor_the_number_of_the_releases(privatizer, ledger):
    cohort = NumberedCohort()
    labels = [
        torch.cat([used for _, used in release_batches(privatizer, cohort, 7, ledger=each)]) for each in (None, ledger)
    ]
    assert torch.equal(*labels) and len(labels[0]) == NUM_IMAGES
    assert {ledger.spent(str(person)) for person in range(NUM_IMAGES // 3)} == {(6.0, 0.0)}


def test_over_the_cap_there_is_no_folder(privatizer, ledger, tmp_path):
    ledger.set_budget("person 19", 5.0)
    with pytest.raises(BudgetExceededError):
        release_folder(privatizer, Cohort(), tmp_path / "released", batch_size=16, ledger=ledger)
    assert not (tmp_path / "released").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_subjects_over_the_cap_are_named_in_a_file_for_the_curator_alone(privatizer, ledger, tmp_path, refused):
    ledger.set_budget("person 19", 5.0)
    with refused(BudgetExceededError, "1 of .* subjects .*, who are named in released_problems.csv beside the output"):
        release_folder(privatizer, Cohort(), tmp_path / "released", batch_size=16, ledger=ledger)
    problems = tmp_path / "released_problems.csv"
    assert problems.stat().st_mode & 0o777 == 0o600
    assert problems.read_text().splitlines() == ["what,problem", "person 19,over the cap of its budget"]


def small_privatizer():
    inn = ConditionalINN((8, 8))
    return Privatizer(inn, PriorOnly(), ContentBasis.leading(inn, 2))


@pytest.fixture
def mixed(tmp_path, files):
    """Twenty files, two of which are damaged."""
    (tmp_path / "films").mkdir()
    for number in range(20):
        files.picture(tmp_path / "films" / f"{number:02d}.png", np.full((8, 8), 10 * number))
    for number in (3, 17):
        (tmp_path / "films" / f"{number:02d}.png").write_bytes(b"damaged")
    return FlatFolder(tmp_path / "films", spatial_shape=(8, 8))


def test_images_that_cannot_be_read_are_named_in_a_file_for_the_curator_alone(tmp_path, mixed, refused, capfd):
    with refused(ValueError, "2 of 20 images cannot be read, and nothing was released; .* released_problems.csv"):
        release_folder(small_privatizer(), mixed, tmp_path / "released")
    problems = tmp_path / "released_problems.csv"
    assert problems.stat().st_mode & 0o777 == 0o600
    named = [row.split(",")[0] for row in problems.read_text().splitlines()[1:]]
    assert named == [str(tmp_path / "films" / name) for name in ("03.png", "17.png")]
    assert not (tmp_path / "released").exists()
    assert "17.png" not in "".join(capfd.readouterr())


def test_files_are_read_once_more_only_where_one_could_not_be_read(tmp_path, mixed, refused):
    intact = Subset(mixed, [0, 1, 2])
    (tmp_path / "released").mkdir()
    (tmp_path / "released" / "something").touch()
    read = []
    mixed.read_image, plain = lambda path: read.append(path) or plain(path), mixed.read_image
    with refused(ValueError, "not empty"):
        release_folder(small_privatizer(), intact, tmp_path / "released")
    assert len(read) < 3 and not (tmp_path / "released_problems.csv").exists()


def test_the_others_are_released_where_unreadable_images_may_be_left_out(tmp_path, mixed):
    release_folder(small_privatizer(), mixed, tmp_path / "released", skip_unreadable=True)
    assert len(list((tmp_path / "released").glob("*.png"))) == 18
    for name in ("summary.json", "release_000001_privacy.json"):
        assert json.loads((tmp_path / "released" / name).read_text())["left_out"] == 2
    assert len((tmp_path / "released_problems.csv").read_text().splitlines()) == 3


def flat(root, files):
    files.picture(root / "a.png", np.zeros((8, 8)))
    return FlatFolder(root, (8, 8))


def a_split(root, files):
    files.picture(root / "test" / "CNV" / "a.png", np.zeros(SHAPE[1:]))
    return Subset(open_images(root, "test", SHAPE[1:]), [0])


def scans(root, files):
    files.nifti(root / "a.nii", np.zeros((4, 4, 4), np.int16))
    return VolumeFiles(root, ReadVolume(PublicGrid((4, 4, 4), spacing=1.0)))


def with_masks(root, files):
    for part in ("images", "labels"):
        files.nifti(root / part / "a.nii", np.zeros((4, 4, 4), np.int16))
    return WithMasks(LabelledVolumes(root, ReadLabelledVolume(PublicGrid((4, 4, 4), spacing=1.0), 2)), 2)


def several(root, files):
    other = root.parent / "other"
    other.mkdir()
    return ConcatDataset([flat(other, files), Subset(flat(root, files), [0])])


@pytest.mark.parametrize("make", [flat, a_split, scans, several])
@pytest.mark.parametrize("place", ["in/released", "in/test/CNV/released", "in", "in/../link/new/released"])
def test_an_output_among_the_originals_is_refused_before_anything_is_read_or_spent(
    privatizer, ledger, tmp_path, files, refused, make, place
):
    """The next release would take it for more of them."""
    for folder in ("in/test/CNV", "in/images", "in/labels"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    originals = make(tmp_path / "in", files)
    before = sorted(tmp_path.rglob("*"))
    with refused(ValueError, "^The output folder lies in the input folder"):
        release_folder(privatizer, originals, tmp_path / place, num_preview=1, ledger=ledger, skip_unreadable=True)
    assert sorted(tmp_path.rglob("*")) == before and ledger.summary()["reserved"] == 0


def test_an_output_may_lie_beside_images_and_labels_and_in_neither(tmp_path, files, refused):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    originals = with_masks(tmp_path, files)
    for place in ("images", "labels/released"):
        with refused(ValueError, "^The output folder lies in the input folder"):
            release_folder(small_privatizer(), originals, tmp_path / place)
    with refused(ValueError, "^The input folder lies in the output folder"):
        release_folder(small_privatizer(), originals, tmp_path)
    # The volume is constant, and is read after it is known where the output lies.
    with refused(ValueError, "^1 of 1 images cannot be read"):
        release_folder(small_privatizer(), originals, tmp_path / "released")


@pytest.mark.parametrize("place", [300 * "x", 240 * "x", "file/released", "file/new/released"])
def test_an_output_that_cannot_be_made_is_refused_before_anything_is_read(tmp_path, mixed, refused, place):
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    with refused(ValueError, "^The output cannot be made"):
        release_folder(small_privatizer(), mixed, tmp_path / place, skip_unreadable=True)
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_around_the_originals_is_refused(tmp_path, files, refused):
    (tmp_path / "out" / "in").mkdir(parents=True)
    originals = flat(tmp_path / "out" / "in", files)
    with refused(ValueError, "^The input folder lies in the output folder"):
        release_folder(small_privatizer(), originals, tmp_path / "out")
    # Beside it, under a name that begins alike, is another folder.
    assert release_folder(small_privatizer(), originals, tmp_path / "out" / "in2").is_dir()


def test_a_folder_without_one_readable_image_is_refused(tmp_path, mixed, refused):
    unreadable = Subset(mixed, [3, 17])
    with refused(ValueError, "None of 2 images can be read"):
        release_folder(small_privatizer(), unreadable, tmp_path / "released", skip_unreadable=True)


def test_images_without_subjects_are_refused_before_anything_is_spent(privatizer, ledger, tmp_path, refused):
    with refused(ValueError, "say nothing of their subjects"):
        release_folder(privatizer, Cohort(subjects=False), tmp_path / "released", ledger=ledger)
    assert ledger.summary()["reserved"] == 0 and not (tmp_path / "released").exists()


def test_a_killed_attempt_leaves_one_hidden_folder_until_the_next(privatizer, ledger, tmp_path):
    context = multiprocessing.get_context("fork")
    process = context.Process(target=attempt, args=(privatizer, ledger, tmp_path / "released"))
    process.start()
    while not list(tmp_path.glob(".released.release-*")) and process.is_alive():
        time.sleep(0)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    release_folder(privatizer, Cohort(), tmp_path / "elsewhere", ledger=ledger)
    if not (tmp_path / "released").exists():
        release_folder(privatizer, Cohort(), tmp_path / "released", ledger=ledger)
        assert not list(tmp_path.glob(".released.release-*"))


def test_the_preview_does_not_tell_the_order_of_the_source(privatizer, ledger, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "monai_cadp.release.folder_release.save_image_grid", lambda images, *_, **__: shown.append(images)
    )
    for name in "ab":
        release_folder(privatizer, Cohort(), tmp_path / name, batch_size=16, num_preview=12, ledger=ledger)
    # The same releases; another choice and order but for a probability of 1 / (60 * 59 * ... * 49).
    assert len(shown[0]) == len(shown[1]) == 12 and not torch.equal(*shown)


SCRIPT = """
import sys
import ignite.distributed as idist
import torch
from monai_cadp.release.checkpoint import load_privatizer
from monai_cadp.privacy import PrivacyLedger, SubsetSelection
from monai_cadp.release import release_folder
from test_folder_release import Cohort

torch.set_num_threads(1)
folder, killed = sys.argv[1], sys.argv[2] == "killed"
idist.initialize("gloo")
privatizer = load_privatizer(f"{folder}/model.pt", SubsetSelection(2.0, num_candidates=64))
ledger = PrivacyLedger(f"{folder}/ledger.db", bytes(32))
cohort = Cohort()
if killed and idist.get_rank() == 1:
    # The power goes out in the middle of its part.
    read = Cohort.__getitem__
    Cohort.__getitem__ = lambda self, index: sys.exit(3) if index > 30 else read(self, index)
try:
    release_folder(privatizer, cohort, f"{folder}/without", ledger=None)
except ValueError as error:
    assert "without a ledger" in str(error)
else:
    raise AssertionError
release_folder(privatizer, cohort, f"{folder}/out", batch_size=1, ledger=ledger)
idist.barrier()
idist.finalize()
"""


@pytest.mark.slow
def test_two_processes_share_a_cohort_and_a_ledger_and_go_on_after_one_was_killed(privatizer, ledger, tmp_path):
    save_model(TrainedModel(privatizer.inn, privatizer.content), tmp_path / "model.pt")
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    stored = {}
    for fate in ("killed", "whole"):
        command = [*launcher, str(tmp_path / "script.py"), str(tmp_path), fate]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert (done.returncode == 0) == (fate == "whole"), done.stderr
        assert (tmp_path / "out").exists() == (fate == "whole")
        stored[fate] = contents(tmp_path)
    assert 0 < len(stored["killed"]) < NUM_IMAGES == len(stored["whole"])
    assert stored["killed"].items() <= stored["whole"].items()
    assert ledger.summary()["reserved"] == NUM_IMAGES and ledger.verify() == []
    assert len(pictures(tmp_path / "out")) == NUM_IMAGES and not (tmp_path / "without").exists()


def test_a_guarantee_for_patients_needs_subjects_and_counts_all_of_a_patients_images(privatizer, tmp_path, refused):
    whole = Privatizer(privatizer.inn, privatizer.mechanism, privatizer.content, unit="patient")
    for cohort, words in ((Cohort(subjects=False), "unit is a patient"), (Cohort(), "Two images of one patient")):
        with refused(ValueError, words):
            release_folder(whole, cohort, tmp_path / "released")
    assert not (tmp_path / "released").exists()
    release_folder(whole, torch.utils.data.Subset(Cohort(), range(0, NUM_IMAGES, 3)), tmp_path / "released")
