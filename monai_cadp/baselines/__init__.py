# SPDX-License-Identifier: Apache-2.0
"""What people would use instead: noise on pixels, what is private as a whole, obfuscation that promises nothing."""

from monai_cadp.baselines.obfuscation import GaussianBlur, Mosaic
from monai_cadp.baselines.pixel_noise import PixelNoise
from monai_cadp.baselines.private_classifier import PrivateClassifier, train_private_classifier
from monai_cadp.baselines.private_evolution import EvolvedTable, evolve_table
from monai_cadp.baselines.published_laplace import PublishedLaplace

__all__ = [
    "EvolvedTable",
    "GaussianBlur",
    "Mosaic",
    "PixelNoise",
    "PrivateClassifier",
    "PublishedLaplace",
    "evolve_table",
    "train_private_classifier",
]
