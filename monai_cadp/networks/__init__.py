# SPDX-License-Identifier: Apache-2.0
"""The conditional invertible network and what counts as the content of its images."""

from monai_cadp.networks.base import InvertibleNetwork
from monai_cadp.networks.calibration import (
    calibrate_edges,
    calibrate_format,
    calibrate_histogram,
    calibrate_latents,
    calibrate_spectrum,
)
from monai_cadp.networks.condition import ConditionSpace
from monai_cadp.networks.content_basis import ContentBasis
from monai_cadp.networks.declared_content import CandidateTable, DeclaredContent
from monai_cadp.networks.inn import ConditionalINN
from monai_cadp.networks.moments import fit_moments, refit_moments, refit_subspace
from monai_cadp.networks.paper import PaperINN
from monai_cadp.networks.trained_model import TrainedModel
from monai_cadp.networks.training_record import new_event
from monai_cadp.networks.weights_snapshot import WeightsSnapshot

__all__ = [
    "CandidateTable",
    "ConditionSpace",
    "ConditionalINN",
    "ContentBasis",
    "DeclaredContent",
    "InvertibleNetwork",
    "PaperINN",
    "TrainedModel",
    "WeightsSnapshot",
    "calibrate_edges",
    "calibrate_format",
    "calibrate_histogram",
    "calibrate_latents",
    "calibrate_spectrum",
    "fit_moments",
    "new_event",
    "refit_moments",
    "refit_subspace",
]
