# SPDX-License-Identifier: Apache-2.0
"""Ledgers to try things on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from monai_cadp.privacy import Budget, PrivacyGuarantee, PrivacyLedger
from monai_cadp.privacy.ledger import ReleaseRequest

SECRET = bytes(range(32))


@pytest.fixture
def ledger(tmp_path):
    """A new ledger in an SQLite file, with a cap of 8 on every subject's epsilon."""
    return PrivacyLedger.create(tmp_path / "ledger.db", SECRET, Budget(epsilon=8.0))


@pytest.fixture
def ask():
    """Make requests: ``ask.request(ledger, "anna", b"image", epsilon)``."""

    def request(ledger, subject, image, epsilon=1.0, delta=0.0, mechanism="SubsetSelection"):
        cost = PrivacyGuarantee(epsilon=epsilon, delta=delta, mechanism=mechanism)
        return ReleaseRequest(ledger.subject(subject), ledger.release_key([str(subject).encode(), image]), cost)

    return SimpleNamespace(request=request, secret=SECRET)
