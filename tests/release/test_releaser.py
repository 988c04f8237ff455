# SPDX-License-Identifier: Apache-2.0
"""One interface: whatever has the members of a releaser goes wherever a privatizer goes, and wraps and is wrapped."""

from __future__ import annotations

import json
import sys
import types
import warnings

import pytest
import torch

from monai_cadp.__main__ import main
from monai_cadp.attacks import audit_releaser
from monai_cadp.networks import ConditionalINN, ConditionSpace, ContentBasis
from monai_cadp.privacy import (
    Budget,
    GaussianMechanism,
    LaplaceMechanism,
    PrivacyGuarantee,
    PrivacyLedger,
    SubsetSelection,
)
from monai_cadp.release import (
    Privatizer,
    RecordedReleaser,
    SliceWiseReleaser,
    as_releaser,
    release_folder,
)
from monai_cadp.studies.methods import of_releaser
from monai_cadp.transforms import Privatize, Privatized

SLICES, AXIS = 5, 1
SHAPE = (1, 8, SLICES, 8)


class Volumes(torch.utils.data.Dataset):
    """Two volumes of each of three people."""

    def __init__(self, named=True):
        self.named = named
        self.images = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        item = {"image": self.images[index], "label": torch.tensor(index % 2)}
        return item | ({"subject": f"person {index // 2}", "item": index} if self.named else {})


class Coin:
    """Somebody else's releaser with the members of the interface and no others: black or white, whatever comes."""

    guarantee = PrivacyGuarantee(epsilon=0.5, mechanism="Coin", unit="image")
    condition_space = ConditionSpace(num_classes=2)
    image_shape = SHAPE

    def __init__(self, leak=0.0):
        self.leak = leak

    def release(self, images, conditions=None):
        faces = torch.randint(2, (len(images), 1, 1, 1, 1), dtype=torch.float64)
        return self.leak * images + faces.expand(-1, *SHAPE)

    def config(self):
        return {"releaser": "Coin", "leak": self.leak}


def privatizer(mechanism=None):
    torch.manual_seed(0)
    inn = ConditionalINN((8, 8), num_classes=2, width=4, num_couplings=1)
    return Privatizer(inn, mechanism or SubsetSelection(0.5, num_candidates=16), ContentBasis.leading(inn, 2))


def slice_wise(mechanism=None):
    return SliceWiseReleaser(privatizer(mechanism), SLICES, AXIS)


RELEASERS = {"slices": slice_wise, "five members": Coin}


@pytest.fixture
def ledger(tmp_path):
    return PrivacyLedger.create(tmp_path / "ledger.db", bytes(32), Budget(epsilon=5.0, delta=1e-3))


def transform(releaser, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Privatized("image", releaser, "label", **options)


# --- everywhere -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RELEASERS)
@pytest.mark.parametrize("recorded", [False, True])
def test_any_releaser_releases_a_folder(kind, recorded, ledger, tmp_path):
    releaser = RELEASERS[kind]()
    folder = release_folder(releaser, Volumes(), tmp_path / "released", ledger=ledger if recorded else None)
    cards = [json.loads(file.read_text()) for file in folder.glob("*_privacy.json")]
    assert len(cards) == len(list(folder.glob("*.nii.gz"))) == 6
    assert all(card["guarantee"] == releaser.guarantee.to_dict() for card in cards)
    assert all(card["shape"] == list(SHAPE) for card in cards)
    assert ledger.summary()["reserved"] == (6 if recorded else 0)
    assert ledger.spent("person 0")[0] == (2 * releaser.guarantee.epsilon if recorded else 0)


@pytest.mark.parametrize("kind", RELEASERS)
def test_any_releaser_stands_in_a_transform(kind, ledger):
    releaser, item = RELEASERS[kind](), Volumes()[0]
    released = transform(releaser)(item)["image"]
    assert released.shape == SHAPE and not torch.equal(released.as_tensor(), item["image"])
    assert released.meta["privacy"]["epsilon"] == releaser.guarantee.epsilon
    recorded = transform(releaser, ledger=ledger, subject_key="subject", item_key="item")
    assert torch.equal(recorded(item)["image"], recorded(item)["image"])
    assert ledger.spent("person 0")[0] == releaser.guarantee.epsilon


@pytest.mark.parametrize(("kind", "audited"), [("slice_wise", 2), ("Coin", 1)])
def test_any_releaser_is_audited_by_the_command(kind, audited, tmp_path, capsys, monkeypatch):
    """From image to image; the mechanism under it as well, where there is one that anybody knows."""
    module = types.ModuleType("configured")
    module.slice_wise, module.Coin = slice_wise, Coin
    monkeypatch.setitem(sys.modules, "configured", module)
    (tmp_path / "audit.yaml").write_text(f"privatizer: {{ _target_: configured.{kind} }}\n")
    few = ["--trials", "100", "--trials_alone", "20", "--out", str(tmp_path / "audit.json")]
    assert main(["audit", "--config_file", str(tmp_path / "audit.yaml"), *few]) == 0
    levels = [audit["level"] for audit in json.loads((tmp_path / "audit.json").read_text())["audits"]]
    assert levels == ["image", "latent"][:audited]


def test_any_releaser_is_a_variant_of_a_study():
    first, again, other = (of_releaser("coin", Coin(leak)) for leak in (0.0, 0.0, 0.1))
    assert first.epsilon == 0.5 and first.settings == again.settings != other.settings
    volumes = Volumes()
    assert first.release(volumes.images, torch.zeros(6, dtype=torch.long)).shape == volumes.images.shape


@pytest.mark.slow
def test_a_releaser_that_promises_too_much_is_caught_through_the_slices():
    """The attacker adds up what all slices show: each alone keeps a promise of the whole."""
    honest = SliceWiseReleaser(privatizer(LaplaceMechanism(1.0, clipping_bound=2.0)), SLICES, AXIS)
    assert not audit_releaser(honest, 2000, 20).is_contradicted

    class OfOneSlice(SliceWiseReleaser):
        @property
        def description(self):
            return self.releaser.description

    control = OfOneSlice(privatizer(LaplaceMechanism(1.0, clipping_bound=2.0)), SLICES, AXIS)
    assert control.guarantee.epsilon == 1.0 and audit_releaser(control, 2000, 20).is_contradicted


def test_a_leak_of_a_releaser_that_nobody_knows_is_caught():
    assert audit_releaser(Coin(leak=1.0), 1000, 20).is_contradicted
    assert not audit_releaser(Coin(), 1000, 20).is_contradicted


def test_an_audit_spends_nobodys_budget(ledger):
    result = audit_releaser(SliceWiseReleaser(RecordedReleaser(privatizer(), ledger), SLICES, AXIS), 40, 20)
    assert result.epsilon == 2.5 and ledger.summary()["reserved"] == 0


# --- in one another ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["volumes are recorded", "slices are recorded", "by two ledgers"])
def test_releasers_wrap_each_other_and_a_volume_costs_the_same(order, ledger, tmp_path):
    if order == "volumes are recorded":
        releaser, entries = RecordedReleaser(slice_wise(), ledger), 1
    else:
        releaser, entries = SliceWiseReleaser(RecordedReleaser(privatizer(), ledger), SLICES, AXIS), SLICES
    if order == "by two ledgers":
        other = PrivacyLedger.create(tmp_path / "other.db", bytes(32), Budget(epsilon=3.0))
        releaser = RecordedReleaser(releaser, other)
    x, labels = Volumes().images[:2], torch.tensor([0, 1])
    pairs = [releaser.release_with_conditions(x, labels, ["anna", "bert"], ["a", "a"]) for _ in range(2)]
    assert torch.equal(pairs[0][0], pairs[1][0]) and torch.equal(pairs[0][1], labels)
    assert ledger.spent("anna") == (2.5, 0.0) and ledger.summary()["released"] == 2 * entries
    assert releaser.guarantee.epsilon == 2.5 and releaser.guarantee.unit == "volume"
    if order == "by two ledgers":
        assert other.spent("bert") == (2.5, 0.0)


def test_a_releaser_with_a_ledger_needs_no_second_one_in_folders_and_transforms(ledger, tmp_path):
    recorded = RecordedReleaser(slice_wise(), ledger)
    release_folder(recorded, Volumes(), tmp_path / "released")
    assert ledger.summary()["reserved"] == 6
    # Of a dictionary the transform knows an image by its item and its key.
    item = Volumes()[0] | {"subject": "person 3"}
    first, again = (transform(recorded, subject_key="subject", item_key="item")(item) for _ in range(2))
    assert ledger.summary()["reserved"] == 7 and torch.equal(first["image"], again["image"])
    assert "subject" not in first


@pytest.mark.parametrize(("names", "match"), [((None, None), "give subjects"), ((["a", "b"], None), "give items")])
def test_names_that_a_ledger_further_in_misses_are_missed_before_anything_is_spent(
    ledger, tmp_path, refused, names, match
):
    other = PrivacyLedger.create(tmp_path / "other.db", bytes(32), Budget(epsilon=3.0))
    inner = SliceWiseReleaser(RecordedReleaser(privatizer(), ledger), SLICES, AXIS)
    releaser = RecordedReleaser(inner, other, by_item=False)
    with refused(ValueError, match):
        releaser.release(Volumes().images[:2], torch.tensor([0, 1]), *names)
    assert other.summary()["reserved"] == ledger.summary()["reserved"] == 0


def test_every_configuration_tells_what_is_wrapped_and_no_place_of_a_ledger(ledger, tmp_path):
    gaussian = privatizer(GaussianMechanism(0.5, 1e-6, clipping_bound=3.0))
    configs = [
        json.dumps(releaser.config(), sort_keys=True)
        for inner in (privatizer(), gaussian)
        for releaser in (
            inner,
            SliceWiseReleaser(inner, 5),
            SliceWiseReleaser(inner, 6),
            RecordedReleaser(inner, ledger),
            RecordedReleaser(inner, ledger, by_item=False),
        )
    ]
    assert len(set(configs)) == 10 and not any(str(tmp_path) in config for config in configs)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [torch.nn.Identity(), None, "privatizer", Coin, ConditionalINN((8, 8))])
def test_what_is_no_releaser_is_refused_everywhere(other, ledger, tmp_path, refused):
    for use in (
        as_releaser,
        Privatize,
        lambda value: SliceWiseReleaser(value, SLICES),
        lambda value: RecordedReleaser(value, ledger),
        lambda value: release_folder(value, Volumes(), tmp_path / "released"),
        lambda value: audit_releaser(value, 20, 20),
    ):
        with refused(TypeError, "expected a Releaser, such as a Privatizer"):
            use(other)
    assert not (tmp_path / "released").exists()


def test_a_release_of_another_shape_is_not_recorded(ledger, refused, monkeypatch):
    monkeypatch.setattr(Coin, "release", lambda self, images, conditions=None: images[:, :, 1:])
    x, labels = Volumes().images[:2], torch.tensor([0, 1])
    with refused(ValueError, "releases have shape"):
        RecordedReleaser(Coin(), ledger).release(x, labels, ["anna", "bert"], [1, 2])
    assert ledger.summary()["released"] == 0


def test_images_of_any_precision_are_released_in_single_precision():
    torch.manual_seed(0)
    inn = ConditionalINN(SHAPE[1:], 1, num_levels=0, rank=4, num_couplings=2, width=8)
    privatizer = Privatizer(inn, SubsetSelection(2.0), ContentBasis.leading(inn, 2))
    for dtype in (torch.float16, torch.float64):
        assert privatizer(torch.rand(2, *SHAPE).to(dtype)).dtype == torch.float


def test_a_condition_of_minus_0_is_that_of_0_and_meets_its_release(ledger):
    torch.manual_seed(0)
    inn = ConditionalINN((4, 4), condition_size=2, num_couplings=1, width=8)
    privatizer = Privatizer(inn, SubsetSelection(0.5, num_candidates=16), ContentBasis.leading(inn, 2))
    recorded, x = RecordedReleaser(privatizer, ledger), torch.rand(1, 1, 4, 4)
    for zero in (0.0, -0.0):
        recorded.release_with_conditions(x, torch.tensor([[zero, 1.0]]), ["anna"], [1])
    assert ledger.summary()["released"] == 1


def test_what_is_no_number_in_an_image_is_black():
    inn = ConditionalINN(SHAPE[1:], 1, num_levels=0, rank=4, num_couplings=2, width=8)
    releaser = Privatizer(inn, SubsetSelection(2.0), ContentBasis.leading(inn, 2))
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    images[0, 0, 0, 0, 0], images[1, 0, 1, 1, 1], images[2, 0, 2, 2, 2] = torch.inf, -torch.inf, torch.nan
    black = torch.where(images.isfinite(), images, 0.0)
    inputs = [releaser.inputs(x, None)[0] for x in (images, black)]
    assert torch.equal(*inputs) and bool(inputs[0].isfinite().all())
