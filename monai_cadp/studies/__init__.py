# SPDX-License-Identifier: Apache-2.0
"""Whole tasks from data to results: evaluating releases, studies."""

from monai_cadp.studies.attack_measurements import AttributeInference, Linkage, NearestCandidate, Reidentification
from monai_cadp.studies.epsilon_sweep import epsilon_sweep
from monai_cadp.studies.illustrations import ColumnHistograms, MaskStrip, ReleaseStrip, Scatter, WhichIsWhich
from monai_cadp.studies.measurements import ClassifierUtility, ContentKept, Realism
from monai_cadp.studies.methods import (
    CellNoise,
    ChosenAttributes,
    LatentLaplace,
    NetworkContent,
    PrivateTraining,
    UserContent,
    WithoutGuarantee,
)
from monai_cadp.studies.network_membership import NetworkMembership
from monai_cadp.studies.network_training import NetworkTraining
from monai_cadp.studies.paper_method import PublishedMethod
from monai_cadp.studies.pretrained_network import PretrainedNetwork
from monai_cadp.studies.release_audit import ReleaseAudit
from monai_cadp.studies.release_evaluation import ReleaseEvaluation
from monai_cadp.studies.row_measurements import RowUtility
from monai_cadp.studies.segmentation_evaluation import SegmentationEvaluation
from monai_cadp.studies.segmentation_utility import SegmentationUtility
from monai_cadp.studies.study import Study
from monai_cadp.studies.subgroups import Subgroups
from monai_cadp.studies.table_evaluation import TableEvaluation

__all__ = [
    "AttributeInference",
    "CellNoise",
    "ChosenAttributes",
    "ClassifierUtility",
    "ColumnHistograms",
    "ContentKept",
    "LatentLaplace",
    "Linkage",
    "MaskStrip",
    "NearestCandidate",
    "NetworkContent",
    "NetworkMembership",
    "NetworkTraining",
    "PretrainedNetwork",
    "PrivateTraining",
    "PublishedMethod",
    "Realism",
    "Reidentification",
    "ReleaseAudit",
    "ReleaseEvaluation",
    "ReleaseStrip",
    "RowUtility",
    "Scatter",
    "SegmentationEvaluation",
    "SegmentationUtility",
    "Study",
    "Subgroups",
    "TableEvaluation",
    "UserContent",
    "WhichIsWhich",
    "WithoutGuarantee",
    "epsilon_sweep",
]
