# SPDX-License-Identifier: Apache-2.0
"""A private classifier learns, keeps its promise, and says what it is."""

from __future__ import annotations

import copy
import math
from functools import partial

import dp_accounting
import pytest
import torch
from dp_accounting.pld import PLDAccountant

from monai_cadp.baselines import PrivateClassifier, train_private_classifier
from monai_cadp.data import Digits
from monai_cadp.metrics import classifier_accuracy, classifier_auc
from monai_cadp.privacy import PrivacyGuarantee


def few(count=24, shape=(1, 8, 8)):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, *shape, generator=generator), torch.arange(count) % 3


train = partial(train_private_classifier, num_classes=3, epsilon=2.0, delta=1e-3, epochs=1, batch_size=6)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def tossed(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_guarantee_is_what_dp_accounting_says_about_its_own_parameters():
    guarantee = train(*few(), epochs=3, unit="patient").guarantee
    parts = guarantee.parameters
    assert (guarantee.epsilon, guarantee.delta, guarantee.unit) == (2.0, 1e-3, "patient")
    assert (guarantee.relation, guarantee.training_data.protection) == ("replace-one", "dp")
    assert (parts["sampling_rate"], parts["steps"]) == (6 / 24, 12)
    step = dp_accounting.PoissonSampledDpEvent(0.25, dp_accounting.GaussianDpEvent(parts["noise_multiplier"]))
    replace, add = (
        PLDAccountant(relation).compose(dp_accounting.SelfComposedDpEvent(step, 12)).get_epsilon(1e-3)
        for relation in (
            dp_accounting.NeighboringRelation.REPLACE_ONE,
            dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
        )
    )
    assert 1.99 < replace <= 2.0
    assert add <= parts["add_or_remove_one_epsilon"] <= 1.005 * add
    assert PrivacyGuarantee.from_json(guarantee.to_json()) == guarantee
    assert "number of images" in guarantee.explain()


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [24, 2])
def test_the_noise_on_the_weights_has_the_deviation_of_the_guarantee_whatever_the_size_of_the_batch(batch_size):
    """From one seed two runs differ by their noise, and hardly by clipped gradients; wrong with probability 1e-6."""
    images, labels = few()
    models = [train(images, labels, batch_size=batch_size, learning_rate=0.02, largest_gradient=0.5) for _ in range(2)]
    difference = weights(models[0]) - weights(models[1])
    # Momentum 0.9 gives the noise of k steps before the end the weight 1 + 0.9 + ... + 0.9^k.
    weight = math.sqrt(sum(((1 - 0.9**k) / 0.1) ** 2 for k in range(1, 24 // batch_size + 1)))
    multiplier = models[0].guarantee.parameters["noise_multiplier"]
    expected = math.sqrt(2) * weight * 0.02 / batch_size * 0.5 * multiplier
    assert float(difference.std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * len(difference)))


def test_one_image_moves_the_weights_of_a_step_by_twice_the_clipped_gradient_at_most():
    images, labels = few()
    other_images, other_labels = images.clone(), labels.clone()
    other_images[5], other_labels[5] = 1 - images[5], (labels[5] + 1) % 3
    bound = 1e-2
    step = partial(train, batch_size=24, learning_rate=24.0, largest_gradient=bound)
    first, second = (
        weights(step(x, y, generator=tossed())).double() for x, y in ((images, labels), (other_images, other_labels))
    )
    assert bound / 10 < float((first - second).norm()) <= 2.001 * bound


def test_a_generator_for_tests_brings_two_runs_together():
    first, again, other = (weights(train(*few(), generator=tossed(seed))) for seed in (0, 0, 1))
    assert train(*few(), generator=tossed()).guarantee is None
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_otherwise_two_runs_differ_whatever_the_seed_of_torch_which_is_left_alone():
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        state = torch.get_rng_state()
        runs.append(weights(train(*few())))
        assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(*runs)


@pytest.mark.slow
def test_digits_are_learned():
    digits, test = (
        (torch.stack([item["image"] for item in split]), torch.stack([item["label"] for item in split]))
        for split in (Digits("train"), Digits("test"))
    )
    model = train_private_classifier(
        *digits, 10, epsilon=30.0, delta=1e-5, epochs=20, batch_size=256, learning_rate=4.0
    )
    assert not model.training and classifier_accuracy(model, *test) > 0.6


@pytest.mark.slow
def test_empty_batches_are_steps_like_others():
    model = train(*few(), batch_size=1)
    assert model.guarantee.parameters["steps"] == 24 and weights(model).isfinite().all()


def test_what_is_no_number_is_black():
    images, labels = few()
    images[3], black = math.nan, images.clone()
    black[3] = 0.0
    assert torch.equal(
        weights(train(images, labels, generator=tossed())), weights(train(black, labels, generator=tossed()))
    )
    model = PrivateClassifier((1, 8, 8), 3)
    assert torch.equal(model(images), model(black))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 200), (1, 28, 28), (1, 70, 65), (2, 8, 10, 20)], ids=str)
def test_images_of_every_size_are_taken_and_none_has_an_influence_on_another(shape):
    images, labels = few(6, shape)
    model = train(images, labels, batch_size=3)
    logits = model(images)
    assert logits.shape == (6, 3) and logits.isfinite().all()
    # A batch of as many: a smaller one may be added up in another order, and differ in the last digits.
    other = images.clone()
    other[1:] = 1 - images[1:]
    assert torch.equal(model(other)[:1], logits[:1]) and not torch.equal(model(other)[1:], logits[1:])


def test_a_trained_classifier_is_a_plain_module():
    images, labels = few()
    model = train(images, labels)
    other = PrivateClassifier((1, 8, 8), 3, model.guarantee)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images), model(images)) and torch.equal(copy.deepcopy(model)(images), model(images))
    assert not any(vars(parameter) for parameter in model.parameters())
    assert PrivateClassifier((1, 8, 8), 3).add_or_remove_one_epsilon is None


BAD = {
    "epsilon": [0.0, -1.0, math.nan, math.inf],
    "delta": [0.0, 1.0, 1e-15],
    "epochs": [0, 1.5],
    "batch_size": [0, 25, True],
    "learning_rate": [0.0, math.inf],
    "largest_gradient": [-1.0],
    "num_classes": [1, 2],
    "unit": [""],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_numbers_out_of_range_are_refused(name, value, refused):
    with refused(ValueError, "expected"):
        train(*few(), **{name: value})


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.rand(24, 8, 8), torch.zeros(24).long()),
        (torch.rand(24, 1, 7, 8), torch.zeros(24).long()),
        (torch.rand(0, 1, 8, 8), torch.zeros(0).long()),
        (torch.rand(24, 1, 8, 8), torch.zeros(23).long()),
        (torch.rand(24, 1, 8, 8), torch.zeros(24, 1).long()),
        (torch.rand(24, 1, 8, 8), torch.zeros(24)),
        (torch.rand(24, 1, 8, 8), torch.full((24,), -1)),
    ],
)
def test_data_that_do_not_fit_are_refused(images, labels, refused):
    with refused(ValueError, "expected"):
        train(images, labels)


def test_several_labels_are_learnt_each_by_itself_under_the_same_promise(refused):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (2000, 2), generator=generator).float()
    images = 0.2 * torch.rand(2000, 1, 8, 8, generator=generator)
    images[:, 0, :4] += 0.6 * labels[:, :1, None]
    images[:, 0, 4:] += 0.6 * labels[:, 1:, None]
    options = {"delta": 1e-4, "epochs": 4, "batch_size": 500, "learning_rate": 2.0}
    model = train_private_classifier(images[:1500], labels[:1500], 2, epsilon=8.0, **options)
    assert model.guarantee.epsilon == 8.0
    assert classifier_auc(model, images[1500:], labels[1500:]) > 0.9
    with refused(ValueError, "labels have shape"):
        train_private_classifier(images, labels, 3, epsilon=8.0, **options)
    with refused(ValueError, "2000 images and 1500 rows of labels"):
        train_private_classifier(images, labels[:1500], 2, epsilon=8.0, **options)
