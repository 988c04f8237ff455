# SPDX-License-Identifier: Apache-2.0
"""Validation measures the same thing every time."""

from __future__ import annotations

import math

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from torch.optim.swa_utils import AveragedModel

from monai_cadp.engines import (
    FlowEvaluator,
    GaussianNoise,
    bits_per_dimension,
    flow_batches,
    prepare_flow_batch,
)
from monai_cadp.networks import ConditionalINN


def rows(count=20):
    generator = torch.Generator().manual_seed(0)
    return [{"image": MetaTensor(torch.rand(1, 4, 4, generator=generator)), "label": i % 2} for i in range(count)]


def loader(count=20):
    return DataLoader(Dataset(rows(count)), batch_size=8)


@pytest.fixture
def inn():
    torch.manual_seed(0)
    return ConditionalINN((4, 4), num_classes=2, num_couplings=2, width=8)


def metric(evaluator):
    evaluator.run()
    return evaluator.state.metrics["bits_per_dimension"]


def test_the_noise_is_the_same_at_every_evaluation(inn):
    evaluator = FlowEvaluator(inn, loader(), noise=GaussianNoise(0.5))
    first = metric(evaluator)
    torch.manual_seed(99)
    assert metric(evaluator) == first
    assert metric(FlowEvaluator(inn, loader(), noise=GaussianNoise(0.5))) == first
    assert metric(FlowEvaluator(inn, loader(), noise=GaussianNoise(0.5), seed=1)) != first


def test_the_metric_is_the_mean_over_all_images_whatever_the_batches(inn):
    batch = torch.stack([row["image"].as_tensor() for row in rows()])
    labels = torch.tensor([row["label"] for row in rows()])
    expected = bits_per_dimension(inn, batch, labels).mean().item()
    assert metric(FlowEvaluator(inn, loader(), noise=GaussianNoise(0.0))) == pytest.approx(expected, rel=1e-5)


def test_an_average_of_networks_is_measured_as_the_network_that_it_is(inn):
    assert metric(FlowEvaluator(AveragedModel(inn), loader())) == metric(FlowEvaluator(inn, loader()))


def test_evaluation_leaves_the_global_generator_and_the_weights_alone(inn):
    state, before = torch.random.get_rng_state(), inn.fingerprint()
    batch = {"image": torch.zeros(2, 1, 4, 4), "label": torch.tensor([0, 1])}
    metric(FlowEvaluator(inn, [batch]))
    assert inn.fingerprint() == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_fewer_bits_are_better(inn):
    evaluator = FlowEvaluator(inn, loader())
    evaluator.run()
    evaluator.state.best_metric = 1e9
    evaluator.run()
    assert evaluator.state.best_metric == evaluator.state.metrics["bits_per_dimension"]


def test_bits_per_dimension_of_a_standard_normal_network_are_those_of_the_normal_density():
    inn = ConditionalINN((), 1, num_couplings=0)
    at_zero = bits_per_dimension(inn, torch.zeros(1, 1), None)
    assert at_zero.item() == pytest.approx(0.5 * math.log2(2 * math.pi), rel=1e-5)


def test_gaussian_noise_has_its_deviation():
    noise = GaussianNoise(0.3)(torch.zeros(100000), torch.Generator().manual_seed(0))
    assert noise.std() == pytest.approx(0.3, rel=0.02) and abs(noise.mean()) < 0.01


@pytest.mark.parametrize("make", [lambda: GaussianNoise(-0.1), lambda: GaussianNoise(math.nan)])
def test_a_negative_deviation_is_refused(refused, make):
    with refused(ValueError, "deviation is .*expected"):
        make()


def test_batches_become_float32_images_and_their_conditions():
    x, condition = prepare_flow_batch({"image": torch.ones(2, 1, 4, 4, dtype=torch.uint8), "label": [0, 1]})
    assert x.dtype == torch.float32 and condition.tolist() == [0, 1]
    x, condition = prepare_flow_batch({"image": MetaTensor(torch.ones(2, 1, 4, 4))})
    assert type(x) is torch.Tensor and condition is None


def test_flow_batches_have_the_same_noise_at_every_pass():
    batches = flow_batches(loader(), GaussianNoise(0.1))
    for first, second in zip(batches(), batches(), strict=True):
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
