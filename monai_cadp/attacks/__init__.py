# SPDX-License-Identifier: Apache-2.0
"""What an attacker gets: audits of mechanisms and privatizers, and the broken twins that audits must catch."""

from __future__ import annotations

from monai_cadp.attacks.audit import AuditResult, GameResult, audit_mechanism, audit_privatizer
from monai_cadp.attacks.broken_twins import Twin, all_twins

__all__ = ["AuditResult", "GameResult", "Twin", "all_twins", "audit_mechanism", "audit_privatizer"]
