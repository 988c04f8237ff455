# SPDX-License-Identifier: Apache-2.0
"""What a researcher keeps: content, and what can be learnt."""

from monai_cadp.metrics.bits_per_dimension import BitsPerDimension
from monai_cadp.metrics.brain_features import BRAIN_FEATURES, BrainFeatures
from monai_cadp.metrics.classifier import classifier_accuracy, classifier_auc, train_classifier
from monai_cadp.metrics.content_kept import pixel_cosine, within_class_correlation
from monai_cadp.metrics.shape_features import SHAPE_FEATURES, shape_features

__all__ = [
    "BRAIN_FEATURES",
    "BitsPerDimension",
    "BrainFeatures",
    "SHAPE_FEATURES",
    "classifier_accuracy",
    "classifier_auc",
    "pixel_cosine",
    "shape_features",
    "train_classifier",
    "within_class_correlation",
]
