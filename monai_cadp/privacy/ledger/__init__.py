# SPDX-License-Identifier: Apache-2.0
"""A durable budget for every subject, and every release once."""

from __future__ import annotations

from monai_cadp.privacy.ledger.budget import Budget
from monai_cadp.privacy.ledger.keys import LedgerKeys, read_secret, write_secret
from monai_cadp.privacy.ledger.ledger import PrivacyLedger
from monai_cadp.privacy.ledger.request import BudgetExceededError, LedgerError, ReleaseRequest

__all__ = [
    "Budget",
    "BudgetExceededError",
    "LedgerError",
    "LedgerKeys",
    "PrivacyLedger",
    "ReleaseRequest",
    "read_secret",
    "write_secret",
]
