# SPDX-License-Identifier: Apache-2.0
"""Around the transform, the data sets of MONAI that cache keep releases and no originals, and spend nothing twice."""

from __future__ import annotations

import pytest
import torch
from monai.data import (
    CacheDataset,
    CacheNTransDataset,
    DataLoader,
    MetaTensor,
    PersistentDataset,
    SmartCacheDataset,
    ThreadDataLoader,
)
from monai.transforms import Compose, EnsureTyped, RandFlipd, RandScaleIntensityd

from monai_cadp import Privatizer
from monai_cadp.networks import ConditionalINN, ContentBasis
from monai_cadp.privacy import Budget, PrivacyLedger, SubsetSelection
from monai_cadp.transforms import Privatized

SHAPE = (1, 4, 4)
NUM_IMAGES = 8
DATASETS = {
    "cache": lambda data, transform, folder: CacheDataset(data, transform, progress=False),
    "smart cache": lambda data, transform, folder: SmartCacheDataset(
        data, transform, replace_rate=0.5, cache_num=4, shuffle=False, progress=False
    ),
    "persistent": PersistentDataset,
    "first transforms": lambda data, transform, folder: CacheNTransDataset(data, transform, 2, folder),
}


@pytest.fixture
def privatizer():
    torch.manual_seed(0)
    inn = ConditionalINN(SHAPE[1:], 1, num_classes=3, width=8, num_couplings=2)
    return Privatizer(inn, SubsetSelection(2.0, num_candidates=64), ContentBasis.leading(inn, 4))


@pytest.fixture
def ledger(tmp_path):
    return PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(epsilon=2.0))


@pytest.fixture
def items():
    pixels = torch.rand(NUM_IMAGES, *SHAPE, generator=torch.Generator().manual_seed(0))
    return [
        {"image": image, "label": index % 3, "subject": f"person {index}", "item": "film", "index": index}
        for index, image in enumerate(pixels)
    ]


def plain(image):
    return image.as_tensor() if isinstance(image, MetaTensor) else image


def steps(privatizer, ledger, *after):
    recorded = {"ledger": ledger, "subject_key": "subject", "item_key": "item"} if ledger is not None else {}
    return Compose([EnsureTyped("image"), Privatized("image", privatizer, "label", **recorded), *after])


@pytest.mark.parametrize("loader", [DataLoader, ThreadDataLoader])
@pytest.mark.parametrize("kind", DATASETS)
def test_every_epoch_meets_the_one_release_and_spends_it_once(privatizer, ledger, items, tmp_path, kind, loader):
    dataset = DATASETS[kind](items, steps(privatizer, ledger), tmp_path / "cache")
    found = {}
    for _ in range(3):
        if isinstance(dataset, SmartCacheDataset):
            dataset.start()
        for batch in loader(dataset, batch_size=2):
            for index, image in zip(batch["index"].tolist(), plain(batch["image"]), strict=True):
                assert torch.equal(found.setdefault(index, image.clone()), image)
        if isinstance(dataset, SmartCacheDataset):
            dataset.update_cache()
            dataset.shutdown()
    assert len(found) >= NUM_IMAGES // 2
    assert {ledger.spent(item["subject"])[0] for item in items} <= {0.0, 2.0} and ledger.verify() == []


@pytest.mark.filterwarnings("ignore:No release is recorded")
@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("kind", ["persistent", "first transforms"])
def test_a_cache_on_disk_holds_no_original_and_nobody(privatizer, ledger, items, tmp_path, kind, recorded):
    after = RandScaleIntensityd("image", factors=0.1, prob=1.0)
    transform = steps(privatizer, ledger if recorded else None, after)
    folder = tmp_path / "cache"
    dataset = DATASETS[kind](items, transform, folder)
    assert len([dataset[index] for index in range(NUM_IMAGES)]) == NUM_IMAGES
    files = list(folder.iterdir())
    assert len(files) == NUM_IMAGES
    kept = b"".join(path.read_bytes() for path in files)
    assert not any(item["image"].numpy().tobytes() in kept for item in items)
    assert not any(item["subject"].encode() in kept for item in items) or not recorded
    # Another process over the same folder: the release that lies there.
    kept_one = plain(torch.load(files[0], weights_only=False)["image"])
    again = DATASETS[kind](items, steps(privatizer, ledger if recorded else None), folder)
    assert any(torch.equal(plain(again[index]["image"]), kept_one) for index in range(NUM_IMAGES))


def test_a_control_that_caches_before_the_release_keeps_originals_on_disk(privatizer, ledger, items, tmp_path):
    """What the guide warns of: a random transform before the release ends what is cached there."""
    random = RandFlipd("image", prob=0.0)
    transform = Compose([EnsureTyped("image"), random, *steps(privatizer, ledger).transforms])
    dataset = PersistentDataset(items, transform, tmp_path / "cache")
    assert dataset[0]["image"].shape == SHAPE
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").iterdir())
    assert items[0]["image"].numpy().tobytes() in kept


def test_an_image_that_was_augmented_before_its_release_is_not_released_a_second_time(privatizer, ledger, items):
    random = RandScaleIntensityd("image", factors=0.1, prob=1.0)
    transform = Compose([EnsureTyped("image"), random, *steps(privatizer, ledger).transforms])
    transform(items[0])
    with pytest.raises(RuntimeError) as caught:
        transform(items[0])
    assert "pixels" in str(caught.value.__cause__)
    assert ledger.spent("person 0") == (2.0, 0.0)


def test_the_guarantee_stays_with_a_release_where_a_cache_keeps_meta_data(privatizer, ledger, items, tmp_path):
    options = {"track_meta": True, "weights_only": False}
    for _ in range(2):
        dataset = PersistentDataset(items, steps(privatizer, ledger), tmp_path / "cache", **options)
        assert dataset[0]["image"].meta["privacy"]["epsilon"] == 2.0
