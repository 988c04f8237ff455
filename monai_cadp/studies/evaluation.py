# SPDX-License-Identifier: Apache-2.0
"""What releases are still good for, beside originals and beside the prior alone."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_cadp.networks import ContentBasis, InvertibleNetwork, TrainedModel
from monai_cadp.privacy import Mechanism, PriorOnly, SubsetSelection
from monai_cadp.privacy.exact_numbers import as_read
from monai_cadp.release import Privatizer, Releaser
from monai_cadp.reports import text_table

__all__ = ["Evaluation"]


class Evaluation(ABC):
    """Measure prior-only and several mechanisms alike: what prior-only reaches, condition and network alone explain."""

    unit = "image"

    @abstractmethod
    def originals(self) -> dict[str, float]:
        """Return what originals reach: the ceiling."""

    @abstractmethod
    def measure(self, releaser: Releaser, name: str) -> dict[str, float]:
        """Return figures of the releases of a releaser, which progress bars call by this name."""

    def run(
        self,
        network: InvertibleNetwork | TrainedModel,
        content: ContentBasis,
        mechanisms: Sequence[Mechanism],
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Measure prior-only and every mechanism.

        Args:
            network: the trained network, or a model, whose names of classes are looked at.
            content: its content basis.
            mechanisms: what is compared.
            options: further arguments of :class:`Privatizer`.

        Returns:
            One result for each, prior-only first, as plain data: name, epsilon, delta, and what :meth:`measure` found.
        """
        results = []
        for mechanism in (PriorOnly(), *mechanisms):
            privatizer = Privatizer(network, mechanism, content, unit=self.unit, **options)
            epsilon, delta = privatizer.guarantee.epsilon, privatizer.guarantee.delta
            name = "prior only" if epsilon == 0 else f"epsilon {as_read(epsilon)}"
            results.append({"name": name, "epsilon": epsilon, "delta": delta, **self.measure(privatizer, name)})
        return results

    def write(self, model: TrainedModel, epsilons: Sequence[float] | None, path: str | Path) -> None:
        """Measure subset selection at several epsilons with a trained network, print a table, and write it as JSON.

        Args:
            model: that releases, such as one of :func:`~monai_cadp.release.checkpoint.load_model`.
            epsilons: budgets of one image or row; there are no others unless they are given.
            path: of the JSON file.

        Raises:
            ValueError: if an epsilon is not usable; nothing is written then.
        """
        if not epsilons:
            raise ValueError("No epsilons were given; choose the budgets to compare, such as --epsilons [1.0,4.0,8.0].")
        mechanisms = [SubsetSelection(float(epsilon)) for epsilon in epsilons]
        results = self.run(model, model.content, mechanisms)
        rows = [{"name": "originals", **self.originals()}, *results]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        print(text_table(rows), f"\nwritten to {path}")
