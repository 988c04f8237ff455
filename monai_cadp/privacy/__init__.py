# SPDX-License-Identifier: Apache-2.0
"""The promise: mechanisms on tensors, their proofs, and the guarantees that they give."""

from __future__ import annotations

from monai_cadp.privacy.attribute_response import AttributeResponse
from monai_cadp.privacy.composition import compose, include_training
from monai_cadp.privacy.gaussian import GaussianMechanism
from monai_cadp.privacy.guarantee import PrivacyGuarantee, largest_auc
from monai_cadp.privacy.item import ItemId, check_distinct
from monai_cadp.privacy.laplace import LaplaceMechanism
from monai_cadp.privacy.ledger import Budget, BudgetExceededError, LedgerError, PrivacyLedger
from monai_cadp.privacy.mechanism import Mechanism
from monai_cadp.privacy.prior_only import PriorOnly
from monai_cadp.privacy.randomized_response import RandomizedResponse
from monai_cadp.privacy.subject import SubjectId
from monai_cadp.privacy.subset_selection import SubsetSelection, select_candidates
from monai_cadp.privacy.training_data import TrainingData
from monai_cadp.privacy.unit import UNITS, check_unit, needs_subjects

__all__ = [
    "AttributeResponse",
    "Budget",
    "BudgetExceededError",
    "GaussianMechanism",
    "ItemId",
    "LaplaceMechanism",
    "LedgerError",
    "Mechanism",
    "PriorOnly",
    "PrivacyGuarantee",
    "PrivacyLedger",
    "RandomizedResponse",
    "SubjectId",
    "SubsetSelection",
    "TrainingData",
    "UNITS",
    "check_distinct",
    "check_unit",
    "compose",
    "include_training",
    "largest_auc",
    "needs_subjects",
    "select_candidates",
]
