# SPDX-License-Identifier: Apache-2.0
"""Training in MLflow: parameters at the start, metrics every epoch, the truth at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import ignite.distributed as idist
from ignite.engine import Engine, Events

from monai_cadp.handlers.tracked_run import TrackedRun

__all__ = ["MLflowTracking"]


class MLflowTracking:
    """Record a trainer, and the evaluator that it validates with, in one MLflow run.

    Args:
        run: the run; unless somebody has opened it already, it is opened when the trainer starts and closed when it
            ends, as FAILED after an exception.
        parameters: what was chosen: sizes of the network, rates, the words of the guarantee. Plain data.
        evaluator: the engine whose metrics are recorded at the end of every epoch.

    Example:
        >>> from monai_cadp.handlers import TrackedRun
        >>> tracking = MLflowTracking(TrackedRun(experiment="doctest"), parameters={"learning_rate": 1e-3})
    """

    def __init__(
        self, run: TrackedRun, parameters: Mapping[str, Any] | None = None, evaluator: Engine | None = None
    ) -> None:
        self.run = run
        self.parameters = dict(parameters or {})
        self.evaluator = evaluator
        self._opened = False

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer; of several processes, the first one records."""
        if idist.get_rank() > 0:
            return
        engine.add_event_handler(Events.STARTED, self._started)
        # Late, so that the validation of the epoch has been run.
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(Events.COMPLETED, self._ended, None)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._failed)

    def _started(self, engine: Engine) -> None:
        if not self.run.is_open:
            self.run.__enter__()
            self._opened = True
        self.run.parameters(self.parameters | {"max_epochs": engine.state.max_epochs})

    def _epoch_completed(self, engine: Engine) -> None:
        (output,) = cast(list[dict[str, float]], engine.state.output)
        values = dict(output)
        if self.evaluator is not None:
            values |= {f"validation_{name}": value for name, value in self.evaluator.state.metrics.items()}
        self.run.metrics(values, step=engine.state.epoch)

    def _ended(self, engine: Engine, error: BaseException | None) -> None:
        # Ignite reports an exception in an epoch twice.
        if self._opened:
            self._opened = False
            self.run.__exit__(type(error) if error else None, error, None)

    def _failed(self, engine: Engine, error: BaseException) -> None:
        self._ended(engine, error)
        raise error
