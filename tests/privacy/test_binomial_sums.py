# SPDX-License-Identifier: Apache-2.0
"""Both bounds of the mean of a sum's positive part enclose it, and are next to each other."""

from __future__ import annotations

import math
from collections import defaultdict
from decimal import Decimal, localcontext
from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_cadp.privacy.binomial_sums import LossLaw, positive_mean

LAWS = [
    LossLaw(F(4), F(1), F(1, 9), F(1), F(2, 9)),
    LossLaw(F(4), F(1), F(1, 9), F(1), F(1, 9), F(1, 4)),
    LossLaw(F(4), F(1), F(1, 5)),
    LossLaw(F(3, 2), F(1, 2), F(1, 2)),
    LossLaw(F(50), F(1), F(1, 100), F(50), F(1, 1000)),
    LossLaw(F(7), F(1), F(1, 20), rest=F(2, 3)),
]
FACTORS = [F(1), F(11, 10), F(2), F(7, 2), F(5)]


def exactly(law, factor, count):
    """The mean, by adding up all outcomes as fractions."""
    loss = [
        (law.high - factor * law.low, law.chance),
        (law.low - factor * law.high, law.chance),
        ((1 - factor) * law.common, law.common_chance),
        ((1 - factor) * law.rest, 1 - 2 * law.chance - law.common_chance),
    ]
    sums = {F(0): F(1)}
    for _ in range(count):
        longer = defaultdict(F)
        for total, p in sums.items():
            for value, q in loss:
                longer[total + value] += p * q
        sums = longer
    return sum(max(total, 0) * p for total, p in sums.items()) / count


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("count", [1, 2, 6])
def test_the_exact_mean_of_a_few_lies_between_the_bounds(law, factor, count):
    exact = float(exactly(law, factor, count))
    # The logarithm is rounded, so that the factor is not quite the one that is meant.
    low, high = (positive_mean(law, math.log(factor), count, upper=upper) for upper in (False, True))
    assert low <= exact * (1 + 1e-14) and exact <= high * (1 + 1e-14) + 1e-15
    assert high - low <= 4e-3 * exact + 1e-12


@pytest.mark.parametrize("count", [1, 3])
def test_bounds_stay_on_their_sides_where_a_difference_loses_all_but_three_digits(count):
    """High and e^epsilon low next to each other, and the exponential to fifty digits."""
    for index in range(1, 60):
        epsilon = index / 37
        with localcontext() as context:
            context.prec = 50
            factor = F(Decimal(epsilon).exp())
        law = LossLaw(factor * (1 + F(1, 2**40)), F(1), F(1, 4))
        exact = exactly(law, factor, count)
        low, high = (positive_mean(law, epsilon, count, upper=upper, lost=1e-200) for upper in (False, True))
        assert F(low) <= exact <= F(high)


def test_a_mean_of_too_small_a_chance_or_of_one_more_is_not_enclosed():
    """The negative control: the test above would see an error of a thousandth."""
    law, exact = LAWS[0], float(exactly(LAWS[0], F(2), 6))
    assert positive_mean(law._replace(chance=law.chance * F(999, 1000)), math.log(2), 6, upper=True) < exact
    assert positive_mean(law, math.log(2), 7, upper=True) < exact


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("epsilon", "count"), [(0.05, 20_000), (0.3, 1_500), (0.7, 300)])
def test_many_terms_agree_with_a_transform(law, epsilon, count):
    """The law of the sum, rounded to a fine grid, by a discrete Fourier transform; good to about a thousandth."""
    factor = math.exp(epsilon)
    values = [float(v) for v in (law.high, law.low, law.common, law.rest)]
    loss = [values[0] - factor * values[1], values[1] - factor * values[0]] + [(1 - factor) * v for v in values[2:]]
    chances = [float(c) for c in (law.chance, law.chance, law.common_chance)]
    chances.append(1 - sum(chances))
    mean = sum(v * c for v, c in zip(loss, chances, strict=True))
    spread = math.sqrt(sum((v - mean) ** 2 * c for v, c in zip(loss, chances, strict=True)))
    reach = 12 * spread * math.sqrt(count) + 20 * max(map(abs, loss))
    size = 2**18
    step = 2 * reach / size
    one = np.zeros(size)
    for value, chance in zip(loss, chances, strict=True):
        place, share = divmod((value - mean) / step, 1)
        one[int(place) % size] += chance * (1 - share)
        one[(int(place) + 1) % size] += chance * share
    law_of_sum = np.fft.irfft(np.fft.rfft(one) ** count, size)
    places = np.arange(size)
    sums = np.where(places < size // 2, places, places - size) * step + count * mean
    expected = float(law_of_sum @ np.maximum(sums, 0)) / count
    low, high = (positive_mean(law, epsilon, count, upper=upper) for upper in (False, True))
    assert low <= expected * 1.003 + 1e-13 and expected <= high * 1.003 + 1e-13
    assert high <= low * 1.01 + 1e-13


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(LAWS), st.floats(0, 1.3), st.floats(1e-3, 0.3), st.integers(1, 3_000), st.integers(1, 1_000))
def test_it_falls_with_epsilon_and_with_the_number_of_terms(law, epsilon, more, count, others):
    # Steps of the bounds themselves are far below their distance.
    def bound(e, n, upper):
        return positive_mean(law, e, n, upper=upper)

    assert bound(epsilon + more, count, False) <= bound(epsilon, count, True)
    assert bound(epsilon, count + others, False) <= bound(epsilon, count, True)


def test_what_is_cut_is_added_above_and_left_out_below():
    law = LAWS[0]
    for upper, sign in ((True, 1), (False, -1)):
        fine, rough = (positive_mean(law, 0.2, 3_000, upper=upper, lost=lost) for lost in (1e-20, 1e-3))
        assert sign * (rough - fine) >= 0
    assert 0 <= positive_mean(law, 0.2, 3_000, upper=True, lost=1e-3) - 1e-3 <= fine
