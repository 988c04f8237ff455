# SPDX-License-Identifier: Apache-2.0
"""What an attacker gets: audits, the broken twins that they must catch, and attacks that name people."""

from __future__ import annotations

from monai_cadp.attacks.audit import AuditResult, GameResult, audit_mechanism, audit_privatizer
from monai_cadp.attacks.broken_twins import Twin, all_twins
from monai_cadp.attacks.reidentification import ReidentificationResult, reidentification, train_verification

__all__ = [
    "AuditResult",
    "GameResult",
    "ReidentificationResult",
    "Twin",
    "all_twins",
    "audit_mechanism",
    "audit_privatizer",
    "reidentification",
    "train_verification",
]
