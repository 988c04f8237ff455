# SPDX-License-Identifier: Apache-2.0
"""A release takes the place of an image in any MONAI pipeline, and nothing else of the image stays."""

from __future__ import annotations

import json
import math
import pickle
import warnings
from enum import Enum

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, EnsureTyped, Invertd, LoadImaged, ScaleIntensityd, Spacingd, ToNumpyd
from monai.utils import set_determinism

from monai_cadp import Privatizer
from monai_cadp.networks import ConditionalINN, ContentBasis, DeclaredContent
from monai_cadp.privacy import (
    AttributeResponse,
    GaussianMechanism,
    LaplaceMechanism,
    PriorOnly,
    PrivacyGuarantee,
    RandomizedResponse,
    SubsetSelection,
)
from monai_cadp.transforms import Privatize, PrivatizeD, Privatized, PrivatizeDict

CANARY = "Mustermann-1954"
SHAPE = (1, 4, 4)


def privatizer(epsilon=4.0, label_mechanism=None, shape=SHAPE, mechanism=None, **condition):
    inn = ConditionalINN(shape[1:], shape[0], **condition, width=8, num_couplings=2)
    return Privatizer(
        inn,
        mechanism or SubsetSelection(epsilon, num_candidates=64),
        ContentBasis.leading(inn, 4),
        label_mechanism=label_mechanism,
    )


def array_transform(**options):
    public_meta = options.pop("public_meta", ())
    with pytest.warns(UserWarning, match="No release is recorded"):
        return Privatize(privatizer(**options), public_meta)


def transform(keys="image", condition_key=None, **options):
    own = {name: options.pop(name) for name in ("public_meta", "allow_missing_keys") if name in options}
    with pytest.warns(UserWarning, match="No release is recorded"):
        return Privatized(keys, privatizer(**options), condition_key, **own)


def image(seed=0):
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed))


# --- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.uint8, np.int16])
def test_an_array_becomes_an_array(dtype):
    released = array_transform()(image().numpy().round().astype(dtype))
    assert type(released) is np.ndarray
    assert released.shape == SHAPE and released.dtype == np.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.uint8, torch.int64])
@pytest.mark.parametrize("kind", [torch.as_tensor, MetaTensor])
def test_a_tensor_becomes_a_meta_tensor_with_the_guarantee(dtype, kind):
    released = array_transform()(kind(image().round().to(dtype)))
    assert isinstance(released, MetaTensor)
    assert released.shape == SHAPE and released.dtype == torch.float32
    assert released.meta["privacy"]["epsilon"] == 4.0


@pytest.mark.parametrize("scale", [255, -1, 2])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, MetaTensor])
def test_an_image_in_other_units_is_refused_before_anything_is_spent(scale, kind, refused):
    img = kind(torch.ones(SHAPE) * scale)
    with refused(ValueError, "intensities beyond 0 to 1; bring it there by a public range"):
        array_transform()(img)
    assert array_transform()(kind(torch.linspace(-0.2, 1.2, 16).reshape(SHAPE))).shape == SHAPE


def normalized_otherwise():
    """An image from 0 to 1, and what pipelines make of it for other networks."""
    img = torch.linspace(0, 1, 16).reshape(SHAPE)
    return {
        "without its mean": img - img.mean(),
        "dark, without its mean": (img - img.mean()) / 3,
        "by its deviation": (img - img.mean()) / img.std(),
        "half as large again": 1.5 * img,
        "from -1 to 1": 2 * img - 1,
    }


@pytest.mark.parametrize("img", normalized_otherwise().values(), ids=normalized_otherwise())
def test_an_image_that_was_normalized_for_another_network_is_refused(img, refused):
    with refused(ValueError, "intensities beyond 0 to 1"):
        array_transform()(img)


def test_an_image_whose_brightest_spots_lie_beyond_its_percentiles_passes():
    img = torch.linspace(0, 1, 400).reshape(1, 20, 20)
    img[0, 0, :2] = 1.4
    assert array_transform(shape=(1, 20, 20))(img).shape == (1, 20, 20)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_image_without_any_number_is_refused_and_one_with_some_is_not(value, refused):
    img = torch.full(SHAPE, value)
    with refused(ValueError, "no intensity that is a number"):
        array_transform()(img)
    img[..., 0] = 0.5
    assert torch.isfinite(array_transform()(img)).all()


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 5, 6), (1, 4, 4, 4), (2, 3, 5, 4)])
def test_flat_images_and_volumes_of_any_channels_pass(shape):
    assert array_transform(shape=shape)(torch.rand(shape)).shape == shape


@pytest.mark.parametrize("label", [1, np.int64(1), np.array(1), np.array([1]), torch.tensor(1), torch.tensor([1])])
def test_a_class_may_come_as_any_whole_number(label):
    assert transform(condition_key="label", num_classes=3)({"image": image(), "label": label})["image"].shape == SHAPE


@pytest.mark.parametrize(
    "vector", [[0.5, 1.0], np.array([0.5, 1.0]), torch.tensor([0.5, 1.0]), [0, 1], np.array([1, 1], np.uint8)]
)
def test_a_vector_may_come_as_any_row_of_numbers(vector):
    released = transform(condition_key="age", condition_size=2)({"image": image(), "age": vector})
    assert released["image"].shape == SHAPE


def test_the_dictionary_of_the_caller_is_not_touched():
    data = {"image": image(), "label": 1, "image_meta_dict": {"name": CANARY}}
    before = dict(data)
    transform(condition_key="label", num_classes=3)(data)
    assert data.keys() == before.keys() and data["image"] is before["image"]


def test_all_keys_are_released_and_missing_ones_only_where_allowed():
    data = {"a": image(1), "b": image(2)}
    released = transform(keys=["a", "b", "c"], allow_missing_keys=True)(data)
    assert not torch.equal(released["a"], data["a"]) and not torch.equal(released["b"], data["b"])
    with pytest.raises(KeyError):
        transform(keys=["a", "c"])(data)


def test_the_aliases_are_those_of_monai():
    assert PrivatizeD is Privatized and PrivatizeDict is Privatized


def test_the_warning_points_at_the_line_that_made_the_transform():
    for make in (lambda: Privatize(privatizer()), lambda: Privatized("image", privatizer())):
        with pytest.warns(UserWarning, match="No release is recorded") as caught:
            make()
        assert [warning.filename for warning in caught] == [__file__]


# --- what stays behind ------------------------------------------------------------------------------------------------


def source():
    """An image as a reader leaves it, with a canary in every corner."""
    meta = {
        "PatientName": CANARY,
        "filename_or_obj": f"{CANARY}.dcm",
        "spacing": np.ones(2),
        "0010|0010": CANARY,
        "affine": torch.eye(4) * 7,
        "original_affine": np.eye(4) * 7,
    }
    operations = [{"class": "Spacingd", "extra_info": {"who": CANARY}}]
    return MetaTensor(image(), affine=torch.eye(4) * 7, meta=meta, applied_operations=operations)


def everything(tensor):
    return repr(tensor.meta) + repr(tensor.applied_operations) + repr(vars(tensor))


def test_nothing_of_the_sources_header_stays():
    original = source()
    assert CANARY in everything(original)
    released = transform()(
        {
            "image": original,
            "image_meta_dict": {"PatientName": CANARY},
            "image_transforms": [{"who": CANARY}],
        }
    )
    assert set(released) == {"image"}
    assert CANARY not in everything(released["image"])
    assert released["image"].applied_operations == []
    assert torch.equal(released["image"].affine.float(), torch.eye(4))
    assert set(released["image"].meta) <= {"privacy", "affine", "space"}


@pytest.mark.parametrize(
    ("names", "convert"),
    [
        ({"meta_key_postfix": "info"}, EnsureTyped("image")),
        ({"meta_key_postfix": "info"}, ToNumpyd("image")),
        ({"meta_keys": "header"}, EnsureTyped("image")),
    ],
    ids=["by its key", "by its key beside an array", "by its file"],
)
def test_no_header_stays_wherever_the_reader_has_put_it(tmp_path, names, convert):
    path = tmp_path / f"{CANARY}.npy"
    np.save(path, image()[0].numpy())
    load = LoadImaged("image", image_only=False, ensure_channel_first=True, **names)
    loaded = convert(load({"image": path}))
    (header,) = set(loaded) - {"image"}
    assert CANARY in repr(loaded[header])
    other = {"age": 50, "label_info": {"filename_or_obj": "label.npy"}}
    assert set(transform()(loaded | other)) == {"image", *other}


class Key(str, Enum):
    IMAGE = "image"


def test_a_key_of_an_enumeration_is_its_text():
    assert set(transform(Key.IMAGE)({"image": image(), "image_meta_dict": {"PatientName": CANARY}})) == {"image"}


def test_a_declared_public_key_stays_and_no_other():
    released = array_transform(public_meta=["affine", "spacing"])(source())
    assert torch.equal(released.affine.float(), torch.eye(4) * 7)
    assert released.meta["spacing"].tolist() == [1.0, 1.0]
    assert CANARY not in everything(released)


def test_a_declared_key_that_the_source_lacks_is_not_missed():
    assert "age" not in array_transform(public_meta=["age"])(image()).meta


def test_the_release_shares_no_memory_with_the_original():
    original = image()
    released = array_transform()(original)
    before = released.clone()
    original.zero_()
    assert torch.equal(released, before)


def test_invertd_brings_nothing_back():
    pipeline = Compose([EnsureTyped("image"), Spacingd("image", pixdim=(1.0, 1.0), mode="nearest"), transform()])
    released = pipeline({"image": MetaTensor(image(), affine=torch.eye(4))})
    kept = released["image"].clone()
    with pytest.raises(RuntimeError) as caught:
        Invertd("image", pipeline, orig_keys="image", nearest_interp=False)(released)
    assert "empty 'applied_operations'" in str(caught.value.__cause__ or caught.value)
    assert torch.equal(released["image"], kept)


MECHANISMS = {
    "one choice": SubsetSelection(4.0, num_candidates=64),
    "several choices": SubsetSelection(12.0, num_candidates=64, num_blocks=3),
    "Laplace noise": LaplaceMechanism(2.7, clipping_bound=3.3),
    "Gaussian noise": GaussianMechanism(2.0, 1e-5, clipping_bound=1.7),
    "nothing": PriorOnly(),
}
LABELS = {
    "public": ({"num_classes": 3}, None, 1),
    "randomized": ({"num_classes": 3}, RandomizedResponse(1.0, 3), 1),
    "attributes": ({"condition_size": 3}, AttributeResponse(1.0, 3, kept=[1]), torch.tensor([0.0, 1.0, 1.0])),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_guarantee_is_plain_data_and_survives_collation(mechanism, labels):
    condition, label_mechanism, label = LABELS[labels]
    options = {"mechanism": MECHANISMS[mechanism], "label_mechanism": label_mechanism, **condition}
    step = transform(condition_key="label", **options)
    data = [{"image": image(seed), "label": label} for seed in range(4)]
    collated = next(iter(DataLoader(Dataset(data, step), batch_size=4)))
    assert collated["image"].shape == (4, *SHAPE)
    for item in decollate_batch(collated):
        guarantee = item["image"].meta["privacy"]
        assert json.loads(json.dumps(guarantee)) == guarantee == step.transform.guarantee()
        assert PrivacyGuarantee.from_dict(guarantee).epsilon == step.transform.releaser.guarantee.epsilon


def test_a_changed_guarantee_of_one_release_changes_no_other():
    step = array_transform()
    step(image()).meta["privacy"]["epsilon"] = 0.0
    assert step(image()).meta["privacy"]["epsilon"] == 4.0


def test_a_private_label_is_replaced_by_the_randomized_one():
    step = transform(condition_key="label", num_classes=3, label_mechanism=RandomizedResponse(0.1, 3))
    labels = [int(step({"image": image(), "label": 0})["label"]) for _ in range(100)]
    # All 100 are kept with probability 0.36^100.
    assert any(labels) and set(labels) <= {0, 1, 2}


# --- pipelines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_release_and_never_repeat_noise(method):
    set_determinism(0)
    try:
        pipeline = Compose([EnsureTyped("image"), ScaleIntensityd("image"), transform("image", "label", num_classes=3)])
        data = [{"image": image().numpy(), "label": 1}] * 8
        loader = DataLoader(Dataset(data, pipeline), batch_size=2, num_workers=2, multiprocessing_context=method)
        releases = torch.cat([batch["image"].as_tensor() for batch in loader])
    finally:
        set_determinism(None)
    assert releases.shape == (8, *SHAPE)
    # One image, one label: only the random draws differ.
    assert len(releases.unique(dim=0)) == 8


def test_two_loaders_seeded_alike_never_repeat_noise():
    step = transform()
    releases = []
    for _ in range(2):
        set_determinism(0)
        loader = DataLoader(Dataset([{"image": image()}] * 4, step), batch_size=4, num_workers=0)
        releases.append(next(iter(loader))["image"].as_tensor())
    set_determinism(None)
    assert len(torch.cat(releases).unique(dim=0)) == 8


def test_a_dataset_releases_anew_at_every_epoch_and_a_cache_releases_once():
    data = [{"image": image(seed)} for seed in range(3)]
    anew, once = Dataset(data, transform()), CacheDataset(data, transform(), progress=False)
    for index in range(3):
        assert not torch.equal(anew[index]["image"], anew[index]["image"])
        assert torch.equal(once[index]["image"], once[index]["image"])


def test_a_pickled_transform_still_releases():
    step = pickle.loads(pickle.dumps(transform(condition_key="label", num_classes=3)))
    assert step({"image": image(), "label": 2})["image"].shape == SHAPE


def test_declared_content_works_in_a_pipeline():
    inn = ConditionalINN(SHAPE[1:], 1, num_couplings=0)
    content = DeclaredContent(lambda x: x.mean((1, 2, 3))[:, None], num_candidates=64)
    with pytest.warns(UserWarning, match="No release is recorded"):
        step = Privatized("image", Privatizer(inn, SubsetSelection(4.0), content))
    assert Compose([step])({"image": image()})["image"].shape == SHAPE


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (KeyError, {"image": torch.zeros(SHAPE)}),
        (ValueError, {"image": torch.zeros(SHAPE), "label": 3}),
        (ValueError, {"image": torch.zeros(SHAPE), "label": -1}),
        (ValueError, {"image": torch.zeros(SHAPE), "label": None}),
        (TypeError, {"image": torch.zeros(SHAPE), "label": True}),
        (ValueError, {"image": torch.zeros(SHAPE), "label": torch.tensor([0, 1])}),
        (ValueError, {"image": torch.zeros(1, 4, 5), "label": 0}),
        (ValueError, {"image": torch.zeros(4, 4), "label": 0}),
        (ValueError, {"image": np.zeros((2, 4, 4)), "label": 0}),
        (TypeError, {"image": torch.zeros(SHAPE, dtype=torch.complex64), "label": 0}),
        (TypeError, {"image": torch.zeros(SHAPE, dtype=torch.bool), "label": 0}),
        (TypeError, {"image": np.zeros(SHAPE, dtype=bool), "label": 0}),
        (TypeError, {"image": np.zeros(SHAPE, dtype=object), "label": 0}),
        (TypeError, {"image": f"{CANARY}.nii", "label": 0}),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence_alone_and_in_a_pipeline(refused, kind, data):
    step = transform(condition_key="label", num_classes=3)
    with refused(kind, "expected|pass") as _:
        step(data)
    with pytest.raises(RuntimeError) as caught:
        Compose([step])(data)
    assert type(caught.value.__cause__) is kind
    assert CANARY not in str(caught.value.__cause__)


@pytest.mark.parametrize("label", ["benign", object(), [0, "one"], {"class": 1}])
def test_a_condition_that_is_no_number_is_refused_in_one_sentence(refused, label):
    with refused(TypeError, "condition .*expected"):
        transform(condition_key="label", num_classes=3)({"image": image(), "label": label})


def test_several_images_do_not_share_one_private_label(refused):
    step = transform(keys=["a", "b"], condition_key="label", num_classes=3, label_mechanism=RandomizedResponse(1.0, 3))
    with refused(ValueError, "2 images share one private label"):
        step({"a": image(), "b": image(), "label": 0})


def test_what_is_no_privatizer_is_refused_without_a_warning(refused):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in (Privatize, lambda part: Privatized("image", part)):
            with refused(TypeError, "privatizer is a str; expected a Releaser"):
                make("privatizer")


def test_a_private_label_without_a_place_is_refused(refused):
    inn = ConditionalINN((4, 4), num_classes=3)
    label = RandomizedResponse(1.0, 3)
    privatizer = Privatizer(inn, PriorOnly(), ContentBasis.leading(inn, 2), condition=0, label_mechanism=label)
    with refused(ValueError, "no condition_key says where it is"):
        Privatized(keys="image", privatizer=privatizer)
