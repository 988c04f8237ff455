# SPDX-License-Identifier: Apache-2.0
"""Each of the four settings learns from what it says, and tells what it says."""

from __future__ import annotations

import pytest
import torch

from monai_cadp.metrics import classifier_accuracy, dropout_uncertainty, four_settings, train_classifier


def bright_half(count, seed, turned=False):
    """Bright upper or lower half, in noise; turned, the classes are told by left and right."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    x = 0.3 * torch.rand(count, 1, 8, 8, generator=generator)
    x[labels == 0, :, :4] += 0.5
    x[labels == 1, :, 4:] += 0.5
    return (x.transpose(2, 3) if turned else x), labels


def swapped(images, labels):
    return images, 1 - labels


TRAIN, TEST = bright_half(256, 0), bright_half(100, 1)


def settings(train_releases, test_releases, **options):
    return four_settings(TRAIN, train_releases, TEST, test_releases, 2, num_bootstraps=50, batch_size=32, **options)


def test_releases_that_are_like_originals_are_as_good_in_all_settings():
    result = settings(bright_half(256, 2), bright_half(100, 3))
    assert all(setting.accuracy.low > 0.95 and setting.uncertainty.high < 0.2 for setting in result)


def test_releases_of_another_look_are_told_by_their_own_classifier_only():
    result = settings(bright_half(256, 2, turned=True), bright_half(100, 3, turned=True))
    assert min(result.originals_to_originals.accuracy.low, result.releases_to_releases.accuracy.low) > 0.95
    assert max(result.originals_to_releases.accuracy.value, result.releases_to_originals.accuracy.value) < 0.8
    assert result.originals_to_releases.uncertainty.low > result.originals_to_originals.uncertainty.high


def test_releases_with_wrong_classes_show_on_originals_and_not_on_themselves():
    result = settings(swapped(*bright_half(256, 2)), swapped(*bright_half(100, 3)))
    assert [setting.accuracy.value > 0.5 for setting in result] == [True, False, True, False]


def test_the_figures_are_those_of_the_single_functions():
    releases = bright_half(128, 2, turned=True)
    result = settings(releases, bright_half(40, 3, turned=True), epochs=2, seed=3)
    model = train_classifier(*releases, 2, epochs=2, batch_size=32, seed=3)
    setting = result.releases_to_originals
    assert setting.accuracy.value == pytest.approx(classifier_accuracy(model, *TEST))
    assert setting.uncertainty.value == pytest.approx(
        float(dropout_uncertainty(model, TEST[0], seed=3).mean()), abs=1e-6
    )
