# SPDX-License-Identifier: Apache-2.0
"""A run in MLflow ends as what it was, and knows nobody's name."""

from __future__ import annotations

import math
import os
import runpy

import pytest
import torch
from ignite.engine import Events
from mlflow import MlflowClient
from monai.data import DataLoader, Dataset
from monai.handlers import MLFlowHandler, StatsHandler, ValidationHandler

from monai_cadp.engines import FlowEvaluator, FlowTrainer
from monai_cadp.handlers import MLflowTracking, NestedRuns, TrackedRun, tracked_run
from monai_cadp.networks import ConditionalINN


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One embedded store for all tests: MLflow takes seconds to make one."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def no_store_of_the_environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def new_run(store):
    return lambda **options: TrackedRun(experiment="tests", store_dir=store, **options)


def recorded(store, name):
    """The run of this name as the store has it."""
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tests")
    (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return client, run


def trainer(**options):
    torch.manual_seed(0)
    loader = DataLoader(Dataset([{"image": torch.rand(2)} for _ in range(16)]), batch_size=8)
    inn = ConditionalINN((), 2, num_couplings=1, width=4)
    return FlowTrainer(inn, loader, **({"max_epochs": 2} | options)), FlowEvaluator(inn, loader)


@pytest.mark.slow
def test_a_run_that_was_left_normally_is_finished(new_run, store):
    with new_run() as run:
        run.parameters({"epsilon": 4.0})
        assert recorded(store, run.name)[1].info.status == "RUNNING"
    _, kept = recorded(store, run.name)
    assert kept.info.status == "FINISHED" and kept.data.params == {"epsilon": "4.0"}


@pytest.mark.slow
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_run_that_was_left_by_an_exception_failed_and_the_exception_passes(new_run, store, error):
    with pytest.raises(error), new_run() as run:
        raise error("stop")
    assert recorded(store, run.name)[1].info.status == "FAILED"


def test_names_are_unique_and_begin_as_they_were_told(new_run):
    names = {new_run(run_name="fit").name for _ in range(100)}
    assert len(names) == 100 and all(name.startswith("fit-") for name in names)


def test_what_is_not_finite_becomes_a_tag_or_is_left_out(new_run, store):
    with new_run() as run:
        run.parameters({"epsilon": math.inf, "delta": 0.0})
        run.metrics({"loss": math.nan, "bits": 1.5}, step=3)
    _, kept = recorded(store, run.name)
    assert kept.data.tags["epsilon"] == "inf" and kept.data.params == {"delta": "0.0"}
    assert kept.data.metrics == {"bits": 1.5}


def test_nobody_is_named_in_the_tags(new_run, store, monkeypatch):
    for name in ("LOGNAME", "USER", "USERNAME", "LNAME"):
        monkeypatch.setenv(name, "Mustermann")
    with new_run() as run:
        pass
    _, kept = recorded(store, run.name)
    assert kept.data.tags["mlflow.user"] == "-"
    assert "Mustermann" not in repr(kept.to_dictionary())


@pytest.mark.parametrize("suffix", [".json", ".html", ".png", ".yaml", ".csv"])
def test_an_artifact_of_an_allowed_kind_is_stored(new_run, store, tmp_path, suffix):
    path = tmp_path / f"result{suffix}"
    path.write_text("content")
    with new_run() as run:
        run.artifact(path)
    client, kept = recorded(store, run.name)
    assert [item.path for item in client.list_artifacts(kept.info.run_id)] == [path.name]


@pytest.mark.parametrize("name", ["Mustermann.dcm", "brain.nii.gz", "model.pt", "weights", "table.CSV.exe", "x.pkl"])
def test_an_artifact_of_another_kind_is_refused_and_not_stored(new_run, store, tmp_path, refused, name):
    path = tmp_path / name
    path.write_text("content")
    with new_run() as run, refused(ValueError, "artifact of kind .*expected one of") as _:
        run.artifact(path)
    client, kept = recorded(store, run.name)
    assert client.list_artifacts(kept.info.run_id) == []


@pytest.mark.parametrize(("chosen", "expected"), [(None, "true"), ("false", "false")])
def test_telemetry_is_off_unless_the_owner_decides_otherwise(monkeypatch, chosen, expected):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    if chosen is not None:
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", chosen)
    runpy.run_path(tracked_run.__file__)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == expected


def test_a_training_is_recorded_epoch_by_epoch(new_run, store):
    training, evaluator = trainer()
    run = new_run()
    ValidationHandler(interval=1, validator=evaluator).attach(training)
    MLflowTracking(run, {"learning_rate": 1e-3}, evaluator).attach(training)
    training.run()
    client, kept = recorded(store, run.name)
    assert kept.info.status == "FINISHED"
    assert kept.data.params == {"learning_rate": "0.001", "max_epochs": "2"}
    for name in ("loss", "validation_bits_per_dimension"):
        history = client.get_metric_history(kept.info.run_id, name)
        assert [point.step for point in history] == [1, 2]
        assert all(math.isfinite(point.value) for point in history)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_training_that_is_broken_off_in_an_epoch_is_recorded_as_failed(new_run, store, error):
    def noise(x, generator=None):
        if generator is None:
            raise error("stop")
        return x

    training, _ = trainer(noise=noise)
    run = new_run()
    MLflowTracking(run).attach(training)
    with pytest.raises(error):
        training.run()
    assert recorded(store, run.name)[1].info.status == "FAILED"


def test_a_run_that_somebody_opened_is_left_for_them_to_close(new_run, store):
    training, _ = trainer()
    with new_run() as run:
        MLflowTracking(run).attach(training)
        training.run()
        assert recorded(store, run.name)[1].info.status == "RUNNING"
        run.metrics({"afterwards": 1.0})
    assert recorded(store, run.name)[1].data.metrics["afterwards"] == 1.0


@pytest.mark.slow
def test_the_handlers_of_monai_work_on_trainers_and_evaluators(tmp_path, caplog):
    training, evaluator = trainer()
    ValidationHandler(interval=1, validator=evaluator).attach(training)
    MLFlowHandler(f"sqlite:///{tmp_path / 'mlflow.db'}", experiment_name="plain").attach(training)
    MLFlowHandler(f"sqlite:///{tmp_path / 'mlflow.db'}", experiment_name="plain", iteration_log=False).attach(evaluator)
    with caplog.at_level("INFO"):
        for engine in (training, evaluator):
            StatsHandler(name=None, iteration_log=engine is training).attach(engine)
        training.run()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("plain").experiment_id])
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 4
    assert len(client.get_metric_history(run.info.run_id, "bits_per_dimension")) == 2
    assert "loss: " in caplog.text and "bits_per_dimension: " in caplog.text


@pytest.mark.slow
def test_a_training_whose_store_goes_in_an_epoch_goes_on_and_is_recorded_as_a_whole_elsewhere(tmp_path):
    training, _ = trainer(max_epochs=3)
    run = TrackedRun(f"sqlite:///{tmp_path / 'server.db'}", "tests", store_dir=tmp_path / "output")

    @training.on(Events.EPOCH_COMPLETED(once=1))
    def somebody_deletes_the_run():
        MlflowClient(run.tracking_uri).delete_run(run.run_id)

    MLflowTracking(run, {"learning_rate": 1e-3}).attach(training)
    with pytest.warns(UserWarning, match="the run goes on; all of it is in mlflow.db in the output folder"):
        training.run()
    client, kept = recorded(tmp_path / "output", run.name)
    assert training.state.epoch == 3 and kept.info.status == "FINISHED"
    assert kept.data.params == {"learning_rate": "0.001", "max_epochs": "3"}
    assert [point.step for point in client.get_metric_history(kept.info.run_id, "loss")] == [1, 2, 3]


@pytest.mark.slow
def test_a_training_that_has_no_store_left_at_all_goes_on(tmp_path, monkeypatch):
    training, _ = trainer()
    run = TrackedRun(f"sqlite:///{tmp_path / 'server.db'}", "tests", store_dir=tmp_path / "output")

    @training.on(Events.EPOCH_COMPLETED(once=1))
    def everything_fails():
        def gone(*arguments, **options):
            raise OSError("the disk is full")

        monkeypatch.setattr(MlflowClient, "log_metric", gone)
        monkeypatch.setattr(TrackedRun, "open_store", gone)

    MLflowTracking(run).attach(training)
    with pytest.warns(UserWarning, match="the run goes on"):
        training.run()
    assert training.state.epoch == 2 and not run.is_open


@pytest.mark.parametrize("fault", ["an experiment that was deleted", "a plain folder"])
@pytest.mark.slow
def test_a_store_that_cannot_begin_is_refused_in_one_sentence_before_anything_is_trained(tmp_path, refused, fault):
    if fault == "a plain folder":
        address = str(tmp_path / "mlruns")
    else:
        address = f"sqlite:///{tmp_path / 'server.db'}"
        client = MlflowClient(address)
        client.delete_experiment(client.create_experiment("tests"))
    training, _ = trainer()
    MLflowTracking(TrackedRun(address, "tests", store_dir=tmp_path)).attach(training)
    with refused(ValueError, "could not begin a run in the experiment 'tests' .*; check"):
        training.run()
    assert training.state.iteration == 0


@pytest.mark.parametrize("name", ["a?b=c", "100%", "a%41"])
@pytest.mark.slow
def test_a_folder_that_mlflow_would_read_as_another_is_refused_before_anything_is_written(tmp_path, refused, name):
    with refused(ValueError, "has a \\? or %"):
        TrackedRun(store_dir=tmp_path / name)
    assert not any(tmp_path.iterdir())
    with TrackedRun(store_dir=tmp_path / "x#1 ü~&;"):
        pass
    assert (tmp_path / "x#1 ü~&;" / "mlflow.db").is_file() and len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_a_run_that_loses_its_server_writes_into_no_other_folder_than_its_own(tmp_path):
    """The record is lost then, with a warning: the address of a store in this folder would mean another one."""
    run = TrackedRun(f"sqlite:///{tmp_path / 'server.db'}", "tests", store_dir=tmp_path / "a?b=c")
    with run:
        MlflowClient(run.tracking_uri).delete_run(run.run_id)
        with pytest.warns(UserWarning, match="the run goes on"):
            run.metrics({"figure": 1.0})
    assert {path.name for path in tmp_path.iterdir()} <= {"server.db", "a?b=c", "mlartifacts"}


def test_a_study_is_refused_like_a_training_where_its_store_cannot_begin(tmp_path, refused):
    runs = NestedRuns("key", tracking_uri=str(tmp_path / "mlruns"), experiment="tests", store_dir=tmp_path)
    with refused(ValueError, "could not begin a run in the experiment 'tests' .*; check"):
        runs.__enter__()


def test_the_store_of_the_environment_is_used_where_none_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    assert TrackedRun(store_dir=tmp_path).tracking_uri == "sqlite:///elsewhere.db"
    assert TrackedRun("sqlite:///given.db", store_dir=tmp_path).tracking_uri == "sqlite:///given.db"
