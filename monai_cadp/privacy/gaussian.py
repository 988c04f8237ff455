# SPDX-License-Identifier: Apache-2.0
"""Gaussian noise on clipped latents."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from monai_cadp.privacy.calibration import gaussian_sigma
from monai_cadp.privacy.checks import checked_delta, checked_epsilon
from monai_cadp.privacy.lattice import MAX_DIRECTIONS, Lattice
from monai_cadp.privacy.mechanism import Mechanism
from monai_cadp.privacy.randomness import lattice_gaussian

__all__ = ["GaussianMechanism"]


class GaussianMechanism(Mechanism):
    r"""Clip each row in L2, add discrete Gaussian noise to it on a lattice, and rescale to unit variance.

    Proof. Clipped rows are integer vectors of length c at most (``Lattice.clip``), so two of them differ by an
    integer vector :math:`\mu` with :math:`\lVert \mu \rVert \le 2 c`. Let D be the discrete Gaussian of scale s on
    :math:`Z^k`, drawn exactly, and R the continuous one, :math:`N(0, s^2 I)`, rounded to integers; :math:`D_\mu,
    R_\mu` are both moved by :math:`\mu`. With :math:`s \ge 2 c \, \sigma(\epsilon', \delta')` rounding is
    post-processing of the Gaussian mechanism: :math:`R_0(S) \le e^{\epsilon'} R_\mu(S) + \delta'`. D is compared to
    R. In one dimension, with :math:`r(n) = \int_{-1/2}^{1/2} e^{-n t / s^2 - t^2 / 2 s^2} dt` and :math:`Z = \sum_n
    e^{-n^2 / 2 s^2}`,

    .. math:: \frac{D(n)}{R(n)} = \frac{s \sqrt{2 \pi}}{Z \, r(n)}, \qquad e^{-1 / 8 s^2} \le r(n) \le e^{n^2 / 8 s^4},
              \qquad 1 \le \frac{Z}{s \sqrt{2 \pi}} \le 1 + 3 e^{-2 \pi^2 s^2} \le e^{1 / 8 s^2} \quad (s \ge 1)

    (fold t to -t and use :math:`1 \le \cosh x \le e^{x^2 / 2}`; Poisson summation for Z). Hence in k dimensions
    :math:`D_0(n) \le e^{k / 8 s^2} R_0(n)` and :math:`R_\mu(n) \le e^{k / 8 s^2 + \lVert n - \mu \rVert^2 / 8 s^4}
    D_\mu(n)`. Rounding moves a point by :math:`\sqrt k / 2` at most, and a standard Gaussian vector is longer than
    :math:`\sqrt k + t` with probability :math:`e^{-t^2 / 2}` at most; so :math:`\lVert n - \mu \rVert \le s (2 \sqrt
    k + t)` but for that probability under :math:`R_\mu`. Together, for every set S,

    .. math:: D_0(S) \le e^{\epsilon' + \eta} D_\mu(S) + e^{k / 8 s^2} (\delta' + e^{\epsilon' - t^2 / 2}), \qquad
              \eta = \frac{2 k + (2 \sqrt k + t)^2}{8 s^2}.

    We take :math:`t^2 = 2 (\epsilon - \ln \delta + 30 \ln 2)`, so that :math:`e^{\epsilon' - t^2 / 2} \le 2^{-30}
    \delta`, then :math:`\delta' = \delta (1 - k / 8 s^2 - 2^{-20})` and :math:`\epsilon' = \epsilon (1 - 2^{-30}) -
    \eta`, whose slack of :math:`2^{-20} - 2^{-30}` and :math:`2^{-30}` is more than all rounding of floating-point
    numbers; with :math:`e^x (1 - x) \le 1` this is (epsilon, delta). k is put at its largest, :math:`2^{22}`, and s
    at :math:`2 c \, \sigma(\epsilon, \delta)`, which the true s is never below. Up to epsilon 10 this
    costs less than a relative 1e-5 of noise.

    Clipping makes the guarantee, rescaling by :math:`1 / \sqrt{1 + (s g)^2}` is post-processing.

    Args:
        epsilon: above 0, at most 1e4.
        delta: between 0 and 1; far below 1 / (number of people).
        clipping_bound: C, the largest L2 norm that a row keeps. Public, chosen without looking at data; :math:`\sqrt
            k` is the length of a typical latent of k directions.

    Raises:
        ValueError: if a number is out of its range.

    References:
        Balle, Wang: Improving the Gaussian mechanism for differential privacy, ICML 2018; Canonne, Kamath, Steinke:
        The discrete Gaussian for differential privacy, NeurIPS 2020.

    Example:
        >>> mechanism = GaussianMechanism(epsilon=8.0, delta=1e-5, clipping_bound=2.0)
        >>> mechanism(torch.randn(5, 4)).shape
        torch.Size([5, 4])
    """

    def __init__(self, epsilon: float, delta: float, clipping_bound: float) -> None:
        self.epsilon = checked_epsilon(epsilon)
        self.delta = checked_delta(delta)
        self.lattice = Lattice(clipping_bound, norm=2)
        self.scale = _lattice_scale(self.epsilon, self.delta, 2 * self.lattice.bound)

    @property
    def noise_deviation(self) -> float:
        """Standard deviation of the noise in units of the latents, before rescaling."""
        return self.scale * self.lattice.step

    def parameters(self) -> dict[str, Any]:
        """Return the clipping bound and the noise."""
        return {"clipping_bound": self.lattice.clipping_bound, "norm": 2, "noise_deviation": self.noise_deviation}

    def _randomize(self, latents: Tensor, generator: torch.Generator | None) -> Tensor:
        noisy = lattice_gaussian(self.lattice.clip(latents), self.scale, generator)
        return (noisy.double() * (self.lattice.step / math.sqrt(1 + self.noise_deviation**2))).float()


def _lattice_scale(epsilon: float, delta: float, sensitivity: int) -> float:
    """Return s in steps of the lattice, as the docstring of GaussianMechanism proves it."""
    lowest = sensitivity * gaussian_sigma(epsilon, delta)
    tail = math.sqrt(2 * (epsilon - math.log(delta) + 30 * math.log(2)))
    eta = (2 * MAX_DIRECTIONS + (2 * math.sqrt(MAX_DIRECTIONS) + tail) ** 2) / (8 * lowest**2)
    remaining_epsilon = epsilon * (1 - 2.0**-30) - eta
    remaining_delta = delta * (1 - MAX_DIRECTIONS / (8 * lowest**2) - 2.0**-20)
    if lowest < 1 or remaining_epsilon <= 0 or remaining_delta <= 0:
        raise ValueError(f"epsilon {epsilon} with delta {delta} leaves the lattice nothing; use a smaller delta.")
    # The product is rounded up, so that the noise is not below what was proved.
    return math.nextafter(sensitivity * gaussian_sigma(remaining_epsilon, remaining_delta), math.inf)
