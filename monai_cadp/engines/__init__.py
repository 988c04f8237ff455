# SPDX-License-Identifier: Apache-2.0
"""Ignite engines: training and evaluating networks."""

from monai_cadp.engines.flow_batch import bits_per_dimension, flow_batches, prepare_flow_batch
from monai_cadp.engines.flow_evaluator import FlowEvaluator
from monai_cadp.engines.flow_trainer import FlowTrainer, NonFiniteLossError
from monai_cadp.engines.input_noise import ColumnNoise, Dequantization, GaussianNoise

__all__ = [
    "ColumnNoise",
    "Dequantization",
    "FlowEvaluator",
    "FlowTrainer",
    "GaussianNoise",
    "NonFiniteLossError",
    "bits_per_dimension",
    "flow_batches",
    "prepare_flow_batch",
]
