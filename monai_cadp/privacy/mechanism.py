# SPDX-License-Identifier: Apache-2.0
"""What all mechanisms have in common."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor

from monai_cadp.privacy.guarantee import PrivacyGuarantee
from monai_cadp.privacy.training_data import TrainingData

__all__ = ["Mechanism", "width"]


class Mechanism:
    """A random map of latents for which a privacy guarantee is proved, in the docstring of each subclass.

    What is proved holds for each row alone: no row of a batch has any influence on another. Before anything else,
    latents are taken as float32 and every entry that is NaN or infinite is replaced by 0, a public constant.

    Nothing of a mechanism changes once it is made: noise that was scaled for one epsilon must never be stated with
    another one. Another budget is another mechanism.

    Attributes:
        epsilon: privacy loss of one release.
        delta: probability with which the loss may be exceeded; 0 for pure differential privacy.
        num_directions: k, if the mechanism was fitted to a number of directions, otherwise None.
    """

    epsilon: float
    delta: float = 0.0
    num_directions: int | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name in vars(self):
            raise AttributeError(
                f"{name} of a {type(self).__name__} was to be changed, but its noise was made for what it is; make a "
                "new mechanism."
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} of a {type(self).__name__} was to be removed; make a new mechanism.")

    def __call__(self, latents: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Release latents.

        Args:
            latents: one row for each image, (B, k), any floating-point type.
            generator: source of the random draws. For tests only: whoever knows it undoes the promise.

        Returns:
            Released latents (B, k), float32, on the same device and without gradients.

        Raises:
            TypeError: if the latents are not a floating-point tensor.
            ValueError: if their shape does not fit.
        """
        with torch.no_grad():
            return self._randomize(self._prepare(latents), generator)

    def check(self, latents: Tensor) -> None:
        """Raise what a call would raise for these latents; nothing is spent."""
        self._prepare(latents)

    def _prepare(self, latents: Tensor) -> Tensor:
        if not isinstance(latents, Tensor) or not latents.is_floating_point():
            kind = latents.dtype if isinstance(latents, Tensor) else type(latents).__name__
            raise TypeError(f"The latents are of type {kind}; expected a floating-point tensor (B, k).")
        if latents.ndim != 2 or width(latents) == 0:
            raise ValueError(f"The latents have shape {tuple(latents.shape)}; expected (B, k) with k of 1 or more.")
        if self.num_directions is not None and width(latents) != self.num_directions:
            raise ValueError(
                f"The latents have {width(latents)} directions, but the mechanism was configured for "
                f"{self.num_directions}; configure it for these."
            )
        if type(latents) is not Tensor:
            latents = latents.as_subclass(Tensor)
        return torch.nan_to_num(latents.detach().float(), nan=0.0, posinf=0.0, neginf=0.0)

    def _randomize(self, latents: Tensor, generator: torch.Generator | None) -> Tensor:
        raise NotImplementedError

    def parameters(self) -> dict[str, Any]:
        """Return what defines the mechanism besides epsilon and delta, as plain data; all of it is public."""
        return {}

    def configured(self, num_directions: int, weights: Tensor | None = None) -> Mechanism:
        """Return a copy fitted to a content basis.

        Args:
            num_directions: k.
            weights: importance (k,) of each direction; public. None for equal weights.

        Returns:
            A mechanism that takes latents (B, k) only; self is not changed.

        Raises:
            ValueError: if k is not a positive integer, or the weights do not fit.
        """
        if isinstance(num_directions, bool) or not isinstance(num_directions, int) or num_directions < 1:
            raise ValueError(f"num_directions is {num_directions!r}; expected an integer of 1 or more.")
        if weights is not None:
            if weights.shape != (num_directions,):
                raise ValueError(f"The weights have shape {tuple(weights.shape)}; expected ({num_directions},).")
            if not bool(torch.isfinite(weights).all()) or not bool((weights >= 0).all()) or not bool(weights.any()):
                raise ValueError("The weights are not usable; expected finite numbers of 0 or more, not all of them 0.")
        return self._copied(num_directions=num_directions)

    def _copied(self, **changed: Any) -> Mechanism:
        """Return a copy in which some attributes are others, before anybody sees it."""
        fitted = copy.copy(self)
        vars(fitted).update(changed)
        return fitted

    def guarantee(
        self,
        unit: str = "image",
        public: tuple[str, ...] = (),
        training_data: TrainingData = TrainingData.UNDECLARED,
        fingerprint: str | None = None,
    ) -> PrivacyGuarantee:
        """Return the guarantee of one release as a document.

        Args:
            unit: what one row of latents is made from: image, volume or patient.
            public: names of the facts that are released as they are.
            training_data: all that the network around the mechanism has learnt from; unprotected unless somebody knows
                better.
            fingerprint: of the network.

        Returns:
            The guarantee.

        Raises:
            ValueError: if a part is not usable.
        """
        return PrivacyGuarantee(
            unit=unit,
            epsilon=self.epsilon,
            delta=self.delta,
            mechanism=type(self).__name__,
            parameters=self.parameters(),
            public=tuple(public),
            training_data=training_data,
            fingerprint=fingerprint,
        )

    def __repr__(self) -> str:
        settings = {"epsilon": self.epsilon, **({"delta": self.delta} if self.delta else {}), **self.parameters()}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in settings.items())})"


def width(latents: Tensor) -> int:
    """Return the size of the last dimension; tracing takes it as the constant that it is, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return int(latents.shape[-1])
