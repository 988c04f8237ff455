# SPDX-License-Identifier: Apache-2.0
"""What a researcher keeps: content, and what can be learnt."""

from monai_cadp.metrics.bits_per_dimension import BitsPerDimension
from monai_cadp.metrics.brain_features import BRAIN_FEATURES, BrainFeatures
from monai_cadp.metrics.classifier import classifier_accuracy, classifier_auc, train_classifier
from monai_cadp.metrics.content_kept import pixel_cosine, within_class_correlation
from monai_cadp.metrics.intervals import Estimate, bootstrap, bootstrap_mean
from monai_cadp.metrics.realism import frechet_distance, precision_recall
from monai_cadp.metrics.shape_features import SHAPE_FEATURES, shape_features
from monai_cadp.metrics.uncertainty import dropout_uncertainty

__all__ = [
    "BRAIN_FEATURES",
    "BitsPerDimension",
    "BrainFeatures",
    "Estimate",
    "SHAPE_FEATURES",
    "bootstrap",
    "bootstrap_mean",
    "classifier_accuracy",
    "classifier_auc",
    "dropout_uncertainty",
    "frechet_distance",
    "pixel_cosine",
    "precision_recall",
    "shape_features",
    "train_classifier",
    "within_class_correlation",
]
