# SPDX-License-Identifier: Apache-2.0
"""What people read of a bound is never below it."""

from __future__ import annotations

import math
import random
from decimal import Decimal

import pytest

from monai_cadp.privacy.exact_numbers import as_read


@pytest.mark.parametrize("value", [0.0, 4.0, 0.5, 1e-06, 1000.0, 123456.0, 1e-300, 1.5e22, math.inf])
def test_a_number_that_few_digits_write_reads_as_it_always_did(value):
    assert as_read(value) == f"{value:g}"


@pytest.mark.parametrize(
    ("value", "digits", "read"),
    [
        (0.9072590, 3, "0.908"),
        (0.30000000000000004, 6, "0.300001"),
        (9.9999999, 6, "10"),
        (1234567.0, 6, "1.23457e+06"),
    ],
)
def test_a_number_of_more_digits_reads_as_the_next_one_above(value, digits, read):
    assert as_read(value, digits) == read


def test_no_number_reads_as_less():
    generator = random.Random(0)
    for _ in range(2000):
        value, digits = generator.random() * 10.0 ** generator.randint(-12, 6), generator.randint(1, 9)
        read = Decimal(as_read(value, digits))
        assert Decimal(repr(value)) <= read < Decimal(repr(value)) * (1 + Decimal(10) ** (1 - digits))
