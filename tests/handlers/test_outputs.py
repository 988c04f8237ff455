# SPDX-License-Identifier: Apache-2.0
"""What a training leaves behind: pictures, and the file to release with."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from PIL import Image

from monai_cadp.engines import FlowTrainer, GaussianNoise
from monai_cadp.handlers import EarlyStopping, ExportPrivatizer, SamplePreview, TrainingCheckpoint
from monai_cadp.networks import ConditionalINN
from monai_cadp.networks.trained_model import WEIGHTS as KEY
from monai_cadp.privacy import SubsetSelection, TrainingData
from monai_cadp.release.checkpoint import load_model, load_privatizer

CONDITIONS = {"none": {}, "class": {"num_classes": 3}, "vector": {"condition_size": 2}}


def trainer(kind="class", shape=(1, 4, 4), max_epochs=2, **options):
    torch.manual_seed(0)
    labels = {"none": lambda i: {}, "class": lambda i: {"label": i % 3}, "vector": lambda i: {"label": torch.randn(2)}}
    rows = [{"image": torch.rand(shape)} | labels[kind](i) for i in range(24)]
    inn = ConditionalINN(shape[1:], shape[0], **CONDITIONS[kind], num_couplings=1, width=8)
    options = {"max_epochs": max_epochs, "learning_rate": 1e-2} | options
    return FlowTrainer(inn, DataLoader(Dataset(rows), batch_size=8), **options)


@pytest.mark.parametrize("kind", CONDITIONS)
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4), (1, 4, 4, 4)])
def test_a_preview_is_a_picture_for_every_epoch(tmp_path, kind, shape):
    training = trainer(kind, shape)
    SamplePreview(tmp_path / "previews", num_samples=2).attach(training)
    training.run()
    pictures = sorted((tmp_path / "previews").iterdir())
    assert [path.name for path in pictures] == ["samples_epoch_0001.png", "samples_epoch_0002.png"]
    sizes = {Image.open(path).size for path in pictures}
    assert len(sizes) == 1
    width, height = sizes.pop()
    rows = 3 if kind == "class" else 1
    assert height > 64 * rows and width > 64 * 2


def test_previews_come_as_often_as_they_were_ordered_and_use_no_random_draws_of_the_training(tmp_path):
    plain, watched = trainer(max_epochs=4), trainer(max_epochs=4)
    SamplePreview(tmp_path, every=2).attach(watched)
    plain.run()
    watched.run()
    assert [path.name[-8:-4] for path in sorted(tmp_path.iterdir())] == ["0002", "0004"]
    assert plain.network.fingerprint() == watched.network.fingerprint()


@pytest.mark.parametrize("options", [{"num_samples": 0}, {"every": 0}, {"every": -2}])
def test_a_preview_of_nothing_is_refused(tmp_path, refused, options):
    with refused(ValueError, "expected positive numbers"):
        SamplePreview(tmp_path, **options)


@pytest.mark.parametrize("kind", CONDITIONS)
def test_the_exported_file_makes_releases_and_says_how_it_was_trained(tmp_path, kind):
    training = trainer(kind, training_data="public")
    path = tmp_path / "new" / "model.pt"
    ExportPrivatizer(path, num_directions=4, progress=False).attach(training)
    training.run()
    state = torch.load(path, weights_only=True)[KEY]
    assert all(isinstance(value, (torch.Tensor, dict)) for value in state.values())
    privatizer = load_privatizer(path, SubsetSelection(4.0, num_candidates=64))
    assert privatizer.guarantee.training_data == TrainingData.of(training.averaged_network)
    assert privatizer.guarantee.training_data.protection == "public"
    assert privatizer.content.num_directions == 4
    condition = {"none": None, "class": torch.tensor([0, 2]), "vector": torch.zeros(2, 2)}[kind]
    assert privatizer(torch.rand(2, 1, 4, 4), condition).shape == (2, 1, 4, 4)
    assert [item.name for item in path.parent.iterdir()] == ["model.pt"]


def test_the_subspace_behind_a_local_flow_is_white_in_the_exported_file_as_training_never_made_it(tmp_path):
    torch.manual_seed(0)
    rows = [{"image": torch.randn(1, 1, 1) + 0.2 * torch.randn(1, 4, 4), "label": i % 2} for i in range(400)]
    options = {"num_levels": 0, "rank": 2, "num_couplings": 1, "width": 8, "num_maps": 1, "num_local_couplings": 1}
    inn = ConditionalINN((4, 4), num_classes=2, **options)
    loader, noiseless = DataLoader(Dataset(rows), batch_size=40, shuffle=True), GaussianNoise(0.0)
    training = FlowTrainer(inn, loader, max_epochs=12, learning_rate=3e-2, noise=noiseless)
    images, labels = torch.stack([row["image"] for row in rows]), torch.arange(400) % 2

    def error(network):
        inside = network.encode(images, labels)[0] @ network.whitening.basis
        return float((inside.T.cov() - torch.eye(2)).abs().max())

    path = tmp_path / "model.pt"
    finished = exported(training, path)
    assert error(finished) < 0.02 < error(training.averaged_network)


@pytest.mark.parametrize("options", [{"num_directions": 0}, {"num_directions": -1}, {"num_samples": 0}])
def test_a_basis_that_cannot_be_fitted_is_refused_before_the_training(tmp_path, refused, options):
    with refused(ValueError, "expected 1 or more of each"):
        ExportPrivatizer(tmp_path / "model.pt", **options).attach(trainer())


@pytest.mark.parametrize("handler", [ExportPrivatizer, TrainingCheckpoint])
def test_a_file_that_cannot_be_written_is_refused_before_the_training(tmp_path, refused, handler):
    (tmp_path / "file").touch()
    with refused(ValueError, "where a folder is; give the name of a new file"):
        handler(tmp_path)
    for path in (tmp_path / "file" / "model.pt", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with refused(ValueError, "output cannot be made"):
            handler(path)


SCHEMA = {"columns": [{"name": "age", "kind": "continuous", "lowest": 0, "highest": 100}], "condition": []}


@pytest.mark.parametrize(
    "other", [{"class_names": ["c", "a", "b"]}, {"schema": SCHEMA | {"condition": ["age"]}}, {"schema": None}]
)
def test_a_training_does_not_go_on_with_other_classes_or_another_schema(tmp_path, refused, other):
    """What labels and numbers mean travels with the interrupted training."""
    known = {"class_names": ["a", "b", "c"], "schema": SCHEMA}
    for described, epochs in ((known, 1), (known, 2), (known | other, 3)):
        training = trainer(max_epochs=epochs)
        export = ExportPrivatizer(tmp_path / "model.pt", num_directions=2, progress=False, **described)
        training.attach_all([TrainingCheckpoint(tmp_path / "last.pt", resume=True), export])
        if described == known:
            training.run()
    with refused(ValueError, "interrupted training was of other classes or columns"):
        training.run()
    assert load_model(tmp_path / "model.pt").schema == SCHEMA


def test_an_interrupted_training_of_an_older_version_takes_over_the_schema(tmp_path):
    export = ExportPrivatizer(tmp_path / "model.pt", progress=False, schema={"spacing": 1.8})
    export.load_state_dict(ExportPrivatizer(tmp_path / "other.pt", progress=False).state_dict())
    assert export.schema == {"spacing": 1.8}


def exported(training, path, **options):
    ExportPrivatizer(path, num_directions=2, progress=False, **options).attach(training)
    training.run()
    return load_privatizer(path, SubsetSelection(4.0, num_candidates=64)).inn


def test_without_validation_the_last_average_is_exported(tmp_path):
    training = trainer()
    inn = exported(training, tmp_path / "model.pt")
    assert TrainingData.of(inn).protection == "unprotected"
    assert inn.fingerprint() == training.averaged_network.fingerprint()
    assert inn.fingerprint() != training.network.fingerprint()


def test_the_network_of_the_best_validation_is_exported(tmp_path):
    training = trainer(max_epochs=4)
    scores, fingerprints = iter([3.0, 1.0, 2.0, float("nan")]), []
    evaluator = Engine(lambda engine, batch: None)

    def judge(engine):
        engine.state.metrics["bits_per_dimension"] = next(scores)
        fingerprints.append(training.averaged_network.fingerprint())

    evaluator.add_event_handler(Events.COMPLETED, judge)
    training.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    inn = exported(training, tmp_path / "model.pt", evaluator=evaluator)
    assert len(set(fingerprints)) == 4
    assert inn.fingerprint() == fingerprints[1]


def test_what_was_learnt_after_the_last_validation_is_validated_before_it_is_exported(tmp_path):
    training, evaluator, scores = trainer(max_epochs=3), Engine(lambda engine, batch: None), iter([2.0, 1.0])
    evaluator.add_event_handler(
        Events.COMPLETED, lambda engine: engine.state.metrics.update(bits_per_dimension=next(scores))
    )
    evaluator.run = partial(Engine.run, evaluator, [0])
    training.add_event_handler(Events.EPOCH_COMPLETED(every=2), lambda: evaluator.run())
    inn = exported(training, tmp_path / "model.pt", evaluator=evaluator)
    assert inn.fingerprint() == training.averaged_network.fingerprint()
    assert next(scores, None) is None


def judged(training, scores, *handlers):
    """Attach handlers, of which each is given the evaluator that judges the epochs by these scores."""
    scores, evaluator = iter(scores), Engine(lambda engine, batch: None)

    @evaluator.on(Events.COMPLETED)
    def judge(engine):
        engine.state.metrics["bits_per_dimension"] = next(scores)

    training.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    return [handler(evaluator) for handler in handlers]


def test_a_training_that_is_killed_after_its_best_epoch_still_exports_that_epoch(tmp_path):
    last, path = tmp_path / "last.pt", tmp_path / "model.pt"
    export = partial(ExportPrivatizer, path, num_directions=2, progress=False)
    killed, fingerprints = trainer(max_epochs=4), []
    handlers = judged(killed, [3.0, 1.0], export)
    killed.attach_all([TrainingCheckpoint(last), *handlers])
    killed.add_event_handler(Events.EPOCH_COMPLETED, lambda: fingerprints.append(killed.averaged_network.fingerprint()))

    @killed.on(Events.EPOCH_COMPLETED(once=2))
    def stop():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed.run()
    resumed = trainer(max_epochs=4)
    (handler,) = judged(resumed, [2.0, 1.5], export)
    resumed.attach_all([TrainingCheckpoint(last, resume=True), handler])
    resumed.run()
    assert handler.validations == [3.0, 1.0, 2.0, 1.5]
    found = load_privatizer(path, SubsetSelection(4.0, num_candidates=64)).inn.fingerprint()
    assert found == fingerprints[1] != resumed.averaged_network.fingerprint()


def test_patience_is_not_given_anew_to_a_training_that_goes_on(tmp_path):
    first = trainer(max_epochs=3)
    first.attach_all(judged(first, [1.0, 2.0, 2.0], partial(EarlyStopping, patience=3)))
    first.attach_all([TrainingCheckpoint(tmp_path / "last.pt")])
    first.run()
    second = trainer(max_epochs=9)
    second.attach_all([TrainingCheckpoint(tmp_path / "last.pt", resume=True)])
    second.attach_all(judged(second, [2.0] * 9, partial(EarlyStopping, patience=3)))
    second.run()
    assert second.state.epoch == 4


def test_a_handler_that_is_new_to_a_training_begins_with_it(tmp_path):
    first = trainer(max_epochs=1)
    first.attach_all([TrainingCheckpoint(tmp_path / "last.pt")])
    first.run()
    second = trainer(max_epochs=2)
    (handler,) = judged(second, [2.0], partial(ExportPrivatizer, tmp_path / "model.pt", progress=False))
    second.attach_all([TrainingCheckpoint(tmp_path / "last.pt", resume=True), handler])
    second.run()
    assert handler.validations == [2.0]


def test_an_epoch_without_a_number_does_not_hide_better_ones(tmp_path):
    training = trainer(max_epochs=2)
    (handler,) = judged(training, [float("nan"), 2.0], partial(ExportPrivatizer, tmp_path / "a", progress=False))
    training.attach_all([handler])
    training.run()
    assert handler.best_state is not None


def trained_before(tmp_path, *scores):
    """An export handler that has seen an unprotected training with these validations."""
    handler, training = made_handler(tmp_path), trainer(max_epochs=len(scores))
    train_judged(training, handler, scores)
    return handler


def made_handler(tmp_path):
    evaluator = Engine(lambda engine, batch: engine.state.metrics.update(bits_per_dimension=batch))
    return ExportPrivatizer(tmp_path / "model.pt", evaluator, num_directions=2, progress=False)


def train_judged(training, handler, scores):
    handler.attach(training)
    scores = iter(scores)
    training.add_event_handler(Events.EPOCH_COMPLETED, lambda: handler.evaluator.run([next(scores)]))
    training.run()
    return load_privatizer(handler.path, SubsetSelection(4.0, num_candidates=64)).inn


def test_a_handler_begins_anew_with_another_trainer_and_exports_nothing_of_the_one_before(tmp_path):
    handler = trained_before(tmp_path, 1.0, 2.0)
    training = trainer(max_epochs=2, training_data="public", seed=7)
    inn = train_judged(training, handler, [4.0, 3.0])
    assert handler.validations == [4.0, 3.0]
    assert inn.fingerprint() == training.averaged_network.fingerprint()
    assert TrainingData.of(inn).protection == "public"


def test_a_trainer_that_a_handler_has_left_exports_nothing_any_more(tmp_path):
    handler, first = made_handler(tmp_path), trainer(max_epochs=1)
    handler.attach(first)
    handler.attach(trainer(max_epochs=1))
    first.run()
    assert list(tmp_path.iterdir()) == [] and "export" not in first.handler_states


def test_the_best_network_is_exported_with_what_it_has_learnt_from_and_not_with_the_word_of_the_last_trainer(tmp_path):
    state = trained_before(tmp_path, 1.0).state_dict()
    handler, training = made_handler(tmp_path), trainer(max_epochs=1, training_data="public")
    training.add_event_handler(Events.STARTED, lambda: handler.load_state_dict(state))
    inn = train_judged(training, handler, [2.0])
    assert TrainingData.of(training.averaged_network).protection == "public"
    assert TrainingData.of(inn).protection == "unprotected"


def test_a_best_network_without_a_record_is_looked_for_again(tmp_path):
    state = trained_before(tmp_path, 1.0).state_dict()
    del state["best_events"]
    handler, training = made_handler(tmp_path), trainer(max_epochs=1, training_data="public", seed=7)
    training.add_event_handler(Events.STARTED, lambda: handler.load_state_dict(state))
    inn = train_judged(training, handler, [2.0])
    assert inn.fingerprint() == training.averaged_network.fingerprint()
    assert TrainingData.of(inn).protection == "public"


@pytest.mark.parametrize("word", ["open", "private", "dp", None])
def test_an_unknown_word_for_the_training_data_is_refused_before_the_training(refused, word):
    with refused(ValueError, "training_data is .*; expected 'public' or 'unprotected'"):
        trainer(training_data=word)


def test_a_training_that_breaks_exports_nothing(tmp_path):
    training = trainer()
    ExportPrivatizer(tmp_path / "model.pt", progress=False).attach(training)

    @training.on(Events.ITERATION_COMPLETED(once=2))
    def stop():
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        training.run()
    assert list(tmp_path.iterdir()) == []
