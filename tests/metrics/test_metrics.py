# SPDX-License-Identifier: Apache-2.0
"""The numbers by which releases are judged mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_cadp.metrics import (
    SHAPE_FEATURES,
    classifier_accuracy,
    classifier_auc,
    mean_auc,
    pixel_cosine,
    shape_features,
    sharing_labels,
    train_classifier,
    train_residual_classifier,
    within_class_correlation,
)
from monai_cadp.metrics.standardise import Standardise


def features(count=200, seed=0):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def test_within_one_class_it_is_pearsons_correlation():
    x = features()
    y = x * torch.tensor([1.0, -0.5, 0.0]) + features(seed=1)
    expected = [np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(3)]
    assert within_class_correlation(x, y).numpy() == pytest.approx(expected, abs=1e-6)


def test_what_the_class_explains_is_not_counted():
    labels = torch.arange(200) % 4
    x, y = 100.0 * labels[:, None] + features(seed=1), 100.0 * labels[:, None] + features(seed=2)
    assert (within_class_correlation(x, y) > 0.99).all()
    assert (within_class_correlation(x, y, labels).abs() < 0.3).all()
    by_class_alone = 100.0 * labels[:, None].expand(200, 3)
    assert torch.equal(within_class_correlation(x, by_class_alone, labels), torch.zeros(3))


def test_classes_are_centred_and_then_taken_together():
    labels = torch.arange(200) % 2
    x, y = features(), features(seed=1) + features()
    a, b = x.clone(), y.clone()
    for label in (0, 1):
        a[labels == label] -= a[labels == label].mean(0)
        b[labels == label] -= b[labels == label].mean(0)
    expected = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(3)]
    assert within_class_correlation(x, y, labels * 7).numpy() == pytest.approx(expected, abs=1e-6)


def test_images_that_share_all_of_several_labels_are_a_class():
    several = torch.stack([torch.arange(200) % 2, torch.arange(200) // 2 % 2], dim=1).float()
    x, y = features(), features() + features(seed=1) + 10 * several[:, :1] - 10 * several[:, 1:]
    expected = within_class_correlation(x, y, torch.arange(200) % 4)
    torch.testing.assert_close(within_class_correlation(x, y, several), expected)
    assert (within_class_correlation(x, y, several[:, 0]) - expected).abs().max() > 0.1


def test_images_that_share_no_labels_are_left_out_and_few_that_do_are_too_few():
    several = torch.tensor([[0.0, 1.0]] * 6 + [[1.0, 1.0]] + [[1.0, 0.0]] * 2)
    assert sharing_labels(several).tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    assert len(sharing_labels(several[:5])) == 0 and len(sharing_labels(torch.eye(20))) == 0


def test_a_feature_that_does_not_vary_correlates_with_nothing():
    assert torch.equal(within_class_correlation(features(), torch.ones(200, 3)), torch.zeros(3))


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(4, 2), torch.zeros(4, 3)),
        (torch.zeros(4), torch.zeros(4)),
        (torch.zeros(4, 2), torch.zeros(5, 2)),
        (torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(3, dtype=torch.long)),
    ],
)
def test_features_that_do_not_fit_are_refused(refused, arguments):
    with refused(ValueError, "features have shapes .*expected"):
        within_class_correlation(*arguments)


def test_the_pixel_cosine_is_one_for_copies_and_minus_one_for_negatives():
    x = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert pixel_cosine(x, x) == pytest.approx(1.0)
    assert pixel_cosine(x, 0.5 * x + 3.0) == pytest.approx(1.0, abs=1e-5)
    assert pixel_cosine(x, 1 - x) == pytest.approx(-1.0, abs=1e-5)
    assert abs(pixel_cosine(x, torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(1)))) < 0.3


def bar(height, width, size=15, shift=(0, 0)):
    x = torch.zeros(1, 1, size, size)
    top, left = (size - height) // 2 + shift[0], (size - width) // 2 + shift[1]
    x[..., top : top + height, left : left + width] = 1.0
    return x


def test_the_size_of_a_bar_is_its_area_width_and_height():
    area, slant, width, height = shape_features(bar(9, 3))[0].tolist()
    assert area == 27.0 and slant == pytest.approx(0.0, abs=1e-6)
    # The deviation of n equally likely integers in a row.
    assert width == pytest.approx(((3**2 - 1) / 12) ** 0.5) and height == pytest.approx(((9**2 - 1) / 12) ** 0.5)


def test_features_do_not_depend_on_the_place():
    torch.testing.assert_close(shape_features(bar(5, 3)), shape_features(bar(5, 3, shift=(3, -4))), rtol=0, atol=1e-5)


def test_a_line_that_leans_to_either_side_has_a_slant_of_that_sign():
    line = torch.eye(11)[None, None]
    variance = (11**2 - 1) / 12
    assert shape_features(line)[0, 1].item() == pytest.approx(variance / (variance + 0.1), rel=1e-5)
    assert shape_features(line.flip(-1))[0, 1].item() == pytest.approx(-variance / (variance + 0.1), rel=1e-5)


def test_faint_pixels_are_background_and_an_empty_image_has_no_shape():
    faint = bar(5, 3) + 0.29 * (bar(5, 3) == 0)
    torch.testing.assert_close(shape_features(faint), shape_features(bar(5, 3)))
    assert torch.equal(shape_features(torch.zeros(2, 3, 8, 8)), torch.zeros(2, len(SHAPE_FEATURES)))


def test_shape_features_of_volumes_are_refused(refused):
    with refused(ValueError, "expected \\(B, C, H, W\\)"):
        shape_features(torch.zeros(1, 1, 4, 4, 4))


def easy(count, seed):
    """Bright upper or bright lower half, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    x = 0.3 * torch.rand(count, 1, 8, 8, generator=generator)
    x[labels == 0, :, :4] += 0.5
    x[labels == 1, :, 4:] += 0.5
    return x, labels


def test_the_classifier_learns_what_is_easy_and_not_what_is_random():
    x, labels = easy(256, 0)
    assert classifier_accuracy(train_classifier(x, labels, 2), *easy(600, 1)) > 0.98
    shuffled = labels[torch.randperm(256, generator=torch.Generator().manual_seed(0))]
    assert classifier_accuracy(train_classifier(x, shuffled, 2, epochs=2), *easy(600, 1)) < 0.95


def halves(count, seed):
    """Each half is bright or not, whatever the other one is."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count, 2), generator=generator).float()
    x = 0.3 * torch.rand(count, 1, 8, 8, generator=generator)
    x[:, 0, :4] += 0.5 * labels[:, :1, None]
    x[:, 0, 4:] += 0.5 * labels[:, 1:, None]
    return x, labels


def test_a_classifier_learns_several_labels_each_by_itself():
    model = train_classifier(*halves(256, 0), 2)
    x, labels = halves(600, 1)
    assert all(mean_auc(model(x)[:, [k]], labels[:, [k]]) > 0.98 for k in (0, 1))
    assert classifier_auc(model, x, labels) > 0.98
    # Neither tells the other, and nothing tells a stranger's.
    assert classifier_auc(model, x, labels.flip(1)) < 0.8
    assert abs(classifier_auc(model, x, labels.roll(1, 0)) - 0.5) < 0.1


def test_the_mean_area_is_over_labels_that_some_have_and_others_have_not(refused):
    labels = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 0]])
    scores = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.5, 0.1], [0.8, 0.5, 0.1], [0.1, 0.5, 0.1]])
    assert mean_auc(scores, labels) == pytest.approx((1.0 + 0.5) / 2)
    assert mean_auc(-scores, labels) == pytest.approx((0.0 + 0.5) / 2)
    with refused(ValueError, "No label applies to some images and not to others"):
        mean_auc(scores[:, 1:2], labels[:, 1:2])


@pytest.mark.parametrize("labels", [torch.zeros(4, 3), torch.full((4, 2), 0.5), torch.zeros(4, 2, 1)])
def test_several_labels_are_one_and_zero_for_each_logit(refused, labels):
    with refused(ValueError, "labels have shape .*expected classes"):
        train_classifier(torch.rand(4, 1, 8, 8), labels, 2, epochs=1)


def spotted(count, seed):
    """Volumes of one pattern, louder and softer; every second one has a dark spot somewhere."""
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.randn(1, 1, 12, 12, 12, generator=torch.Generator().manual_seed(99))
    x = pattern * (1 + 0.3 * torch.randn(count, 1, 1, 1, 1, generator=generator))
    x = x + 0.3 * torch.randn(x.shape, generator=generator)
    for volume in x[1::2]:
        a, b, c = torch.randint(9, (3,), generator=generator).tolist()
        volume[0, a : a + 4, b : b + 4, c : c + 4] -= 1.5
    return x, torch.arange(count) % 2


def test_the_classifier_of_volumes_finds_what_may_be_anywhere():
    model = train_classifier(*spotted(300, 0), 2, epochs=12, batch_size=16)
    assert classifier_auc(model, *spotted(200, 1)) > 0.9


@pytest.mark.slow
def test_the_residual_classifier_finds_what_may_be_anywhere_and_is_repeatable():
    generator = torch.Generator().manual_seed(0)
    x, labels = 0.5 * torch.rand(384, 1, 64, 64, generator=generator), torch.arange(384) % 2
    for image in x[1::2]:
        row, column = torch.randint(8, 48, (2,), generator=generator).tolist()
        image[0, row : row + 8, column : column + 8] += 0.4
    first, again, other = (
        train_residual_classifier(x[:256], labels[:256], 2, epochs=8, seed=seed) for seed in (0, 0, 1)
    )
    assert classifier_auc(first, x[256:], labels[256:]) > 0.9
    assert torch.equal(first(x[:2]), again(x[:2])) and not torch.equal(first(x[:2]), other(x[:2]))


def test_what_a_classifier_learns_from_is_changed_by_its_augmentation():
    """Labels are told by the brighter half; where halves are swapped in training, so is what is learnt."""
    swapped = train_classifier(*easy(256, 0), 2, augmentation=lambda image: image.flip(1))
    assert classifier_accuracy(swapped, *easy(600, 1)) < 0.02


def test_images_are_standardised_in_every_pixel_and_constant_ones_stay_finite():
    x = torch.randn(500, 2, 3, 4) * torch.linspace(0.5, 2, 4) + torch.linspace(-3, 3, 3)[:, None]
    y = Standardise(x)(x)
    assert y.mean(0).abs().max() < 1e-4 and (y.std(0) - 1).abs().max() < 1e-2
    assert Standardise(torch.ones(5, 1, 2, 2))(torch.ones(3, 1, 2, 2)).abs().max() == 0


def test_the_classifier_leaves_the_global_generator_alone_and_is_repeatable():
    state = torch.random.get_rng_state()
    first = train_classifier(*easy(64, 0), 2, epochs=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(5)
    again, other = (train_classifier(*easy(64, 0), 2, epochs=1, seed=seed) for seed in (0, 1))
    x = easy(8, 2)[0]
    assert torch.equal(first(x), again(x)) and not torch.equal(first(x), other(x))
    assert not first.training


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 20), (1, 64, 64), (1, 3, 9)])
def test_the_classifier_takes_images_of_any_size(shape):
    model = train_classifier(torch.rand(4, *shape), torch.tensor([0, 1, 2, 0]), 3, epochs=1)
    assert model(torch.rand(5, *shape)).shape == (5, 3)
