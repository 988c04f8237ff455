# SPDX-License-Identifier: Apache-2.0
"""In a segmentation pipeline an image and its mask are one release under one budget."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, RandFlipd, SaveImaged

from monai_cadp import Privatizer
from monai_cadp.data import PublicGrid, WithMasks, split_masks
from monai_cadp.networks import ConditionalINN, ContentBasis
from monai_cadp.privacy import Budget, BudgetExceededError, PrivacyLedger, RandomizedResponse, SubsetSelection
from monai_cadp.release import release_batches
from monai_cadp.transforms import Privatized
from tests.conftest import CANARY

SHAPE, CLASSES, REACH = (8, 8, 8), 3, 2.0
GRID = PublicGrid(SHAPE, 2.0)
KEYS = {"keys": ["image", "label"], "mask_key": "label", "num_mask_classes": CLASSES, "reach": REACH}


def privatizer(label_mechanism=None, **options):
    torch.manual_seed(0)
    inn = ConditionalINN(SHAPE, CLASSES, width=8, num_couplings=1, num_maps=1, **options)
    mechanism = SubsetSelection(2.0, num_candidates=64)
    return Privatizer(inn, mechanism, ContentBasis.leading(inn, 4), label_mechanism=label_mechanism)


@pytest.fixture
def ledger(tmp_path):
    return PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(epsilon=2.0))


@pytest.fixture
def items():
    draw = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.rand(1, *SHAPE, generator=draw),
            "label": torch.randint(CLASSES, (1, *SHAPE), generator=draw),
            "subject": f"person {index}",
            "item": f"volume {index}",
        }
        for index in range(4)
    ]


def recorded(ledger, **options):
    names = {"subject_key": "subject", "item_key": "item"}
    return Privatized(privatizer=privatizer(), ledger=ledger, **names, **{**KEYS, **options})


def unrecorded(releaser=None, **options):
    with pytest.warns(UserWarning, match="No release is recorded"):
        return Privatized(privatizer=releaser or privatizer(), **{**KEYS, **options})


def test_both_are_one_release_and_spend_one_budget(ledger, items):
    pipeline = Compose([recorded(ledger), RandFlipd(["image", "label"], prob=0.5, spatial_axis=0)])
    for _ in range(3):
        for batch in DataLoader(Dataset(items, pipeline), batch_size=2):
            assert batch["image"].shape == batch["label"].shape == (2, 1, *SHAPE)
            assert set(batch) == {"image", "label"}
    assert {ledger.spent(f"person {index}") for index in range(4)} == {(2.0, 0.0)}
    assert ledger.summary()["released"] == 4


def test_the_pair_is_that_of_a_bundle(ledger, items):
    """Which reads images with masks as one image, and knows it by its item."""
    joined = WithMasks([{**item, "mask": item["label"]} for item in items], CLASSES, REACH)
    unlabelled = [{key: value for key, value in joined[index].items() if key != "label"} for index in range(4)]
    (released, _), *_ = release_batches(privatizer(), unlabelled, ledger=ledger)
    images, masks = split_masks(released, CLASSES)
    for item, image, mask in zip(items, images, masks, strict=True):
        pair = recorded(ledger)(item)
        assert torch.equal(pair["image"].as_tensor().clamp(0, 1), image)
        assert torch.equal(pair["label"].as_tensor(), mask)
    assert ledger.summary()["released"] == 4


def test_another_mask_of_the_same_image_is_another_release(ledger, items):
    """Or it would tell, unpaid for, that its mask was changed."""
    transform = recorded(ledger, keys=["image", "label"])
    transform(items[0])
    changed = {**items[0], "item": "corrected", "label": (items[0]["label"] + 1) % CLASSES}
    with pytest.raises(BudgetExceededError):
        transform(changed)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_a_mask_keeps_its_type_and_holds_classes(items, dtype):
    transform = unrecorded()
    tensors = transform({"image": items[0]["image"], "label": items[0]["label"].to(dtype)})
    assert tensors["label"].dtype == dtype and tensors["image"].dtype == torch.float32
    arrays = transform({"image": items[0]["image"].numpy(), "label": items[0]["label"].to(dtype).numpy()})
    assert isinstance(arrays["label"], np.ndarray) and arrays["label"].dtype == tensors["label"].numpy().dtype
    for mask in (tensors["label"].as_tensor().long(), torch.from_numpy(arrays["label"]).long()):
        assert set(mask.unique().tolist()) <= set(range(CLASSES))


def test_nothing_rides_along_with_either(items):
    meta = {"filename_or_obj": f"{CANARY}.nii.gz", "affine": np.diag([-3.0, 3.0, 3.0, 1.0])}
    pair = {key: MetaTensor(items[0][key], meta=dict(meta)) for key in ("image", "label")}
    released = unrecorded()({**pair, "label_meta_dict": meta, "image_meta_dict": meta, "label_transforms": [CANARY]})
    assert set(released) == {"image", "label"} and CANARY not in repr(released)
    for key in ("image", "label"):
        assert released[key].meta["privacy"]["epsilon"] == 2.0
        assert np.allclose(released[key].affine, np.eye(4)) and not released[key].applied_operations


def test_both_are_saved_side_by_side(items, tmp_path):
    pair = {
        key: MetaTensor(items[0][key], affine=GRID.affine, meta={"filename_or_obj": f"{CANARY}.nii.gz"})
        for key in ("image", "label")
    }
    released = unrecorded(public_meta=("affine",))(pair)
    save = [
        SaveImaged(key, output_dir=tmp_path, output_postfix=key, separate_folder=False, print_log=False)
        for key in ("image", "label")
    ]
    Compose(save)(released)
    files = {path.name: nibabel.load(path) for path in tmp_path.iterdir()}
    assert len(files) == 2 and not any(CANARY in name for name in files)
    for key in ("image", "label"):
        (image,) = (one for name, one in files.items() if key in name)
        assert np.allclose(image.affine, GRID.affine)
        assert np.allclose(image.get_fdata(), released[key].numpy()[0])


def test_a_private_label_is_randomized_with_both(items):
    releaser = privatizer(RandomizedResponse(1.0, 2), num_classes=2)
    transform = unrecorded(releaser, condition_key="class")
    released = transform({"image": items[0]["image"], "label": items[0]["label"], "class": 1})
    assert int(released["class"]) in (0, 1) and released["label"].shape == (1, *SHAPE)


def test_one_without_the_other_is_refused(items, ledger):
    for key in ("image", "label"):
        for allowed in (False, True):
            with pytest.raises(KeyError):
                recorded(ledger, allow_missing_keys=allowed)(
                    {name: one for name, one in items[0].items() if name != key}
                )
    assert ledger.summary()["released"] == 0
    assert unrecorded(allow_missing_keys=True)({"other": 1}) == {"other": 1}


def test_a_mask_that_does_not_fit_is_refused(items, ledger, refused):
    for mask, match in (
        (items[0]["label"] + 1, "something else than 0 to 2"),
        (items[0]["label"][:, 1:], "came in the shapes"),
        (items[0]["label"] + 0.5, "something else than 0 to 2"),
    ):
        with refused(ValueError, match):
            recorded(ledger)({**items[0], "label": mask})
    assert ledger.summary()["released"] == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"keys": ["image", "other", "label"]}, "expected one of two keys"),
        ({"keys": ["image", "other"]}, "expected one of two keys"),
        ({"num_mask_classes": None}, "num_mask_classes is None"),
        ({"num_mask_classes": 1}, "num_mask_classes is 1"),
        ({"mask_key": None}, "without a mask_key"),
        ({"mask_key": None, "num_mask_classes": None}, "without a mask_key"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(refused, options, match):
    with refused(ValueError, match):
        Privatized(privatizer=privatizer(), **{**KEYS, **options})
