# SPDX-License-Identifier: Apache-2.0
"""Ignite engines: training and evaluating networks."""

from monai_cadp.engines.federated_client import FederatedFlowClient, average_weights, take_weights
from monai_cadp.engines.flow_batch import bits_per_dimension, flow_batches, prepare_flow_batch
from monai_cadp.engines.flow_evaluator import FlowEvaluator
from monai_cadp.engines.flow_trainer import FlowTrainer, NonFiniteLossError
from monai_cadp.engines.input_noise import ColumnNoise, GaussianNoise
from monai_cadp.engines.level_trainer import LevelTrainer
from monai_cadp.engines.likelihood_gradients import likelihood_gradients
from monai_cadp.engines.private_flow_trainer import PrivateFlowTrainer
from monai_cadp.engines.private_moments import PrivateMoments

__all__ = [
    "ColumnNoise",
    "FederatedFlowClient",
    "FlowEvaluator",
    "FlowTrainer",
    "GaussianNoise",
    "LevelTrainer",
    "NonFiniteLossError",
    "PrivateFlowTrainer",
    "PrivateMoments",
    "average_weights",
    "bits_per_dimension",
    "flow_batches",
    "likelihood_gradients",
    "prepare_flow_batch",
    "take_weights",
]
