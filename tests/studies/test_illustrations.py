# SPDX-License-Identifier: Apache-2.0
"""What a study draws of releases."""

from __future__ import annotations

import torch

from monai_cadp.studies import WhichIsWhich


def test_the_puzzle_is_of_images_that_are_equal_in_all_that_is_public():
    puzzle = WhichIsWhich(num_images=3)
    assert puzzle.chosen(torch.tensor([2, 1, 2, 1, 1, 1, 2])).tolist() == [0, 2, 6]
    labels = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert puzzle.chosen(labels).tolist() == [1, 3, 5]
