# SPDX-License-Identifier: Apache-2.0
"""A network on another device: whatever it is given goes there, nothing is mixed, and the figures are the same.

There is a second device without a graphics card: its tensors hold others of this processor. An operation unwraps them,
and refuses a tensor that is not there, as a graphics card would.
"""

from __future__ import annotations

import copy
import importlib
import json

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from monai_cadp.attacks import audit_releaser, reidentification, train_verification
from monai_cadp.data import open_schema, open_table
from monai_cadp.engines import ColumnNoise, FlowEvaluator, FlowTrainer, GaussianNoise, LevelTrainer
from monai_cadp.metrics import (
    chest_features,
    classifier_auc,
    frechet_distance,
    perceptual_similarity,
    precision_recall,
    segmentation_dice,
    shape_features,
    train_classifier,
    train_segmentation,
    within_class_correlation,
)
from monai_cadp.networks import (
    ConditionalINN,
    ContentBasis,
    DeclaredContent,
    PaperINN,
    TrainedModel,
    fit_moments,
    refit_moments,
)
from monai_cadp.privacy import (
    Budget,
    GaussianMechanism,
    LaplaceMechanism,
    PriorOnly,
    PrivacyLedger,
    RandomizedResponse,
    SubsetSelection,
)
from monai_cadp.privacy.ledger import write_secret
from monai_cadp.release import Privatizer, RecordedReleaser, SliceWiseReleaser, release_folder
from monai_cadp.release.checkpoint import load_privatizer, save_model
from monai_cadp.studies import (
    AttributeInference,
    CellNoise,
    ClassifierUtility,
    ColumnHistograms,
    ContentKept,
    LatentLaplace,
    NearestCandidate,
    NetworkContent,
    NetworkMembership,
    NetworkTraining,
    PrivateTraining,
    PublishedMethod,
    Realism,
    Reidentification,
    ReleaseAudit,
    ReleaseEvaluation,
    ReleaseStrip,
    RowUtility,
    Study,
    UserContent,
    WhichIsWhich,
    WithoutGuarantee,
)
from monai_cadp.transforms import Privatized

# The one device besides the processor for which every build of PyTorch can compute gradients.
DEVICE = torch.device("meta")
# Operations that take tensors of two devices, as on a graphics card.
MIXED = {"copy_", "_to_copy", "index"}


class Elsewhere(torch.Tensor):
    """A tensor on the second device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        tensor.inner = inner
        return tensor

    def tolist(self):
        return self.inner.tolist()

    def __repr__(self):
        return f"Elsewhere({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return dispatch(operation, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return dispatch(operation, args, kwargs or {})


def dispatch(operation, args, kwargs):
    name = operation.overloadpacket.__name__
    tensors: list[Tensor] = []
    each((args, kwargs), lambda value: tensors.append(value) if isinstance(value, Tensor) else None)
    is_there = any(isinstance(tensor, Elsewhere) for tensor in tensors)
    here = [tuple(tensor.shape) for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.ndim]
    if is_there and here and name not in MIXED:
        raise RuntimeError(f"{operation} got tensors on two devices; those of shapes {here} are on the CPU")
    target = kwargs.get("device")
    if target is not None:
        is_there, kwargs = torch.device(target) == DEVICE, {**kwargs, "device": torch.device("cpu")}
    if name == "copy_":
        is_there = isinstance(args[0], Elsewhere)
    result = operation(*each(args, inner), **each(kwargs, inner))
    known = {id(inner(tensor)): tensor for tensor in tensors}

    def outer(value):
        if not isinstance(value, Tensor):
            return value
        # An operation in place returns what it was given.
        return known[id(value)] if id(value) in known else Elsewhere(value) if is_there else value

    return each(result, outer)


def each(value, change):
    """Return a structure of lists, tuples and dictionaries with everything in it changed."""
    if isinstance(value, dict):
        return {key: each(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([each(one, change) for one in value])
    return change(value)


def inner(value):
    return value.inner if isinstance(value, Elsewhere) else value


@pytest.fixture
def second(monkeypatch):
    optimizers = importlib.import_module("torch.optim.optimizer")
    monkeypatch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: ["cpu", "meta"])
    # Of this device it would make tensors without values.
    make = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda data, device=None, **options: make(data, **options).to(device or "cpu"))
    with SecondDevice():
        yield DEVICE


def images(count=16, size=16):
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(1))


LABELS = torch.arange(16) % 2


def network(kind="whole"):
    torch.manual_seed(0)
    if kind == "paper":
        return PaperINN((16, 16), num_classes=2, depths=(1, 1), num_dense=1, dense_width=8)
    if kind == "maps":
        options = {"num_levels": 1, "num_maps": 1, "num_local_couplings": 2, "rank": 8}
    else:
        options = {"num_levels": 2, "context_width": 16 if kind == "whole" else 0}
    return ConditionalINN((16, 16), 1, 2, num_couplings=2, num_detail_couplings=2, width=16, **options)


def fitted(kind="whole"):
    inn = network(kind)
    if kind != "paper":
        fit_moments(inn, lambda: [(images(), LABELS)])
    return inn


def loader(size=16):
    items = [{"image": image, "label": label} for image, label in zip(images(size=size), LABELS, strict=True)]
    return DataLoader(Dataset(items), batch_size=8)


def weights(inn):
    return {name: inner(tensor.detach()) for name, tensor in inn.state_dict().items() if isinstance(tensor, Tensor)}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_the_second_device_refuses_a_tensor_that_is_not_there(second):
    layer = torch.nn.Linear(3, 2).to(second)
    assert layer(torch.ones(1, 3, device=second)).device == second
    with pytest.raises(RuntimeError, match="two devices"):
        layer(torch.ones(1, 3))
    with pytest.raises((RuntimeError, TypeError)):
        layer.weight.detach().numpy()


@pytest.mark.parametrize("kind", ["whole", "neighbourhood", "maps"])
def test_moments_are_fitted_where_the_network_is(second, kind):
    elsewhere = network(kind).to(second)
    fit_moments(elsewhere, lambda: [(images(), LABELS)])
    expected = fitted(kind)
    assert_same(weights(elsewhere), weights(expected))
    for inn in (elsewhere, expected):
        refit_moments(inn, lambda: [(images().square(), LABELS)])
    assert_same(weights(elsewhere), weights(expected))


@pytest.mark.parametrize(
    ("trainer", "kind"),
    [(LevelTrainer, "whole"), (FlowTrainer, "neighbourhood"), (FlowTrainer, "maps"), (FlowTrainer, "paper")],
)
@pytest.mark.slow
def test_a_network_is_trained_where_it_is_told(second, trainer, kind):
    trained = []
    for device in ("cpu", second):
        one = trainer(
            network(kind), loader(), max_epochs=1, device=device, noise=GaussianNoise(0.01), learning_rate=0.01
        )
        one.run()
        assert all(tensor.device == torch.device(device) for tensor in one.averaged_network.parameters())
        trained.append(one.averaged_network)
    # The noise comes from a generator of each device.
    for name, tensor in weights(trained[1]).items():
        assert tensor.shape == weights(trained[0])[name].shape and bool(tensor.isfinite().all()), name


def test_a_network_is_evaluated_where_it_is(second):
    inn = fitted()
    figures = []
    for device in ("cpu", second):
        evaluator = FlowEvaluator(copy.deepcopy(inn).to(device), loader(), device=device, noise=GaussianNoise(0.01))
        evaluator.run()
        figures.append(dict(evaluator.state.metrics))
    assert figures[0] == pytest.approx(figures[1])


def test_a_basis_is_fitted_where_the_network_is(second):
    inn = fitted()
    expected = ContentBasis.fit(inn, num_directions=4, num_samples=64)
    found = ContentBasis.fit(inn.to(second), num_directions=4, num_samples=64)
    assert found.directions.device == second
    assert_same(weights(found), weights(expected))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "content"),
    [
        (PriorOnly(), "basis"),
        (SubsetSelection(2.0), "basis"),
        (LaplaceMechanism(2.0, clipping_bound=1.0), "basis"),
        (GaussianMechanism(2.0, 1e-6, clipping_bound=1.0), "basis"),
        (SubsetSelection(2.0), "declared"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_images_of_the_processor_are_released_where_the_network_is(second, mechanism, content):
    inn = fitted().to(second)
    chosen = ContentBasis.leading(inn, 4) if content == "basis" else DeclaredContent(means, num_candidates=64)
    options = {} if isinstance(mechanism, PriorOnly) else {"label_mechanism": RandomizedResponse(1.0, num_classes=2)}
    privatizer = Privatizer(inn, mechanism, chosen, **options)
    for place in ("cpu", second):
        released, labels = privatizer.release_with_conditions(images().to(place), LABELS.to(place))
        assert released.device == labels.device == second and bool(released.isfinite().all())
    assert Privatizer(inn, mechanism, chosen, condition=1)(images(2)).device == second


def test_a_checkpoint_is_released_with_where_it_is_told(second, tmp_path):
    inn = fitted()
    save_model(TrainedModel(inn, ContentBasis.leading(inn, 4)), tmp_path / "model.pt")
    privatizer = load_privatizer(tmp_path / "model.pt", SubsetSelection(1.0), device=second)
    assert privatizer.device == privatizer(images(2), LABELS[:2]).device == second
    assert privatizer.content.directions.device == second


def means(x):
    return x.mean((2, 3))


def test_what_wraps_a_releaser_goes_where_its_network_is(second, tmp_path):
    inn = fitted().to(second)
    privatizer = Privatizer(inn, SubsetSelection(1.0), ContentBasis.leading(inn, 4))
    volume = torch.rand(2, 1, 16, 16, 3)
    assert SliceWiseReleaser(privatizer, 3)(volume, LABELS[:2]).device == second
    ledger = PrivacyLedger.create(tmp_path / "ledger.db", write_secret(tmp_path / "secret"), Budget(8.0))
    recorded = RecordedReleaser(privatizer, ledger)
    arguments = (images(2), LABELS[:2], ["anna", "bert"], ["a", "b"])
    first, again = (recorded.release_with_conditions(*arguments)[0] for _ in range(2))
    assert first.device == again.device == second and torch.equal(inner(first), inner(again))


def test_a_transform_gives_back_an_image_where_it_took_it(second):
    inn = fitted().to(second)
    transform = Privatized(
        "image", Privatizer(inn, SubsetSelection(1.0), ContentBasis.leading(inn, 4)), condition_key="label"
    )
    assert transform({"image": images(1)[0], "label": 1})["image"].device == torch.device("cpu")
    assert isinstance(transform({"image": images(1)[0].numpy(), "label": 1})["image"], np.ndarray)


def test_a_folder_is_released_where_the_network_is(second, tmp_path):
    inn = fitted().to(second)
    items = [{"image": image, "label": label} for image, label in zip(images(4), LABELS, strict=False)]
    release_folder(
        Privatizer(inn, SubsetSelection(1.0), ContentBasis.leading(inn, 4)), items, tmp_path / "out", num_preview=4
    )
    assert len(list((tmp_path / "out").glob("release_*.png"))) == 4


@pytest.mark.slow
def test_a_releaser_is_attacked_where_its_network_is(second):
    inn = fitted("neighbourhood").to(second)
    releaser = Privatizer(inn, SubsetSelection(1.0, num_candidates=64), ContentBasis.leading(inn, 2))
    audit = audit_releaser(releaser, 100, 20)
    assert not audit.is_contradicted


def test_metrics_are_computed_where_the_images_are(second):
    x, other, labels = images(16, 32), images(16, 32).flip(0).square(), LABELS
    there, other_there, labels_there = x.to(second), other.to(second), labels.to(second)
    for features in (shape_features, chest_features):
        assert torch.equal(inner(features(there)), features(x))
    assert frechet_distance(x.flatten(1)[:, :4], other.flatten(1)[:, :4]) == pytest.approx(
        frechet_distance(there.flatten(1)[:, :4], other_there.flatten(1)[:, :4])
    )
    assert precision_recall(there.flatten(1), other_there.flatten(1)) == precision_recall(
        x.flatten(1), other.flatten(1)
    )
    assert torch.equal(
        inner(within_class_correlation(means(there), means(other_there), labels_there)),
        within_class_correlation(means(x), means(other), labels),
    )
    model = train_classifier(there, labels_there, 2, epochs=1)
    assert next(model.parameters()).device == second
    assert classifier_auc(model, there, labels_there) == classifier_auc(
        train_classifier(x, labels, 2, epochs=1), x, labels
    )
    verification = train_verification(there, other_there, epochs=1)
    assert 0 <= reidentification(verification, there, other_there, num_bootstraps=10).auc.value <= 1
    similar = perceptual_similarity(there, other_there, model[:-1], labels_there, num_bootstraps=10)
    assert -1 <= similar.pairs.value <= 1
    masks = (x > 0.5).long()
    segmentation = train_segmentation(there, masks.to(second), 2, epochs=1)
    assert segmentation_dice(segmentation, there, masks.to(second)).shape[0] == 16


def test_an_evaluation_trains_and_measures_where_it_is_told(second):
    items = [{"image": image, "label": label} for image, label in zip(images(), LABELS, strict=True)]
    inn = fitted().to(second)
    evaluation = ReleaseEvaluation(items, items, device=second, epochs=1)
    assert evaluation.originals()["accuracy"] >= 0
    (row,) = evaluation.run(TrainedModel(inn, ContentBasis.leading(inn, 4)), ContentBasis.leading(inn, 4), [])
    assert -1 <= row["kept_mean"] <= 1


class Negative(nn.Module):
    """Something that is called anonymisation."""

    def forward(self, x, y):
        return 1 - x


@pytest.mark.slow
def test_a_study_runs_where_it_is_told(second, tmp_path, monkeypatch):
    """Every method, measurement and picture of images with classes, on the second device."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    items = [{"image": image, "label": label} for image, label in zip(images(24), torch.arange(24) % 2, strict=True)]
    training = NetworkTraining(network("neighbourhood"), "public", max_epochs=1, batch_size=8, num_directions=4)
    utility = ClassifierUtility(2, epochs=1, num_dropouts=2)
    study = Study(
        "Elsewhere",
        training,
        items,
        items,
        items,
        tmp_path / "out",
        [
            NetworkContent([2.0]),
            UserContent(shape_features, [2.0]),
            LatentLaplace([2.0]),
            CellNoise([2.0], cell=4),
            WithoutGuarantee("negative", Negative()),
            PublishedMethod(network("paper"), [1.0], max_minutes=0.05),
            PrivateTraining(2, [8.0], 1e-3, epochs=1),
        ],
        [
            utility,
            ContentKept(shape_features, ["area", "slant", "width", "height"]),
            Realism(utility),
            Reidentification(epochs=1),
            NearestCandidate(num_candidates=4),
            AttributeInference(shape_features, 1),
        ],
        [ReleaseStrip(), WhichIsWhich()],
        membership=NetworkMembership(num_overfitted=4, epochs=1),
        audit=ReleaseAudit(trials=100, trials_alone=20),
        device=second,
        quick=True,
    )
    results = json.loads((study.run().parent / "results.json").read_text())
    assert len(results["variants"]) == 9 and all(row["figures"] for row in results["variants"])
    assert load_privatizer(tmp_path / "out" / "model.pt", PriorOnly()).device == torch.device("cpu")


@pytest.mark.slow
def test_a_study_of_rows_runs_where_it_is_told(second, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    rows, schema = open_table("breast_cancer", "val"), open_schema("breast_cancer")
    inn = ConditionalINN((), schema.width, num_classes=schema.num_classes, num_couplings=2, width=8)
    study = Study(
        "Rows elsewhere",
        NetworkTraining(inn, "public", max_epochs=1, noise=ColumnNoise(schema.steps, 0.01), num_directions=4),
        rows,
        rows,
        rows,
        tmp_path / "out",
        [NetworkContent([2.0]), LatentLaplace([2.0])],
        [RowUtility(schema), ContentKept(nn.Identity()), NearestCandidate(num_candidates=4)],
        [ColumnHistograms([column.name for column in schema.encoded])],
        audit=ReleaseAudit(trials=100, trials_alone=20),
        device=second,
        unit="row",
        quick=True,
    )
    results = json.loads((study.run().parent / "results.json").read_text())
    assert len(results["variants"]) == 4 and all(row["figures"] for row in results["variants"])
