# SPDX-License-Identifier: Apache-2.0
"""The settings in which the paper asks what releases are good for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from monai_cadp.metrics import Estimate
from monai_cadp.studies.variant import Split

if TYPE_CHECKING:
    from monai_cadp.studies.measurements import Figures, Releases

__all__ = ["PaperSettings"]


class PaperSettings:
    """A model that learns from releases or originals, and is tested on releases or originals.

    p/o is trained on releases (private) and tested on originals, p/p tested on releases, o/p trained on originals. o/o
    is p/o of the originals.

    Args:
        measure: what a test measures, the beginning of the names of figures.
        train: makes a model of images (n, ...), their conditions, and a seed.
        test: returns the figure of a model on images, their conditions, and whose each image is, where that is known:
            intervals are over people, with all their images.

    References:
        Toelle, Koethe, Andre, Meder, Engelhardt: Content-aware differential privacy with conditional invertible neural
        networks, MICCAI DeCaF 2022.
    """

    def __init__(
        self,
        measure: str,
        train: Callable[[Tensor, Tensor, int], Any],
        test: Callable[[Any, Tensor, Tensor, Tensor | None], float | Estimate],
    ) -> None:
        self.measure, self.train, self.test = measure, train, test
        self._of_originals: dict[int, Any] = {}

    def __call__(self, releases: Releases, seed: int) -> Callable[[Releases], Figures]:
        """Train, and return what gives the figures of test images; there are none where nothing was released."""
        model = self.of_releases(releases, seed)
        return lambda part: {} if model is None else self.figures(model, part, seed)

    def of_releases(self, releases: Releases, seed: int) -> Any:
        """Return the model of p/o; None where nothing was released."""
        if releases.train_released is None or releases.test_released is None:
            return None
        return self.train(releases.train_released, releases.train.y, seed)

    def figures(self, model: Any, releases: Releases, seed: int) -> Figures:
        """Return the figures of a model of p/o in every setting, on test images and their releases."""
        test, people = releases.test, releases.test_people
        assert releases.test_released is not None
        figures: Figures = {f"{self.measure}_p_o": self.test(model, test.x, test.y, people)}
        if not releases.variant.is_original:
            figures[f"{self.measure}_p_p"] = self.test(model, releases.test_released, test.y, people)
            originals = self.of_originals(releases.train, seed)
            figures[f"{self.measure}_o_p"] = self.test(originals, releases.test_released, test.y, people)
        return figures

    def of_originals(self, train: Split, seed: int) -> Any:
        """Return the model of originals, which is trained once."""
        if seed not in self._of_originals:
            self._of_originals[seed] = self.train(train.x, train.y, seed)
        return self._of_originals[seed]
