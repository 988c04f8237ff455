# SPDX-License-Identifier: Apache-2.0
"""What an attacker gets: audits, the negative controls that they must catch, and attacks on people."""

from __future__ import annotations

from monai_cadp.attacks.aligned_similarity import aligned_similarity
from monai_cadp.attacks.attribute_inference import AttributeInferenceResult, attribute_inference
from monai_cadp.attacks.audit import AuditResult, GameResult, audit_mechanism, audit_releaser
from monai_cadp.attacks.limits import largest_top_1
from monai_cadp.attacks.linkage import LinkageResult, edge_features, linkage
from monai_cadp.attacks.membership import MembershipResult, likelihood_ratio_scores, membership
from monai_cadp.attacks.negative_controls import NegativeControl, all_controls
from monai_cadp.attacks.reconstruction import (
    NearestCandidateResult,
    expected_releases,
    nearest_candidate,
    success_limit,
)
from monai_cadp.attacks.reidentification import ReidentificationResult, reidentification, train_verification
from monai_cadp.attacks.set_membership import set_membership_scores

__all__ = [
    "AttributeInferenceResult",
    "AuditResult",
    "GameResult",
    "LinkageResult",
    "MembershipResult",
    "NearestCandidateResult",
    "ReidentificationResult",
    "NegativeControl",
    "aligned_similarity",
    "all_controls",
    "attribute_inference",
    "audit_mechanism",
    "audit_releaser",
    "edge_features",
    "expected_releases",
    "largest_top_1",
    "likelihood_ratio_scores",
    "linkage",
    "membership",
    "nearest_candidate",
    "reidentification",
    "set_membership_scores",
    "success_limit",
    "train_verification",
]
