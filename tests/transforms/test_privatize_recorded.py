# SPDX-License-Identifier: Apache-2.0
"""In a MONAI training loop with a ledger every image is released once: over epochs, workers, processes and ranks."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset
from monai.transforms import Compose, EnsureTyped

from monai_cadp import Privatizer
from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
from monai_cadp.privacy import Budget, BudgetExceededError, LedgerError, PrivacyLedger, SubsetSelection
from monai_cadp.release import release_batches
from monai_cadp.release.checkpoint import save_model
from monai_cadp.transforms import Privatize, Privatized

SHAPE = (1, 4, 4)
NUM_IMAGES = 24
MECHANISM = SubsetSelection(2.0, num_candidates=64)


@pytest.fixture
def privatizer():
    torch.manual_seed(0)
    inn = ConditionalINN(SHAPE[1:], 1, num_classes=3, width=8, num_couplings=2)
    return Privatizer(inn, MECHANISM, ContentBasis.leading(inn, 4))


@pytest.fixture
def ledger(tmp_path):
    return PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(epsilon=8.0))


@pytest.fixture
def items():
    """Two images of every subject; the index travels along to tell which release is whose."""
    pixels = torch.rand(NUM_IMAGES, *SHAPE, generator=torch.Generator().manual_seed(0))
    return [
        {
            "image": pixels[index],
            "label": index % 3,
            "subject": f"person {index // 2}",
            "item": index % 2,
            "index": index,
        }
        for index in range(NUM_IMAGES)
    ]


def bytes_of(image):
    return torch.Tensor(image).numpy().tobytes()


def pipeline(privatizer, ledger):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # with a ledger there is nothing to warn of
        transform = Privatized("image", privatizer, "label", ledger=ledger, subject_key="subject", item_key="item")
    return Compose([EnsureTyped("image"), transform])


def epoch(loader):
    """The release of every image, by its index."""
    found = {}
    for batch in loader:
        assert "subject" not in batch and "item" not in batch
        found |= dict(zip(batch["index"].tolist(), batch["image"].as_tensor().clone(), strict=True))
    return torch.stack([found[index] for index in range(len(found))])


@pytest.mark.slow
def test_ten_epochs_with_four_workers_spend_every_budget_once(privatizer, ledger, items):
    loader = DataLoader(Dataset(items, pipeline(privatizer, ledger)), batch_size=5, shuffle=True, num_workers=4)
    first = epoch(loader)
    assert len(first) == NUM_IMAGES
    for _ in range(9):
        assert torch.equal(epoch(loader), first)
    assert ledger.summary()["reserved"] == ledger.summary()["released"] == NUM_IMAGES
    assert {ledger.spent(item["subject"]) for item in items} == {(4.0, 0.0)}
    assert ledger.verify() == []


SCRIPT = """
import os, sys
import torch
import torch.distributed as dist
from monai_cadp.release.checkpoint import load_privatizer
from monai_cadp.privacy import PrivacyLedger, SubsetSelection
from monai_cadp.transforms import Privatized

folder = sys.argv[1]
rank = int(os.environ.get("RANK", 0))
if "RANK" in os.environ:
    dist.init_process_group("gloo")
    dist.barrier()
privatizer = load_privatizer(f"{folder}/model.pt", SubsetSelection(2.0, num_candidates=64))
ledger = PrivacyLedger(f"{folder}/ledger.db", bytes(32))
transform = Privatized("image", privatizer, "label", ledger=ledger, subject_key="subject", item_key="item")
items = torch.load(f"{folder}/items.pt", weights_only=True)
order = items if rank == 0 else items[::-1]
released = {item["index"]: transform(item)["image"].as_tensor() for item in order}
torch.save(torch.stack([released[index] for index in range(len(released))]), f"{folder}/released-{rank}.pt")
if "RANK" in os.environ:
    dist.barrier()
    dist.destroy_process_group()
"""


@pytest.fixture
def elsewhere(privatizer, items, tmp_path):
    """Run the same releases in other processes; returns what each of them met."""
    save_model(TrainedModel(privatizer.inn, privatizer.content), tmp_path / "model.pt")
    torch.save(items, tmp_path / "items.pt")
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))

    def run(num_ranks):
        launcher = (
            [] if num_ranks == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_ranks}"]
        )
        command = [sys.executable, *launcher, str(tmp_path / "script.py"), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [torch.load(tmp_path / f"released-{rank}.pt", weights_only=True) for rank in range(num_ranks)]

    return run


@pytest.mark.slow
def test_a_second_process_later_meets_the_same_releases(privatizer, ledger, items, elsewhere):
    first = epoch(DataLoader(Dataset(items, pipeline(privatizer, ledger)), batch_size=4))
    (later,) = elsewhere(1)
    assert torch.equal(first, later) and ledger.summary()["reserved"] == NUM_IMAGES


@pytest.mark.slow
def test_two_ranks_at_the_same_time_meet_the_same_releases(ledger, elsewhere):
    first, second = elsewhere(2)
    assert torch.equal(first, second)
    assert ledger.summary()["reserved"] == ledger.summary()["released"] == NUM_IMAGES
    assert ledger.verify() == []


@pytest.mark.slow
def test_spawned_workers_and_a_cache_meet_the_same_releases(privatizer, ledger, items):
    first = epoch(DataLoader(CacheDataset(items, pipeline(privatizer, ledger), progress=False), batch_size=4))
    spawned = DataLoader(
        Dataset(items, pipeline(privatizer, ledger)), batch_size=12, num_workers=2, multiprocessing_context="spawn"
    )
    assert torch.equal(epoch(spawned), first)


@pytest.mark.parametrize("subject", ["anna", "7", np.str_("7"), np.array(["anna"])])
def test_a_subject_may_come_as_any_text(privatizer, ledger, subject):
    transform = Privatized("image", privatizer, "label", ledger=ledger, subject_key="who")
    released = transform({"image": torch.rand(SHAPE), "label": 1, "who": subject})
    assert released.keys() == {"image", "label"}
    assert ledger.spent("anna")[0] + ledger.spent("7")[0] == 2.0


def test_the_array_transform_takes_the_subject_as_an_argument(privatizer, ledger):
    transform, image = Privatize(privatizer, ledger=ledger), torch.rand(SHAPE)
    assert torch.equal(transform(image, 1, "anna"), transform(image, 1, "anna"))


def test_without_a_subject_nothing_is_released_and_nothing_spent(privatizer, ledger, refused):
    transform = Privatized("image", privatizer, "label", ledger=ledger, subject_key="who")
    with refused(KeyError, "no key 'who'; expected the subject"):
        transform({"image": torch.rand(SHAPE), "label": 1})
    with refused(ValueError, "subject of an image is missing"):
        transform({"image": torch.rand(SHAPE), "label": 1, "who": None})
    assert ledger.summary()["reserved"] == 0


@pytest.mark.parametrize("item", [None, "", float("nan"), [1, 2]])
def test_an_item_that_names_no_image_is_refused_and_does_not_make_all_images_one(privatizer, ledger, refused, item):
    transform = Privatized("image", privatizer, "label", ledger=ledger, subject_key="who", item_key="scan")
    with refused(ValueError, "item of an image is missing"):
        transform({"image": torch.rand(SHAPE), "label": 1, "who": "anna", "scan": item})
    assert ledger.summary()["reserved"] == 0


def test_ledger_and_subject_key_belong_together(privatizer, ledger, refused):
    with refused(ValueError, "ledger was given without a subject_key"):
        Privatized("image", privatizer, "label", ledger=ledger)
    with refused(ValueError, "subject_key was given without a ledger"):
        Privatized("image", privatizer, "label", subject_key="who")
    with refused(ValueError, "item_key was given without a ledger"):
        Privatized("image", privatizer, "label", item_key="number")
    with refused(TypeError, "ledger is a str"):
        Privatize(privatizer, ledger="ledger.db")


@pytest.mark.slow
def test_over_the_cap_a_loader_stops_with_the_refusal(privatizer, ledger, items):
    crowd = [item | {"subject": "anna", "item": item["index"]} for item in items]
    loader = DataLoader(Dataset(crowd, pipeline(privatizer, ledger)), batch_size=4, num_workers=2)
    # MONAI and the loader wrap what a transform raises, and keep its words.
    with pytest.raises(RuntimeError, match="over the cap"):
        epoch(loader)
    assert ledger.spent("anna")[0] <= 8.0 and ledger.verify() == []


def test_two_keys_of_one_item_are_two_releases(privatizer, ledger):
    transform = Privatized(["a", "b"], privatizer, "label", ledger=ledger, subject_key="who", item_key="scan")
    image = torch.rand(SHAPE)
    released = transform({"a": image, "b": image, "label": 1, "who": "anna", "scan": 3})
    assert not torch.equal(released["a"], released["b"]) and ledger.spent("anna") == (4.0, 0.0)
    assert released["a"].meta["privacy"]["public"] == ["condition"]


def test_two_keys_of_one_subject_spend_all_or_nothing(privatizer, tmp_path):
    """The cap is enough for one of them."""
    ledger = PrivacyLedger.create(tmp_path / "small.db", bytes(32), Budget(epsilon=3.0))
    data = {"a": torch.rand(SHAPE), "b": torch.rand(SHAPE), "label": 1, "who": "anna", "scan": 3}
    for item_key in ("scan", None):
        transform = Privatized(["a", "b"], privatizer, "label", ledger=ledger, subject_key="who", item_key=item_key)
        with pytest.raises(BudgetExceededError):
            transform(data)
        assert ledger.spent("anna") == (0.0, 0.0) and ledger.summary()["reserved"] == 0
    ledger.set_budget("anna", 4.0)
    assert transform(data).keys() == {"a", "b", "label", "scan"} and ledger.spent("anna") == (4.0, 0.0)


@pytest.mark.parametrize("bad", [torch.rand(1, 5, 4), torch.zeros(SHAPE, dtype=torch.bool), "no image"])
@pytest.mark.parametrize("keys", [("good", "bad"), ("bad", "good")])
def test_a_key_that_cannot_be_released_costs_the_other_nothing(privatizer, ledger, bad, keys):
    transform = Privatized(keys, privatizer, "label", ledger=ledger, subject_key="who")
    with pytest.raises((ValueError, TypeError)):
        transform({"good": torch.rand(SHAPE), "bad": bad, "label": 1, "who": "anna"})
    assert ledger.summary()["reserved"] == 0


def test_without_items_the_guarantee_in_meta_says_what_shows(privatizer, ledger):
    transform = Privatized("image", privatizer, "label", ledger=ledger, subject_key="who")
    released = transform({"image": torch.rand(SHAPE), "label": 1, "who": "anna"})
    assert "which images of a subject are identical" in released["image"].meta["privacy"]["public"]


def test_one_person_and_one_item_meet_one_release_however_they_were_typed(privatizer, ledger, refused):
    transform = Privatized("image", privatizer, "label", ledger=ledger, subject_key="who", item_key="scan")
    image = {"image": torch.rand(SHAPE), "label": 1}
    typed = [("A7", "img/a.png"), ("a007 ", "./img/a.png"), ("\uff21\uff17", "img//b/../a.png"), ("A7.0", "img\\a.png")]
    first, *others = [transform(image | {"who": who, "scan": scan})["image"] for who, scan in typed]
    assert all(torch.equal(first, other) for other in others) and ledger.spent("A7") == (2.0, 0.0)
    assert not torch.equal(first, transform(image | {"who": "A7", "scan": "test/img/a.png"})["image"])
    for subject in (7, 7.0, np.float32(7), torch.tensor(7)):
        with refused(ValueError, "put it in quotes"):
            transform(image | {"who": subject, "scan": "img/a.png"})
    assert ledger.spent("A7") == (4.0, 0.0) and ledger.spent("7") == (0.0, 0.0)


def test_a_key_does_not_run_over_into_an_item(privatizer, ledger):
    image, released = torch.rand(SHAPE), []
    for key, item in (("a", "b c"), ("a b", "c")):
        transform = Privatized([key, "z"], privatizer, "label", ledger=ledger, subject_key="who", item_key="scan")
        released.append(transform({key: image, "z": image, "label": 1, "who": "anna", "scan": item})[key])
    assert not torch.equal(*released)


def test_a_pipeline_and_a_released_folder_have_one_release_of_an_item(privatizer, ledger, items, tmp_path):
    scans = [item | {"subject": "anna", "item": f"scan {number}"} for number, item in enumerate(items[:2])]
    transform = Privatized("image", privatizer, "label", ledger=ledger, subject_key="subject", item_key="item")
    released = torch.stack([transform(scan)["image"] for scan in scans])
    spent = ledger.spent("anna")
    again, _ = next(iter(release_batches(privatizer, scans, ledger=ledger)))
    assert sorted(map(bytes_of, again)) == sorted(map(bytes_of, released.clamp(0, 1)))
    assert ledger.spent("anna") == spent


def test_two_keys_that_say_the_same_item_of_different_images_are_refused(privatizer, ledger):
    for key, refused in (("image", False), ("other", True)):
        transform = Privatized(key, privatizer, "label", ledger=ledger, subject_key="who", item_key="scan")
        data = {key: torch.rand(SHAPE), "label": 1, "who": "anna", "scan": "scan 1"}
        with pytest.raises(LedgerError, match="other pixels") if refused else nullcontext():
            transform(data)
