# SPDX-License-Identifier: Apache-2.0
"""The promise: mechanisms on tensors, their proofs, and the guarantees that they give."""

from __future__ import annotations

from monai_cadp.privacy.attribute_response import AttributeResponse
from monai_cadp.privacy.composition import compose, include_training
from monai_cadp.privacy.gaussian import GaussianMechanism
from monai_cadp.privacy.guarantee import PrivacyGuarantee
from monai_cadp.privacy.laplace import LaplaceMechanism
from monai_cadp.privacy.ledger import Budget, BudgetExceededError, LedgerError, PrivacyLedger
from monai_cadp.privacy.mechanism import Mechanism
from monai_cadp.privacy.prior_only import PriorOnly
from monai_cadp.privacy.randomized_response import RandomizedResponse
from monai_cadp.privacy.subset_selection import SubsetSelection, select_candidates
from monai_cadp.privacy.training_data import TrainingData

__all__ = [
    "AttributeResponse",
    "Budget",
    "BudgetExceededError",
    "GaussianMechanism",
    "LaplaceMechanism",
    "LedgerError",
    "Mechanism",
    "PriorOnly",
    "PrivacyGuarantee",
    "PrivacyLedger",
    "RandomizedResponse",
    "SubsetSelection",
    "TrainingData",
    "compose",
    "include_training",
    "select_candidates",
]
