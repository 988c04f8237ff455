# SPDX-License-Identifier: Apache-2.0
"""What a researcher keeps: content, and what can be learnt."""

from monai_cadp.metrics.auc import auc, mean_auc
from monai_cadp.metrics.bits_per_dimension import BitsPerDimension
from monai_cadp.metrics.brain_features import BRAIN_FEATURES, BrainFeatures
from monai_cadp.metrics.chest_features import CHEST_FEATURES, chest_features
from monai_cadp.metrics.classifier import classifier_accuracy, classifier_auc, train_classifier
from monai_cadp.metrics.content_kept import (
    PixelCosine,
    WithinClassCorrelation,
    pixel_cosine,
    sharing_labels,
    within_class_correlation,
)
from monai_cadp.metrics.intervals import Estimate, bootstrap, bootstrap_mean
from monai_cadp.metrics.mask_features import MASK_FEATURES, MaskFeatures
from monai_cadp.metrics.perceptual import PerceptualSimilarity, perceptual_similarity
from monai_cadp.metrics.realism import frechet_distance, precision_recall
from monai_cadp.metrics.residual_classifier import train_residual_classifier
from monai_cadp.metrics.row_model import ROW_MODELS, row_model_score
from monai_cadp.metrics.segmentation import segmentation_dice, train_segmentation
from monai_cadp.metrics.shape_features import SHAPE_FEATURES, shape_features
from monai_cadp.metrics.uncertainty import dropout_uncertainty

__all__ = [
    "BRAIN_FEATURES",
    "BitsPerDimension",
    "CHEST_FEATURES",
    "BrainFeatures",
    "Estimate",
    "MASK_FEATURES",
    "MaskFeatures",
    "PerceptualSimilarity",
    "PixelCosine",
    "ROW_MODELS",
    "SHAPE_FEATURES",
    "WithinClassCorrelation",
    "auc",
    "bootstrap",
    "bootstrap_mean",
    "chest_features",
    "classifier_accuracy",
    "classifier_auc",
    "dropout_uncertainty",
    "frechet_distance",
    "mean_auc",
    "perceptual_similarity",
    "pixel_cosine",
    "precision_recall",
    "row_model_score",
    "segmentation_dice",
    "shape_features",
    "sharing_labels",
    "train_classifier",
    "train_residual_classifier",
    "train_segmentation",
    "within_class_correlation",
]
