# SPDX-License-Identifier: Apache-2.0
"""What is asked of a ledger, and how it refuses."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from monai_cadp.privacy.guarantee import PrivacyGuarantee

__all__ = ["BudgetExceededError", "LedgerError", "ReleaseRequest"]


class LedgerError(RuntimeError):
    """The ledger cannot be used; nothing was released and nothing spent by the call that raised this."""


class BudgetExceededError(LedgerError):
    """A release would pass a subject's cap; nothing was released and nothing spent for its whole batch.

    Args:
        message: which names nobody.
        codes: of the subjects, from :meth:`PrivacyLedger.subject`.
    """

    def __init__(self, message: str, codes: Collection[str] = ()) -> None:
        super().__init__(message)
        self.codes = frozenset(codes)


@dataclass(frozen=True)
class ReleaseRequest:
    """One release that somebody wants.

    Args:
        subject: code of the subject, from :meth:`PrivacyLedger.subject`.
        key: code of the release, from :meth:`PrivacyLedger.release_key`.
        guarantee: what the release costs.
        image: code of the image, from :meth:`PrivacyLedger.image_code`, where the key does not cover it: another image
            under the same key is refused. None where the key does.
    """

    subject: str
    key: str
    guarantee: PrivacyGuarantee
    image: str | None = None
