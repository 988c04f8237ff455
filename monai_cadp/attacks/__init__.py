# SPDX-License-Identifier: Apache-2.0
"""What an attacker gets: audits, the broken twins that they must catch, and attacks that name people."""

from __future__ import annotations

from monai_cadp.attacks.audit import AuditResult, GameResult, audit_mechanism, audit_privatizer
from monai_cadp.attacks.broken_twins import Twin, all_twins
from monai_cadp.attacks.membership import MembershipResult, likelihood_ratio_scores, membership
from monai_cadp.attacks.reidentification import ReidentificationResult, reidentification, train_verification

__all__ = [
    "AuditResult",
    "GameResult",
    "MembershipResult",
    "ReidentificationResult",
    "Twin",
    "all_twins",
    "audit_mechanism",
    "audit_privatizer",
    "likelihood_ratio_scores",
    "membership",
    "reidentification",
    "train_verification",
]
