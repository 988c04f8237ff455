# SPDX-License-Identifier: Apache-2.0
"""Whole tasks from data to results: releasing a folder, evaluating releases, studies."""

from monai_cadp.studies.epsilon_sweep import epsilon_sweep
from monai_cadp.studies.folder_release import release_batches, release_folder
from monai_cadp.studies.release_evaluation import ReleaseEvaluation, ReleaseResult
from monai_cadp.studies.utility_study import UtilityStudy

__all__ = ["ReleaseEvaluation", "ReleaseResult", "UtilityStudy", "epsilon_sweep", "release_batches", "release_folder"]
