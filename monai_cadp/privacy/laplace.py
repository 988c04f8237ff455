# SPDX-License-Identifier: Apache-2.0
"""Laplace noise on clipped latents."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from monai_cadp.privacy.checks import checked_epsilon
from monai_cadp.privacy.exact_numbers import proved_value
from monai_cadp.privacy.lattice import Lattice
from monai_cadp.privacy.mechanism import Mechanism
from monai_cadp.privacy.randomness import lattice_laplace

__all__ = ["LaplaceMechanism"]


class LaplaceMechanism(Mechanism):
    r"""Clip each row in L1, add discrete Laplace noise to it on a lattice, and rescale to unit variance.

    Proof of pure epsilon. Clipped rows are integer vectors with :math:`\lVert q \rVert_1 \le c` (``Lattice.clip``),
    so two of them, q and q', differ by 2 c at most. The noise has the probabilities :math:`\prod_i e^{-|n_i| / b}` up
    to a constant and is drawn exactly, so for every integer vector y

    .. math:: \frac{\Pr[q + n = y]}{\Pr[q' + n = y]} = \prod_i e^{(|y_i - q'_i| - |y_i - q_i|) / b}
              \le e^{\lVert q - q' \rVert_1 / b} \le e^{2 c / b} \le e^\epsilon.

    The last step needs :math:`b \, \epsilon \ge 2 c`, which is compared in exact fractions when b is chosen.
    Rescaling by :math:`1 / \sqrt{1 + 2 (b g)^2}` is post-processing.

    Args:
        epsilon: above 0.
        clipping_bound: C, the largest L1 norm that a row keeps. Public, chosen without looking at data;
            :math:`k \sqrt{2 / \pi}` is the norm of a typical latent of k directions.

    Raises:
        ValueError: if a number is out of its range.

    References:
        Dwork, McSherry, Nissim, Smith: Calibrating noise to sensitivity in private data analysis, TCC 2006, example 1.

    Example:
        >>> mechanism = LaplaceMechanism(epsilon=8.0, clipping_bound=2.0)
        >>> mechanism(torch.randn(5, 4)).shape
        torch.Size([5, 4])
    """

    def __init__(self, epsilon: float, clipping_bound: float) -> None:
        self.epsilon = checked_epsilon(epsilon)
        self.lattice = Lattice(clipping_bound, norm=1)
        self.scale = _lattice_scale(self.epsilon, 2 * self.lattice.bound)

    @property
    def noise_deviation(self) -> float:
        """Standard deviation of the noise in units of the latents, before rescaling."""
        return math.sqrt(2) * self.scale * self.lattice.step

    def parameters(self) -> dict[str, Any]:
        """Return the clipping bound and the noise; its scale in steps of the lattice as well, which is exact."""
        return {
            "clipping_bound": self.lattice.clipping_bound,
            "norm": 1,
            "noise_deviation": self.noise_deviation,
            "lattice_scale": self.scale,
        }

    def _randomize(self, latents: Tensor, generator: torch.Generator | None) -> Tensor:
        noisy = lattice_laplace(self.lattice.clip(latents), self.scale, generator)
        return (noisy.double() * (self.lattice.step / math.sqrt(1 + self.noise_deviation**2))).float()


def _lattice_scale(epsilon: float, sensitivity: int) -> float:
    """Return the smallest float b with b epsilon >= sensitivity, in exact fractions and both readings of epsilon."""
    if not 1e-9 <= epsilon <= 1e4:
        raise ValueError(f"epsilon is {epsilon}; expected a number from 1e-9 to 1e4 for Laplace noise on a lattice.")
    scale = math.nextafter(sensitivity / epsilon, 0.0)
    while Fraction(scale) * Fraction(proved_value(epsilon)) < sensitivity:
        scale = math.nextafter(scale, math.inf)
    return scale
