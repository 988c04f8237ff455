# SPDX-License-Identifier: Apache-2.0
"""The discrete Gaussian: why it promises what the continuous one does, and a fast sampler of it for wide ones."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from monai_cadp.privacy.randomness import stream_words

__all__ = ["continuous_deviation", "squared_scale_for", "wide_gaussian", "wide_squared_scale"]

# r of the theorem, squared.
SMOOTH = 16
# Of the wide sampler: deviation of its table, numbers that the table reaches, factor between levels, bits of the table.
TABLE_DEVIATION, REACH, FACTOR = 512, 16 * 512, 196
TABLE_BITS = 189
NUMBERS_AT_ONCE = 2**18


def continuous_deviation(squared_scale: Fraction) -> Fraction:
    r"""Return the deviation of the continuous Gaussian noise that promises what discrete noise of this scale does.

    Theorem. Let :math:`D_\mu` be the discrete Gaussian :math:`\Pr[n] \propto e^{-\lVert n - \mu \rVert^2 / 2 s^2}` on
    :math:`Z^k`, moved by an integer vector :math:`\mu`, with :math:`s > r \ge 4`. There is a random map Q from
    :math:`R^k` to :math:`Z^k`, the same for all :math:`\mu`, which makes of continuous noise :math:`N(\mu, (s^2 - r^2)
    I)` a law :math:`Q_\mu` with

    .. math:: e^{-3 k \beta} \le \frac{D_\mu(n)}{Q_\mu(n)} \le e^{3 k \beta} \quad \text{for all } n, \qquad
              \beta = 2.01 \, e^{-2 \pi^2 r^2} < 2^{-453}.

    Proof. Coordinates are independent in both, so let k = 1; write :math:`\rho_r(x) = e^{-x^2 / 2 r^2}`. Q rounds y to
    n with the probability :math:`\rho_r(n - y) / \sum_m \rho_r(m - y)`. Poisson's summation formula gives, for every y
    and every :math:`r \ge 4`,

    .. math:: \sum_m \rho_r(m - y)
              = r \sqrt{2 \pi} \, \Big(1 + 2 \sum_{j \ge 1} e^{-2 \pi^2 r^2 j^2} \cos 2 \pi j y\Big),

    which lies between :math:`(1 \mp \beta) \, r \sqrt{2 \pi}`. Variances of Gaussians add, so

    .. math:: \int \frac{e^{-(y - \mu)^2 / 2 (s^2 - r^2)}}{\sqrt{2 \pi (s^2 - r^2)}} \, \rho_r(n - y) \, dy
              = \frac{r}{s} \, \rho_s(n - \mu),

    and :math:`Q_\mu(n)` lies between :math:`\rho_s(n - \mu) / (s \sqrt{2 \pi} \, (1 \pm \beta))`. The same formula
    gives the constant of :math:`D_\mu(n) = \rho_s(n - \mu) / \sum_m \rho_s(m)` as :math:`s \sqrt{2 \pi}` but for a
    factor between 1 and :math:`1 + \beta`. So their ratio is between :math:`1 - \beta` and :math:`(1 + \beta)^2`, or
    the other way round, and both are within :math:`e^{\pm 3 \beta}`.

    Corollary. Whatever is promised for Gaussian noise of the deviation :math:`\sqrt{s^2 - r^2}` is promised for
    :math:`Q_\mu`, which is post-processing of it, and for :math:`D_\mu` up to pointwise factors: if the continuous
    mechanism is :math:`(\epsilon', \delta')` private, the discrete one is :math:`(\epsilon' + 6 k \beta, e^{3 k \beta}
    \delta')` private. The same holds for n adaptive releases, and for sums over random batches, whose laws are mixtures
    of moved ones, with n k in place of k. With :math:`n k \le 2^{64}`, :math:`6 n k \beta < 2^{-386}`. We call this the
    price of the lattice; it is less than what any step to the next floating-point number gives away. The price in
    noise is :math:`s / \sqrt{s^2 - r^2}`, one and :math:`8 / s^2`.

    Coordinates may have scales :math:`s_i` of their own: let :math:`r_i` be in the same proportion to them, the
    smallest 4 or more.

    The scale enters as the exact square :math:`s^2`, and the root is rounded down.

    Args:
        squared_scale: :math:`s^2`, above 16, in units of the lattice.

    Returns:
        A number not above :math:`\sqrt{s^2 - 16}`.

    Raises:
        ValueError: if the scale is too small.

    References:
        Peikert: An efficient and parallel Gaussian sampler for lattices, CRYPTO 2010, theorem 3.1 (convolution).
        Micciancio, Regev: Worst-case to average-case reductions based on Gaussian measures, SIAM J. Comput. 37, 2007
        (smoothing). Canonne, Kamath, Steinke: The discrete Gaussian for differential privacy, NeurIPS 2020, whose
        theorem 4 promises zero-concentrated privacy of the same law without any price, but less of it at one delta.

    Example:
        >>> float(continuous_deviation(Fraction(2**40))) / 2**20 > 1 - 1e-11
        True
    """
    if not squared_scale > SMOOTH:
        raise ValueError(f"The scale of discrete noise is {float(squared_scale) ** 0.5:g}; expected more than 4 steps.")
    rest = (squared_scale - SMOOTH) * 2**128
    return Fraction(math.isqrt(math.floor(rest)), 2**64)


def squared_scale_for(deviation: Fraction) -> Fraction:
    """Return the square of the scale at which discrete noise promises what continuous noise of a deviation does."""
    return deviation * deviation + SMOOTH


def wide_squared_scale(levels: int) -> int:
    """Return the square of the scale of :func:`wide_gaussian`; scales are about 2^16.6, 2^24.2, 2^31.8, 2^39.5 ..."""
    return TABLE_DEVIATION**2 * sum(FACTOR ** (2 * level) for level in range(levels))


def wide_gaussian(shape: tuple[int, ...], levels: int, generator: torch.Generator | None = None) -> Tensor:
    r"""Return independent numbers whose law is the discrete Gaussian of a large scale, but for :math:`2^{-127}`.

    Every number is :math:`X_0 + 196 X_1 + 196^2 X_2 + \dots`, one X for each level, where all X are discrete Gaussians
    of the scale 512 from a table. Nothing but integers is computed.

    Proof. Let X have the scale a = 512, and Y the scale :math:`b \ge 512`, and K = 196. With :math:`s^2 = a^2 + K^2
    b^2`, :math:`c = K^2 b^2 / s^2` and :math:`t = a K b / s` the square is completed as

    .. math:: \frac{(n - K m)^2}{a^2} + \frac{m^2}{b^2} = \frac{n^2}{s^2} + \frac{(K m - c n)^2}{t^2},

    so :math:`\Pr[X + K Y = n] \propto \rho_s(n) \sum_m \rho_t(K m - c n)`. By Poisson's formula the sum is the same for
    all n but for factors :math:`1 \pm \beta`, :math:`\beta = 2.01 \, e^{-2 \pi^2 t^2 / K^2}`. Here :math:`t / K \ge
    2.61`, so :math:`\beta < 2^{-192}`, and after dividing by the sum of all, :math:`X + K Y` has the law of scale s but
    for factors within :math:`e^{\pm 3 \beta}`. Level by level this gives the scale of :func:`wide_squared_scale`.

    The table holds the distribution function in multiples of :math:`2^{-189}`, computed with 80 decimal digits, and
    ends 16 deviations from 0, beyond which are :math:`2^{-180}`: in all :math:`2^{-173}` of probability is elsewhere. A
    number compares words of 189 bits with it; 63 of them decide, unless they are equal to those of an entry, and then
    the others are drawn. So the numbers of up to :math:`2^{20}` sums of :math:`2^{23}` parts differ from exact ones
    with a probability of :math:`2^{-127}` at most, and promise :math:`(\epsilon, \delta + (1 + e^\epsilon) \,
    2^{-127})`.

    Args:
        shape: of the result.
        levels: number of levels, from 1 to 5.
        generator: draws from this instead. For tests only: its numbers can be foretold.

    Returns:
        Integers, int64.

    References:
        Micciancio, Walter: Gaussian sampling over the integers: efficient, generic, constant-time, CRYPTO 2017.

    Example:
        >>> wide_gaussian((2, 3), levels=2).shape
        torch.Size([2, 3])
    """
    count = math.prod(shape)
    values = np.zeros(count, dtype=np.int64)
    for start in range(0, count, NUMBERS_AT_ONCE):
        part = values[start : start + NUMBERS_AT_ONCE]
        for level in range(levels):
            part += FACTOR**level * _from_table(len(part), generator)
    return torch.from_numpy(values).reshape(shape)


def _from_table(count: int, generator: torch.Generator | None) -> np.ndarray:
    table, upper = _table()
    words = stream_words(count, generator)
    places = np.searchsorted(upper, words, side="right")
    # The upper bits of these words are those of an entry, and do not say on which side of it they are.
    for undecided in np.flatnonzero(upper[np.maximum(places - 1, 0)] == words):
        lower = int.from_bytes(stream_words(2, generator).tobytes(), "little")
        rest = (lower & (2**63 - 1)) | (lower >> 64) << 63
        places[undecided] = _place(table, int(words[undecided]) << (TABLE_BITS - 63) | rest)
    return places - REACH


def _place(table: list[int], word: int) -> int:
    from bisect import bisect_right

    return bisect_right(table, word)


@lru_cache(maxsize=1)
def _table() -> tuple[list[int], np.ndarray]:
    """Return the distribution function below each number from -REACH + 1 to REACH, and its upper 63 bits."""
    with localcontext() as context:
        context.prec = 80
        ratio = (Decimal(-1) / (2 * TABLE_DEVIATION**2)).exp()
        # exp(-n^2 / 2 a^2) for n = 0, 1, 2 ...: each by the ratio to the one before, which is ratio^(2 n + 1).
        weights, step = [Decimal(1)], ratio
        for _ in range(REACH):
            weights.append(weights[-1] * step)
            step *= ratio * ratio
        both = [*reversed(weights[1:]), *weights]
        total = sum(both)
        table, below = [], Decimal(0)
        for weight in both[:-1]:
            below += weight
            table.append(int(below / total * 2**TABLE_BITS))
    return table, np.array([entry >> (TABLE_BITS - 63) for entry in table], dtype=np.int64)
