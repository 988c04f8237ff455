# SPDX-License-Identifier: Apache-2.0
"""One MLflow run that ends as what it was: finished or failed."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import time
from collections.abc import Mapping
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

    Use it as a context manager: leaving it normally marks the run FINISHED, leaving it by an exception FAILED.

    Args:
        tracking_uri: where MLflow keeps runs. None takes the environment's MLFLOW_TRACKING_URI if it is set, and
            otherwise the SQLite file ``mlflow.db`` in ``store_dir``.
        experiment: name of the experiment.
        run_name: beginning of the name; time and four random bytes follow.
        store_dir: folder of the embedded store.
        tags: of the run.
        run_id: of an earlier run that goes on; None for a new one.

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
        self.tracking_uri = chosen or f"sqlite:///{(self.store_dir / 'mlflow.db').resolve()}"
        self.experiment = experiment
        self.name = f"{run_name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        self.tags = dict(tags or {})
        self.run_id = run_id
        self._client: Any = None

    @property
    def is_open(self) -> bool:
        """Whether the run has begun and not ended."""
        return self._client is not None

    def __enter__(self) -> TrackedRun:
        client, number = self.open_store()
        if self.run_id is None:
            # MLflow tags a run with the user and the script; the user is somebody's name.
            tags = {"mlflow.user": "-", **self.tags}
            self.run_id = client.create_run(number, run_name=self.name, tags=tags).info.run_id
        else:
            client.update_run(self.run_id, status="RUNNING")
        self._client = client
        return self

    def open_store(self) -> tuple[MlflowClient, str]:
        """Return a client of the store and the number of the experiment, which is made if it is not there."""
        from mlflow import MlflowClient

        location = None
        if self._embedded:
            self.store_dir.mkdir(parents=True, exist_ok=True)
            artifacts = self.store_dir / "mlartifacts"
            # Figures of a study are not covered by its guarantees: the store is for its owner's eyes.
            artifacts.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(create_private(self.store_dir / "mlflow.db"))
            location = artifacts.resolve().as_uri()
        client = MlflowClient(tracking_uri=self.tracking_uri)
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is not None:
            return client, experiment.experiment_id
        return client, client.create_experiment(self.experiment, artifact_location=location)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        client.set_terminated(self.run_id, "FINISHED" if kind is None else "FAILED")

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Record what was chosen; a value that is not finite becomes a tag, which MLflow stores as it is."""
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                self._client.set_tag(self.run_id, name, str(value))
            else:
                self._client.log_param(self.run_id, name, value)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record what was measured; values that are not finite are left out."""
        for name, value in values.items():
            if math.isfinite(value):
                self._client.log_metric(self.run_id, name, float(value), step=step)

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
        self._client.log_artifact(self.run_id, str(path))
