# SPDX-License-Identifier: Apache-2.0
"""Training lowers the loss, resumes to the bit, and stops before it does harm."""

from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.handlers import CheckpointLoader, CheckpointSaver, EarlyStopHandler, ValidationHandler
from monai.transforms import RandGaussianNoised

from monai_cadp.engines import FlowEvaluator, FlowTrainer, GaussianNoise, NonFiniteLossError
from monai_cadp.networks import ConditionalINN, PaperINN

COUNT = 48


def data(seed=0):
    """Two columns on a bent line, whose side is the class."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(COUNT, 2, generator=generator)
    x[:, 1] = x[:, 0].square() + 0.1 * x[:, 1]
    return [{"image": row, "label": int(row[0] > 0)} for row in x]


def loader(rows=None, shuffle=True):
    return DataLoader(Dataset(data() if rows is None else rows), batch_size=16, shuffle=shuffle)


def network():
    torch.manual_seed(0)
    return ConditionalINN((), 2, num_classes=2, num_couplings=2, width=16)


def trainer(inn=None, rows=None, **options):
    options = {"max_epochs": 4, "learning_rate": 1e-2} | options
    return FlowTrainer(network() if inn is None else inn, loader(rows), **options)


def tensors(module):
    return [tensor.clone() for tensor in module.state_dict().values() if isinstance(tensor, torch.Tensor)]


def same(first, second):
    pairs = zip(tensors(first), tensors(second), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def bits(inn):
    return FlowEvaluator(inn, loader(data(seed=9), shuffle=False))


def measured(inn):
    evaluator = bits(inn)
    evaluator.run()
    return evaluator.state.metrics["bits_per_dimension"]


# --- what it learns ---------------------------------------------------------------------------------------------------


def test_training_lowers_the_bits_per_dimension_of_unseen_data():
    inn = network()
    before = measured(inn)
    training = trainer(inn, max_epochs=60)
    training.run()
    assert measured(inn) < before - 0.5
    assert measured(training.averaged_network) < before - 0.5


def test_the_rate_rises_and_then_falls_to_nothing():
    training = trainer(max_epochs=80)
    rates = []
    training.add_event_handler(Events.ITERATION_COMPLETED, lambda e: rates.append(e.state.output[0]["learning_rate"]))
    training.run()
    top = rates.index(max(rates))
    assert 60 < top < 120 and rates[0] < 1e-3 and rates[-1] < 1e-6
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)


def test_two_runs_of_one_seed_agree_to_the_bit_and_two_seeds_do_not():
    runs = []
    for index, seed in enumerate((1, 1, 2)):
        training = trainer(seed=seed)
        torch.manual_seed(index)
        training.run()
        runs.append(training.network)
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])


def test_every_epoch_has_an_order_of_its_own():
    orders = []

    def noise(x, generator=None):
        if generator is None:  # training; the fit of the moments brings a generator
            orders.append(x[:, 0].tolist())
        return x

    training = trainer(max_epochs=3, noise=noise)
    training.run()
    epochs = [sum(orders[i : i + 3], []) for i in (0, 3, 6)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_papers_network_trains():
    torch.manual_seed(0)
    inn = PaperINN((4, 4), 1, num_classes=2, depths=(1,), num_dense=1, dense_width=8)
    rows = [{"image": torch.rand(1, 4, 4), "label": index % 2} for index in range(32)]
    training = FlowTrainer(inn, loader(rows), max_epochs=10, learning_rate=1e-2)
    losses = []
    training.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output[0]["loss"]))
    training.run()
    assert losses[-1] < losses[0]
    assert measured_on(training.averaged_network, rows) < losses[0]


def measured_on(inn, rows):
    evaluator = FlowEvaluator(inn, loader(rows, shuffle=False))
    evaluator.run()
    return evaluator.state.metrics["bits_per_dimension"]


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_a_run_resumed_from_its_state_is_the_uninterrupted_run(tmp_path):
    whole = trainer()
    whole.run()
    first = trainer()
    first.add_event_handler(Events.EPOCH_COMPLETED(once=2), lambda engine: engine.terminate())
    first.run()
    torch.save({name: part.state_dict() for name, part in first.training_state().items()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second = trainer()
    with torch.no_grad():
        for parameter in second.network.parameters():
            parameter.add_(1.0)
    for name, part in second.training_state().items():
        part.load_state_dict(state[name])
    second.run()
    assert second.state.epoch == 4 and second.state.iteration == whole.state.iteration
    assert same(second.network, whole.network)
    assert same(second.averaged, whole.averaged)
    assert not same(first.network, whole.network)


def test_a_training_that_is_over_ends_again_and_does_not_begin_anew():
    whole = trainer()
    whole.run()
    again = trainer()
    for name, part in again.training_state().items():
        part.load_state_dict(whole.training_state()[name].state_dict())
    fired = []
    for event in (Events.STARTED, Events.ITERATION_COMPLETED, Events.COMPLETED):
        again.add_event_handler(event, lambda _, event: fired.append(event), event)
    again.run()
    assert fired == [Events.STARTED, Events.COMPLETED]
    assert same(again.network, whole.network)


def test_monais_checkpoint_handlers_resume_to_the_bit(tmp_path):
    whole = trainer()
    whole.run()
    first = trainer()
    CheckpointSaver(str(tmp_path), first.training_state(), save_interval=1, n_saved=1).attach(first)
    first.add_event_handler(Events.EPOCH_COMPLETED(once=2), lambda engine: engine.terminate())
    first.run()
    (checkpoint,) = tmp_path.glob("*.pt")
    second = trainer()
    CheckpointLoader(str(checkpoint), second.training_state(), strict_shape=True).attach(second)
    second.run()
    assert second.state.epoch == 4
    assert same(second.network, whole.network) and same(second.averaged, whole.averaged)


def test_handlers_given_to_the_trainer_may_load_an_earlier_run(tmp_path):
    whole = trainer()
    whole.run()
    first = trainer()
    CheckpointSaver(str(tmp_path), first.training_state(), save_interval=2, n_saved=None).attach(first)
    first.run()
    checkpoint = next(path for path in sorted(tmp_path.glob("*.pt")) if "epoch=2" in path.name)

    class Resume:
        def attach(self, engine):
            CheckpointLoader(str(checkpoint), engine.training_state()).attach(engine)

    second = trainer(train_handlers=[Resume()])
    second.run()
    assert same(second.network, whole.network) and same(second.averaged, whole.averaged)


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_batch_that_is_not_finite_stops_the_run_before_the_weights_are_touched(refused, value):
    batches = []

    def poisoned(x, generator=None):
        if generator is None:
            batches.append(x)
        return torch.where(torch.arange(len(x))[:, None] == 3, value, x) if len(batches) == 5 else x

    training = trainer(noise=poisoned)
    seen = []
    training.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: seen.append((tensors(e.network), tensors(e.averaged)))
    )
    with refused(NonFiniteLossError, "The (loss|gradient) became .*resume from it"):
        training.run()
    assert len(seen) == 4
    for before, after in zip(seen[-1], (tensors(training.network), tensors(training.averaged)), strict=True):
        assert all(torch.equal(a, b) and torch.isfinite(b).all() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_data_that_are_not_finite_are_refused_before_the_first_step(refused, value):
    rows = data()
    rows[20]["image"][1] = value
    training = trainer(rows=rows)
    before = tensors(training.network)
    with refused(ValueError, "NaN or infinity; expected finite pixels"):
        training.run()
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(training.network), strict=True))


def test_an_absurd_rate_stops_the_run_and_the_checkpoint_from_before_is_still_there(tmp_path, refused):
    good = trainer(max_epochs=2)
    CheckpointSaver(str(tmp_path), good.training_state(), save_interval=1, n_saved=1).attach(good)
    good.run()
    (checkpoint,) = tmp_path.glob("*.pt")
    content = checkpoint.read_bytes()
    bad = trainer(good.network, learning_rate=1e30)
    CheckpointSaver(str(tmp_path), bad.training_state(), save_interval=1, n_saved=1).attach(bad)
    seen = []
    bad.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(tensors(e.network)))
    with refused(NonFiniteLossError, "resume from it with a lower learning rate"):
        bad.run()
    assert all(torch.equal(a, b) for a, b in zip(seen[-1], tensors(bad.network), strict=True))
    assert all(torch.isfinite(tensor).all() for tensor in tensors(bad.network))
    assert checkpoint.read_bytes() == content
    state = torch.load(checkpoint, weights_only=True)
    assert all(torch.isfinite(v).all() for v in state["network"].values() if isinstance(v, torch.Tensor))


def test_a_training_that_goes_on_has_the_minutes_that_were_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("monai_cadp.engines.flow_trainer.time.monotonic", lambda: now[0])

    def pass_time(training):
        # Three steps an epoch, a minute each.
        training.add_event_handler(Events.ITERATION_STARTED, lambda: now.__setitem__(0, now[0] + 60))

    first = trainer(max_epochs=2, max_minutes=10.0)
    pass_time(first)
    first.run()
    now[0] += 10_000.0
    again = trainer(max_epochs=1000, max_minutes=10.0)
    for name, part in again.training_state().items():
        state = first.training_state()[name].state_dict()
        part.load_state_dict(state | {"max_epochs": 1000} if name == "trainer" else state)
    again.state.max_epochs = 1000
    pass_time(again)
    again.run()
    assert again.state.iteration == 10


def test_random_transforms_of_a_resumed_training_are_those_of_the_uninterrupted_one():
    def make(epochs):
        rows = Dataset(data(), transform=[RandGaussianNoised(keys="image", prob=1.0, std=0.5)])
        batches = DataLoader(rows, batch_size=16, shuffle=True)
        return FlowTrainer(network(), batches, max_epochs=epochs, learning_rate=1e-2)

    whole, first, second = make(4), make(4), make(4)
    whole.run()
    first.add_event_handler(Events.EPOCH_COMPLETED(once=2), first.terminate)
    first.run()
    for name, part in second.training_state().items():
        part.load_state_dict(first.training_state()[name].state_dict())
    second.run()
    assert same(second.network, whole.network)


def test_max_minutes_stops_within_an_epoch():
    training = trainer(max_epochs=1000, max_minutes=1e-9)
    training.run()
    assert training.state.iteration == 1
    assert training.progress == 1.0


def test_a_run_with_time_to_spare_takes_all_its_epochs():
    training = trainer(max_epochs=2, max_minutes=1000.0)
    training.run()
    assert training.state.epoch == 2 and training.progress == 1.0


def test_training_stops_early_when_validation_does_not_get_better():
    training = trainer(max_epochs=50, learning_rate=1e-30)
    evaluator = bits(training.averaged_network)
    score = lambda engine: -engine.state.metrics["bits_per_dimension"]  # noqa: E731
    EarlyStopHandler(patience=2, score_function=score, trainer=training).attach(evaluator)
    ValidationHandler(interval=1, validator=evaluator).attach(training)
    training.run()
    assert training.state.epoch == 3


@pytest.mark.parametrize(
    "options",
    [
        {"max_epochs": 0},
        {"max_epochs": -1},
        {"learning_rate": 0.0},
        {"learning_rate": -1e-3},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"max_minutes": 0.0},
        {"max_minutes": math.nan},
        {"averaging": 1.5},
        {"averaging": -0.1},
        {"largest_gradient": 0.0},
        {"weight_decay": -1.0},
    ],
)
def test_bad_numbers_are_refused(refused, options):
    with refused(ValueError, "trainer got .*expected"):
        trainer(**options)


@pytest.mark.parametrize("device", ["tpu", "cuda:97", "nonsense"])
def test_a_device_that_is_not_there_is_refused_in_one_sentence(refused, device):
    for made_with in (trainer, lambda **options: FlowEvaluator(network(), loader(), **options)):
        with refused(ValueError, "device is .*cannot be used here; expected cpu, cuda or the like"):
            made_with(device=device)


@pytest.mark.parametrize(
    ("label", "match"),
    [
        (2, "unknown class; expected class indices"),
        (-1, "unknown class"),
        ([0, 1], "shape .16, 2.; expected class"),
    ],
)
@pytest.mark.parametrize("kind", ["new", "trained before"])
def test_labels_that_the_network_does_not_know_are_refused_before_the_first_step(refused, label, match, kind):
    rows = [row | {"label": torch.tensor(label)} for row in data()]
    inn = network()
    if kind == "trained before":
        trainer(inn, max_epochs=1).run()
    training = trainer(inn, rows)
    before = [weights.clone() for weights in training.network.parameters()]
    with refused(ValueError, match):
        training.run()
    assert all(torch.equal(a, b) for a, b in zip(before, training.network.parameters(), strict=True))


def test_a_network_with_nothing_to_learn_is_refused(refused):
    with refused(ValueError, "nothing that a training learns.*expected even sizes"):
        FlowTrainer(ConditionalINN((5, 5, 5), num_couplings=0), DataLoader(Dataset([])), max_epochs=1)


def test_a_batch_without_images_is_refused(refused):
    with refused(KeyError, "no key 'image'"):
        trainer(rows=[{"picture": torch.zeros(2)}] * 4).run()


def test_the_noise_is_drawn_afresh_for_every_image_and_epoch():
    seen = []

    class Kept(GaussianNoise):
        def __call__(self, x, generator=None):
            noise = super().__call__(torch.zeros_like(x), generator)
            seen.extend([noise] if generator is None else [])
            return x + noise

    trainer(max_epochs=2, noise=Kept(0.5)).run()
    assert len(torch.cat(seen).flatten().unique()) == 2 * COUNT * 2
