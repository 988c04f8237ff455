# SPDX-License-Identifier: Apache-2.0
"""One MLflow run with children that a later attempt does not run again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from monai_cadp.handlers.tracked_run import TrackedRun

__all__ = ["NestedRuns"]

PARENT, KEY = "mlflow.parentRunId", "monai_cadp.key"
RESULT = "result.json"


class NestedRuns:
    """A parent run and its children, each known by a key that says what was chosen.

    Entering it goes on with the parent of the same key, if there is one; what an attempt before left running, because
    it was killed, is marked FAILED. A child that is FINISHED has its result in MLflow, and is not run again.

    Args:
        key: of the parent: equal keys mean equal choices.
        tracking_uri: as in :class:`TrackedRun`.
        experiment: name of the experiment.
        run_name: beginning of the parent's name.
        store_dir: folder of the embedded store.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for attempt in range(2):
        ...         with NestedRuns("study", store_dir=folder) as runs:
        ...             if runs.result("a") is None:
        ...                 with runs.child("a", "first") as child:
        ...                     runs.store_result(child, {"accuracy": 0.5 + attempt})
        ...     print(runs.result("a"))
        {'accuracy': 0.5}
    """

    def __init__(
        self,
        key: str,
        *,
        tracking_uri: str | None = None,
        experiment: str = "monai_cadp",
        run_name: str = "study",
        store_dir: str | Path = ".",
    ) -> None:
        self.key, self.experiment, self.store_dir = key, experiment, Path(store_dir)
        self.parent = TrackedRun(tracking_uri, experiment, run_name, store_dir, {KEY: key})

    def __enter__(self) -> NestedRuns:
        with self.parent.refusals():
            client, experiment = self.parent.open_store()
            earlier = client.search_runs([experiment], f"tags.`{KEY}` = '{self.key}'", max_results=1)
            if earlier:
                self.parent.run_id = earlier[0].info.run_id
                for child in self._children():
                    if child.info.status == "RUNNING":
                        client.set_terminated(child.info.run_id, "FAILED")
        self.parent.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.parent.__exit__(kind, error, trace)

    def child(self, key: str, run_name: str) -> TrackedRun:
        """Return a new child, to be used as a context manager."""
        tags = {KEY: key, PARENT: str(self.parent.run_id)}
        return TrackedRun(self.parent.tracking_uri, self.experiment, run_name, self.store_dir, tags)

    def store_result(self, child: TrackedRun, result: dict[str, Any]) -> None:
        """Keep the result of a child, plain data, as its artifact ``result.json``."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / RESULT
            path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
            child.artifact(path)

    def result(self, key: str) -> dict[str, Any] | None:
        """Return the result of the finished child of this key, or None if there is none."""
        client, _ = self.parent.open_store()
        for child in self._children():
            if child.data.tags[KEY] == key and child.info.status == "FINISHED":
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        path = client.download_artifacts(child.info.run_id, RESULT, folder)
                        return json.loads(Path(path).read_text(encoding="utf-8"))
                    except (OSError, ValueError):
                        # The artifacts were moved or removed.
                        continue
        return None

    def _children(self) -> list[Any]:
        client, experiment = self.parent.open_store()
        return client.search_runs([experiment], f"tags.`{PARENT}` = '{self.parent.run_id}'", max_results=1000)
