# SPDX-License-Identifier: Apache-2.0
"""Private training spends what it says, shows nothing else, and goes on after it was killed as if it had not been."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal

import dp_accounting
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from ignite.engine import Events
from mlflow import MlflowClient
from monai.handlers import MLFlowHandler, StatsHandler, from_engine
from torch.utils.data import DataLoader

from monai_cadp.engines import FlowTrainer, GaussianNoise, PrivateFlowTrainer, PrivateMoments, private_flow_trainer
from monai_cadp.handlers import ExportPrivatizer, TrainingCheckpoint
from monai_cadp.networks import ConditionalINN, fit_moments, new_event
from monai_cadp.privacy import SubsetSelection, TrainingData
from monai_cadp.privacy.auditing import epsilon_lower_bound
from monai_cadp.privacy.noisy_sum import SumLattice
from monai_cadp.release.checkpoint import load_privatizer

DELTA = 1e-4


def rows(count=60, seed=0):
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return [{"image": row, "label": torch.tensor(index % 2)} for index, row in enumerate(x)]


def network(seed=0):
    torch.manual_seed(seed)
    return ConditionalINN((), 4, num_classes=2, rank=3, num_couplings=2, width=4)


def public_network():
    inn = network()
    items = rows(200, seed=9)
    x, y = (torch.stack([item[key] for item in items]) for key in ("image", "label"))
    fit_moments(inn, lambda: [(x, y)], training_data="public")
    return inn


def trainer(inn=None, data=None, **options):
    chosen = {"epsilon": 3.0, "delta": DELTA, "max_epochs": 3, "batch_size": 15, "learning_rate": 0.01}
    if inn is None:
        inn, chosen["moments"] = network(), PrivateMoments(largest_norm=4.0)
    return PrivateFlowTrainer(inn, rows() if data is None else data, **{**chosen, **options})


def accounted(spent, delta):
    """What dp_accounting says of what was recorded."""
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    for multiplier, rate, steps, replacement in spent:
        event = dp_accounting.GaussianDpEvent(multiplier * 2 / replacement)
        if rate < 1:
            event = dp_accounting.PoissonSampledDpEvent(rate, event)
        accountant.compose(dp_accounting.SelfComposedDpEvent(event, steps))
    return accountant.get_epsilon(delta)


def test_a_whole_training_spends_its_budget_as_the_accountant_counts_it():
    training = trainer()
    training.run()
    guarantee = training.guarantee
    assert 0.98 * 3.0 < guarantee["epsilon"] <= 3.0
    assert guarantee["epsilon"] == pytest.approx(accounted(guarantee["sums"], DELTA), rel=0.005)
    assert guarantee["sums"][-1][1:3] == [0.25, 12]
    assert guarantee["add_or_remove_one_epsilon"] < guarantee["epsilon"]


@pytest.mark.slow
def test_handlers_of_monai_log_no_step_of_which_they_would_ask_a_loss_and_note_the_time(tmp_path, caplog, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    loss = from_engine("loss", first=True)
    tracking = MLFlowHandler(address, experiment_name="private", output_transform=loss)
    with caplog.at_level("INFO"):
        trainer(train_handlers=[StatsHandler(name=None, output_transform=loss), tracking]).run()
    client = MlflowClient(address)
    (run,) = client.search_runs([client.get_experiment_by_name("private").experiment_id])
    assert run.data.params == {"max_epochs": "3", "epoch_length": "4"} and run.data.metrics == {}
    assert "Iter: " not in caplog.text and "loss" not in caplog.text.lower()


def test_a_training_that_stops_early_counts_as_a_whole_one():
    """When to stop may depend on what came out."""
    training = trainer()
    training.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda engine: engine.terminate())
    training.run()
    assert training.guarantee["sums"][-1][2] == 12 and training.guarantee["epsilon"] > 2.9


def images_seen(monkeypatch, secret=True):
    """What a step sees of the images of a batch, with their input noise."""
    found = []
    true_gradients = private_flow_trainer.likelihood_gradients

    def seen(network, x, *rest):
        found.append(x)
        return true_gradients(network, x, *rest)

    monkeypatch.setattr(private_flow_trainer, "likelihood_gradients", seen)
    training = trainer(public_network(), max_epochs=1, batch_size=60, noise=GaussianNoise(1.0))
    if not secret:
        training._noisy = training.noise
    training.run()
    monkeypatch.undo()
    return torch.cat(found)


def test_input_noise_cannot_be_foretold_and_a_control_with_that_of_a_public_seed_is_rejected(monkeypatch):
    """Where it can, a person who enters a batch shifts the noise of all who come after them, and shows in them."""
    assert not torch.allclose(images_seen(monkeypatch), images_seen(monkeypatch))
    assert torch.equal(images_seen(monkeypatch, secret=False), images_seen(monkeypatch, secret=False))


def test_a_network_does_not_keep_a_word_that_is_no_longer_true(refused):
    inn = public_network()
    FlowTrainer(inn, DataLoader(rows(), 8), max_epochs=1).run()
    assert TrainingData.of(inn).protection == "unprotected"
    with refused(ValueError, "nothing can undo"):
        trainer(inn)
    once = public_network()
    trainer(once, max_epochs=1).run()
    assert TrainingData.of(once).protection == "dp"
    FlowTrainer(once, DataLoader(rows(), 8), max_epochs=1, training_data="public").run()
    assert TrainingData.of(once).protection == "dp"
    FlowTrainer(once, DataLoader(rows(), 8), max_epochs=1).run()
    assert TrainingData.of(once).protection == "unprotected"
    trained = network()
    with torch.no_grad():
        next(iter(trained.whitening.flow.steps)).subnet.last.weight.add_(0.1)
    with refused(ValueError, "nothing can undo"):
        trainer(trained, moments=PrivateMoments(1.0))


@pytest.mark.parametrize("option", [{"max_minutes": 1.0}, {"reversible": True}, {"device": "cuda"}], ids=str)
def test_what_private_training_cannot_have_is_refused(option, refused):
    with refused(ValueError, "cannot have it"):
        trainer(**option)


@pytest.mark.slow
def test_published_budgets_are_those_of_one_person_more_or_less():
    training = trainer(add_or_remove_one=True)
    training.run()
    guarantee = training.guarantee
    assert 0.98 * 3.0 < guarantee["add_or_remove_one_epsilon"] <= 3.0 < guarantee["epsilon"]


def test_two_private_trainings_of_one_network_add_up():
    inn = public_network()
    for _ in range(2):
        trainer(inn, max_epochs=1).run()
    single, total = trainer(public_network(), max_epochs=1).guarantee, TrainingData.of(inn).guarantee
    assert total["epsilon"] == pytest.approx(2 * single["epsilon"]) and total["delta"] == 2 * DELTA


def test_nothing_of_the_images_is_logged():
    training = trainer()
    seen = []
    training.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output))
    training.run()
    assert {name for (output,) in seen for name in output} == {"learning_rate"}


def test_the_guarantee_is_in_the_checkpoint_and_in_everything_that_is_made_with_it(tmp_path):
    training = trainer().attach_all([ExportPrivatizer(tmp_path / "model.pt", num_directions=2, progress=False)])
    training.run()
    guarantee = load_privatizer(tmp_path / "model.pt", SubsetSelection(1.0, num_candidates=64)).guarantee
    assert guarantee.training_data.protection == "dp"
    assert [event["guarantee"] for event in guarantee.training_data.events] == [training.guarantee]
    assert guarantee.training_data.guarantee["epsilon"] == training.guarantee["epsilon"]


def test_the_file_of_a_training_that_was_prolonged_states_all_that_was_looked_at(tmp_path):
    """Also where it is killed in the epoch for which it was prolonged."""
    training, stated = trainer(max_epochs=1), []

    def prolong(engine):
        engine.state.max_epochs = 3

    def note(engine):
        stated.append(TrainingData.of(engine.averaged_network).guarantee["epsilon"])

    training.add_event_handler(Events.EPOCH_COMPLETED, prolong)
    training.add_event_handler(Events.ITERATION_STARTED, note)
    training.attach_all([ExportPrivatizer(tmp_path / "model.pt", num_directions=2, progress=False)]).run()
    exported = load_privatizer(tmp_path / "model.pt", SubsetSelection(1.0, num_candidates=64)).guarantee
    assert training.guarantee["sums"][-1][2] == 12
    assert exported.training_data.guarantee["epsilon"] == training.guarantee["epsilon"] > 3.5
    assert stated == [pytest.approx(3.0, rel=0.02)] * 4 + [training.guarantee["epsilon"]] * 8


def test_what_is_trained_with_a_generator_that_can_be_foretold_has_no_guarantee():
    training = trainer(generator=torch.Generator().manual_seed(0))
    training.run()
    assert training.guarantee is None and TrainingData.of(training.network).protection == "unprotected"


def test_an_epoch_is_saved_before_anything_sees_it_and_every_epoch_is(tmp_path, refused):
    seen = []

    class Show:
        def attach(self, engine):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

        def __call__(self, engine):
            saved = torch.load(tmp_path / "last.pt", weights_only=True)
            seen.append((saved["trainer"]["iteration"], engine.state.iteration))

    trainer().attach_all([Show(), TrainingCheckpoint(tmp_path / "last.pt")]).run()
    assert seen == [(4, 4), (8, 8), (12, 12)]
    for late in (False, True):
        with refused(ValueError, "every is 2; private training is saved after every epoch"):
            checkpoint = TrainingCheckpoint(tmp_path / "other.pt", every=2)
            trainer().attach_all([checkpoint]) if late else trainer(train_handlers=[checkpoint])
    again = trainer(train_handlers=[TrainingCheckpoint(tmp_path / "last.pt", resume=True)])
    assert again.state.iteration == 12


def moved(people, count):
    """How far a step's gradient moves if the first items become huge, under the same random draws and noise."""
    found = []
    for factor in (1.0, 1e4):
        data = rows()
        for item in data[:count]:
            item["image"] = factor * item["image"]
        generator = torch.Generator().manual_seed(3)
        training = trainer(public_network(), data, people=people, generator=generator, max_epochs=1, batch_size=6)
        training.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: engine.terminate())
        training.run()
        found.append(torch.cat([parameter.grad.flatten() for parameter in training.network.parameters()]))
    return float((found[0] - found[1]).norm()) * 6


def test_a_person_with_many_images_moves_a_step_no_further_than_one_image_and_a_control_by_images_does():
    largest = 2 * 0.1
    assert 0 < moved([index // 10 for index in range(60)], 10) <= largest * (1 + 1e-4)
    assert moved(None, 60) > largest


@pytest.mark.slow
def test_batches_may_be_empty():
    training = trainer(public_network(), batch_size=1, max_epochs=1)
    sizes = []
    training.add_event_handler(
        Events.ITERATION_STARTED, lambda engine: sizes.append(len(engine.state.batch.get("image", ())))
    )
    training.run()
    assert len(sizes) == 60 and 0 in sizes


def train_and_be_killed(folder, at):
    torch.set_num_threads(1)
    training = trainer()
    training.attach_all([TrainingCheckpoint(folder / "last.pt", resume=True)])
    if at is not None:
        event = Events.ITERATION_COMPLETED(once=at)
        training.add_event_handler(event, lambda: os.kill(os.getpid(), signal.SIGKILL))
    training.run()
    torch.save(training.guarantee, folder / "guarantee.pt")


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_and_spends_what_one_that_was_not_does(tmp_path):
    for at in (2, 7, None):
        process = multiprocessing.get_context("spawn").Process(target=train_and_be_killed, args=(tmp_path, at))
        process.start()
        process.join()
        assert process.exitcode == (0 if at is None else -signal.SIGKILL)
    uninterrupted = trainer()
    uninterrupted.run()
    assert torch.load(tmp_path / "guarantee.pt") == uninterrupted.guarantee


@pytest.mark.slow
def test_a_training_goes_on_with_its_own_noise_only(tmp_path, refused):
    training = trainer().attach_all([TrainingCheckpoint(tmp_path / "last.pt")])
    training.run()
    for other in ({"epsilon": 8.0}, {"batch_size": 10}, {"max_epochs": 4}):
        with refused(ValueError, "other noise or batches"):
            trainer(**other).attach_all([TrainingCheckpoint(tmp_path / "last.pt", resume=True)])


def test_what_no_promise_covers_is_refused(refused):
    inn = public_network()
    inn.add_training_events([new_event("flow")])
    with refused(ValueError, "nothing can undo"):
        trainer(inn)
    with refused(ValueError, "needs moments"):
        trainer(network())
    with refused(ValueError, "needs moments"):
        trainer(public_network(), moments=PrivateMoments(1.0))
    with refused(ValueError, "batch_size"):
        trainer(batch_size=61)
    with refused(ValueError, "people"):
        trainer(people=[0, 2] * 30)
    with refused(ValueError, "people"):
        trainer(people=[0])


def likelihoods(image, canary, epsilon, trials):
    """Of the canary, under networks that learnt from this image and three others, less what it was before."""
    data = [{"image": image, "label": torch.tensor(0)}, *rows(3, seed=4)]
    inn = public_network()
    start = copy.deepcopy(inn.state_dict())
    # The last step has a learning rate of zero.
    options = {"batch_size": 4, "max_epochs": 3, "learning_rate": 0.5, "noise": GaussianNoise(0.0)}
    training = trainer(inn, data, epsilon=epsilon, **options)
    optimizer = training.optimizer.state_dict()
    label, found = torch.tensor([0]), []
    for _ in range(trials):
        inn.load_state_dict(start)
        training.optimizer.load_state_dict(optimizer)
        training.state.iteration = training.state.epoch = 0
        before = inn.log_prob(canary[None], label)
        training.run()
        found.append((inn.log_prob(canary[None], label) - before).detach()[0])
    return torch.stack(found)


def audited(epsilon, trials=400):
    """The epsilon that an attacker proves who looks at the likelihood of an image that was, or was not, learnt from."""
    canary, half = torch.full((4,), 6.0), trials // 2
    scores = [likelihoods(image, canary, epsilon, trials) for image in (canary, torch.zeros(4))]
    best, guess = -1.0, (1, 0.0)
    for threshold in torch.cat([part[:half] for part in scores]).quantile(torch.linspace(0.01, 0.99, 40)).tolist():
        for sign in (1, -1):
            hits = [int((sign * part[:half] > sign * threshold).sum()) for part in scores]
            bound = epsilon_lower_bound(hits[0], half, hits[1], half, DELTA)
            best, guess = max((best, guess), (bound, (sign, threshold)))
    sign, threshold = guess
    hits = [int((sign * part[half:] > sign * threshold).sum()) for part in scores]
    return epsilon_lower_bound(hits[0], trials - half, hits[1], trials - half, DELTA)


@pytest.mark.slow
def test_a_membership_audit_stays_below_the_claim_and_catches_a_control_without_noise(monkeypatch):
    """A kept promise is contradicted with a probability of 1e-6 at most."""
    assert audited(1.0) <= 1.0
    monkeypatch.setattr(SumLattice, "noise", lambda self, like, *_: torch.zeros_like(like, dtype=torch.int64))
    # Fewer trials are enough to catch one that always does the same.
    assert audited(1.0, trials=120) > 1.0


def test_a_refiner_that_has_no_likelihood_stays_as_it_is_and_all_else_learns():
    torch.manual_seed(0)
    options = {"num_levels": 2, "num_couplings": 2, "width": 8, "context_width": 16, "num_detail_couplings": 1}
    inn = ConditionalINN((8, 8), num_classes=2, **options)
    x, y = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(3)), torch.arange(12) % 2
    fit_moments(inn, lambda: [(x, y)], training_data="public")
    before = copy.deepcopy(inn.state_dict())
    images = [{"image": image, "label": label} for image, label in zip(x, y, strict=True)]
    training = trainer(inn, images, max_epochs=1, batch_size=6)
    training.run()
    for network in (training.network, training.averaged_network):
        changed = {name.split(".")[0] for name, p in network.named_parameters() if not torch.equal(p, before[name])}
        assert changed == {"whitening", "detail_flows"}
        assert not network.has_refiner


@pytest.mark.parametrize("unit", ["Patient", "subject", "person", "patient"])
def test_people_are_not_stated_where_rows_are_counted(refused, unit):
    with refused(
        ValueError, "people were not given" if unit == "patient" else "expected one of image, volume, row, patient"
    ):
        trainer(unit=unit)
