# SPDX-License-Identifier: Apache-2.0
"""The fast sampler has its law, and discrete noise is worth the continuous noise that the theorem says."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats

from monai_cadp.privacy import discrete_gaussian
from monai_cadp.privacy.discrete_gaussian import (
    FACTOR,
    REACH,
    TABLE_BITS,
    TABLE_DEVIATION,
    continuous_deviation,
    squared_scale_for,
    wide_gaussian,
    wide_squared_scale,
)

# A right sampler is rejected with probability 1e-7 at most; a control is accepted with less than 1e-7.
ALPHA = 1e-7


@pytest.mark.parametrize("scale", [5.0, 20.0])
@pytest.mark.parametrize("moved", [0, 1, 7])
def test_rounding_continuous_noise_at_random_gives_the_discrete_law(scale, moved):
    """The theorem, summed and integrated numerically in one dimension: the two laws agree to the last digits."""
    deviation = math.sqrt(scale**2 - 16)
    numbers = np.arange(-200, 201)
    at = np.linspace(moved - 12 * deviation, moved + 12 * deviation, 20_001)
    density = np.exp(-((at - moved) ** 2) / (2 * deviation**2))
    rounding = np.exp(-((numbers[:, None] - at) ** 2) / 32)
    rounding /= rounding.sum(0)
    found = rounding @ density / density.sum()
    law = np.exp(-((numbers - moved) ** 2) / (2 * scale**2))
    near = abs(numbers - moved) < 5 * scale
    assert found[near] == pytest.approx(law[near] / law.sum(), rel=1e-9)


def test_the_deviation_is_rounded_down_and_a_scale_that_is_too_small_is_refused(refused):
    for scale in (Fraction(17), Fraction(10**12), Fraction(2, 3) * 10**9):
        deviation = continuous_deviation(scale)
        assert deviation**2 <= scale - 16 < (deviation + Fraction(1, 2**60)) ** 2
        assert squared_scale_for(deviation) <= scale
    with refused(ValueError, "expected more than 4 steps"):
        continuous_deviation(Fraction(16))


def test_the_table_is_the_distribution_function_of_the_discrete_gaussian():
    table, upper = discrete_gaussian._table()
    weights = [math.exp(-(n**2) / (2 * TABLE_DEVIATION**2)) for n in range(-REACH, REACH + 1)]
    expected = np.cumsum(weights)[:-1] / sum(weights)
    assert [entry / 2**TABLE_BITS for entry in table] == pytest.approx(expected.tolist(), abs=1e-12)
    # Symmetric in exact integers but for one unit of rounding, and its tails have all of their digits.
    assert all(abs(a + b - 2**TABLE_BITS) <= 1 for a, b in zip(table, reversed(table), strict=True))
    tail = TABLE_DEVIATION * math.sqrt(2 * math.pi)
    assert (table[REACH - 10 * TABLE_DEVIATION] - table[REACH - 10 * TABLE_DEVIATION - 1]) / 2**TABLE_BITS == (
        pytest.approx(math.exp(-50) / tail, rel=1e-9)
    )
    assert len(upper) == 2 * REACH and (np.diff(upper) >= 0).all()


def law_p_value(values, levels, scale=1.0):
    """In cells of the table's size, where the law is that of a rounded normal one but for parts in a million."""
    deviation = scale * math.sqrt(wide_squared_scale(levels))
    return stats.kstest((values.double() / deviation).numpy(), "norm").pvalue


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_wide_noise_has_its_law_and_one_of_ten_percent_more_is_told_apart(levels):
    values = wide_gaussian((100_000,), levels)
    assert law_p_value(values, levels) > ALPHA
    assert law_p_value(values, levels, 1.1) < ALPHA


def test_wide_noise_is_as_likely_to_leave_any_rest():
    """Of dividing by the factor between levels, and by small numbers: a gap between levels would show."""
    values = wide_gaussian((200_000,), 2)
    for divisor in (2, 7, FACTOR):
        rests = torch.bincount(values.remainder(divisor), minlength=divisor)
        assert stats.chisquare(rests.numpy()).pvalue > ALPHA
    # A control of a table that is too narrow for the factor between levels.
    rests = torch.bincount((FACTOR * values + (values % 50)).remainder(FACTOR), minlength=FACTOR)
    assert stats.chisquare(rests.numpy()).pvalue < ALPHA


def test_words_that_do_not_decide_are_decided_by_further_ones(monkeypatch):
    table, upper = discrete_gaussian._table()
    place = REACH + 3  # an entry in the middle
    found = []
    for lower in (0, 2**63 - 1):
        # First the upper bits of the entry, then lower bits that are all 0 or all 1.
        answers = [np.array([upper[place]]), np.full(2, lower, dtype=np.int64)]
        monkeypatch.setattr(discrete_gaussian, "stream_words", lambda count, _, answers=answers: answers.pop(0))
        found.append(int(discrete_gaussian._from_table(1, None)[0]))
        assert not answers
    assert found == [place - REACH, place - REACH + 1]


def test_every_bit_of_the_further_words_takes_part_in_the_decision(monkeypatch):
    _, upper = discrete_gaussian._table()
    place, words = REACH + 3, []
    monkeypatch.setattr(discrete_gaussian, "_place", lambda _, word: words.append(word) or place)
    drawn = [np.array([1 << bit, 0], dtype=np.uint64).view(np.int64) for bit in range(63)]
    drawn += [np.array([0, 1 << bit], dtype=np.uint64).view(np.int64) for bit in range(63)]
    for lower in drawn:
        answers = [np.array([upper[place]]), lower]
        monkeypatch.setattr(discrete_gaussian, "stream_words", lambda count, _, answers=answers: answers.pop(0))
        discrete_gaussian._from_table(1, None)
    below = [word - (int(upper[place]) << (TABLE_BITS - 63)) for word in words]
    assert sorted(below) == [2**bit for bit in range(TABLE_BITS - 63)]
