# SPDX-License-Identifier: Apache-2.0
"""Ignite handlers: progress, tracking, checkpoints and the file to release with."""

from monai_cadp.handlers.early_stopping import EarlyStopping
from monai_cadp.handlers.export_privatizer import ExportPrivatizer
from monai_cadp.handlers.mlflow_tracking import MLflowTracking
from monai_cadp.handlers.nested_runs import NestedRuns
from monai_cadp.handlers.progress_bar import ProgressBar
from monai_cadp.handlers.release_metric import ReleaseMetric
from monai_cadp.handlers.sample_preview import SamplePreview
from monai_cadp.handlers.tracked_run import TrackedRun
from monai_cadp.handlers.training_checkpoint import TrainingCheckpoint

__all__ = [
    "EarlyStopping",
    "ExportPrivatizer",
    "MLflowTracking",
    "NestedRuns",
    "ProgressBar",
    "ReleaseMetric",
    "SamplePreview",
    "TrackedRun",
    "TrainingCheckpoint",
]
