# SPDX-License-Identifier: Apache-2.0
"""A drawing says all that it is given."""

from __future__ import annotations

import re

from monai_cadp.reports import Point, curves


def test_a_label_that_is_longer_than_its_axis_stands_on_several_lines():
    label = "mean AUC over labels, trained on releases, tested on originals"
    drawn = curves({"blur": [Point(1, 0.7), Point(8, 0.9)]}, "epsilon", label)
    # Letters are drawn; what they say stands before them.
    said = re.findall(r"<!-- (.*?) -->", drawn, re.DOTALL)
    assert label not in said and max(map(len, said)) <= 40
    lines = [text for text in said if text in label]
    assert " ".join(lines) == label
