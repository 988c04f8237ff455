# SPDX-License-Identifier: Apache-2.0
"""One MLflow run that ends as what it was: finished or failed."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from monai_cadp.privacy.private_files import create_private

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A hospital's machine tells nobody what runs on it, unless its owner decides otherwise.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

__all__ = ["ARTIFACT_SUFFIXES", "TrackedRun"]

ARTIFACT_SUFFIXES = (".json", ".html", ".png", ".yaml", ".csv")


class TrackedRun:
    """MLflow run with a unique name; parameters, metrics and artifacts of allowed kinds go in, nothing else does.

    Use it as a context manager: leaving it normally marks the run FINISHED, leaving it by an exception FAILED. Where
    MLflow does not take what is recorded, because its server has gone or somebody has deleted the run, all of it is
    recorded anew in the embedded store, with one warning: no training is lost to its record.

    Args:
        tracking_uri: where MLflow keeps runs. None takes the environment's MLFLOW_TRACKING_URI if it is set, and
            otherwise the SQLite file ``mlflow.db`` in ``store_dir``.
        experiment: name of the experiment.
        run_name: beginning of the name; time and four random bytes follow.
        store_dir: folder of the embedded store.
        tags: of the run.
        run_id: of an earlier run that goes on; None for a new one.

    Raises:
        ValueError: if the path of the embedded store has a ? or %; on entering, if MLflow cannot begin a run.

    Example:
        >>> run = TrackedRun(experiment="doctest", run_name="fit")
        >>> run.name.startswith("fit-")
        True
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        experiment: str = "monai_cadp",
        run_name: str = "run",
        store_dir: str | Path = ".",
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
    ) -> None:
        self.store_dir = Path(store_dir)
        chosen = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self._embedded = chosen is None
        self.tracking_uri = chosen or self._embedded_uri()
        self.experiment = experiment
        self.name = f"{run_name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        self.tags = dict(tags or {})
        self.run_id = run_id
        self._client: Any = None
        self._recorded: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    @property
    def is_open(self) -> bool:
        """Whether the run has begun and not ended."""
        return self._client is not None

    def __enter__(self) -> TrackedRun:
        with self.refusals():
            self._begin()
        self._recorded.clear()
        return self

    @contextlib.contextmanager
    def refusals(self) -> Iterator[None]:
        """Say in one sentence that MLflow cannot begin, whose own errors may hold the store's address and password."""
        try:
            yield
        except Exception as error:
            raise ValueError(
                f"MLflow could not begin a run in the experiment {self.experiment!r} ({type(error).__name__}); check "
                "that its server runs, that the experiment was not deleted and that tracking_uri is no plain folder, "
                "or leave tracking_uri out for a file in the output folder."
            ) from None

    def _begin(self) -> None:
        client, number = self.open_store()
        if self.run_id is None:
            # MLflow tags a run with the user and the script; the user is somebody's name.
            tags = {"mlflow.user": "-", **self.tags}
            self.run_id = client.create_run(number, run_name=self.name, tags=tags).info.run_id
        else:
            client.update_run(self.run_id, status="RUNNING")
        self._client = client

    def open_store(self) -> tuple[MlflowClient, str]:
        """Return a client of the store and the number of the experiment, which is made if it is not there."""
        from mlflow import MlflowClient
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        location = None
        if self._embedded:
            self.store_dir.mkdir(parents=True, exist_ok=True)
            artifacts = self.store_dir / "mlartifacts"
            # Figures of a study are not covered by its guarantees: the store is for its owner's eyes.
            artifacts.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(create_private(self.store_dir / "mlflow.db"))
            location = artifacts.resolve().as_uri()
            # MLflow would write the working folder, which may be called after a patient, into a store that it makes.
            SqlAlchemyStore(self.tracking_uri, location)
        client = MlflowClient(tracking_uri=self.tracking_uri)
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is not None:
            return client, experiment.experiment_id
        return client, client.create_experiment(self.experiment, artifact_location=location)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._record("set_terminated", "FINISHED" if kind is None else "FAILED")
        self._client = None
        self._recorded.clear()

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Record what was chosen; a value that is not finite becomes a tag, which MLflow stores as it is."""
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                self._record("set_tag", name, str(value))
            else:
                self._record("log_param", name, value)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record what was measured; values that are not finite are left out."""
        now = int(1000 * time.time())
        for name, value in values.items():
            if math.isfinite(value):
                self._record("log_metric", name, float(value), timestamp=now, step=step)

    def artifact(self, path: str | Path) -> None:
        """Store a result file.

        Raises:
            ValueError: if the file is of a kind that is not on the list of allowed ones.
        """
        path = Path(path)
        if path.suffix not in ARTIFACT_SUFFIXES:
            raise ValueError(
                f"An artifact of kind {path.suffix!r} was given; expected one of {', '.join(ARTIFACT_SUFFIXES)}."
            )
        self._record("log_artifact", str(path))

    def _record(self, method: str, *arguments: Any, **options: Any) -> None:
        """Record one thing by a method of MLflow's client, or all so far in the embedded store where that fails."""
        if self._client is None:
            raise RuntimeError("Something was to be recorded in a run that is not open; enter the run before.")
        self._recorded.append((method, arguments, options))
        try:
            getattr(self._client, method)(self.run_id, *arguments, **options)
        except Exception as error:
            if not self._embedded:
                self._fall_back(type(error).__name__)
            else:
                warnings.warn(
                    f"MLflow did not take what was to be recorded ({type(error).__name__}), and the run goes on "
                    "without it.",
                    stacklevel=3,
                )

    def _embedded_uri(self) -> str:
        uri = f"sqlite:///{(self.store_dir / 'mlflow.db').resolve()}"
        if any(sign in uri for sign in "?%"):
            # The store would lie in another folder than the one that was named.
            raise ValueError(
                "The output folder has a ? or % in its path, which MLflow reads as a part of the address of its store; "
                "choose another folder, or give tracking_uri."
            )
        return uri

    def _fall_back(self, why: str) -> None:
        warnings.warn(
            f"MLflow did not take what was to be recorded ({why}), and the run goes on; all of it is in mlflow.db in "
            "the output folder, which mlflow shows by --backend-store-uri.",
            stacklevel=4,
        )
        self._embedded, self.run_id = True, None
        entries, self._recorded = self._recorded, []
        try:
            self.tracking_uri = self._embedded_uri()
            self._begin()
        except Exception:
            # Not even there: what is to come is tried, and warned about, one by one.
            return
        for method, arguments, options in entries:
            # A file of before may have been removed meanwhile.
            self._record(method, *arguments, **options)
