# SPDX-License-Identifier: Apache-2.0
"""Signed statements about released folders. Light: to verify one needs neither torch nor what made the release."""

from __future__ import annotations

from monai_cadp.certificate.certificate import Verified, make_certificate, verify_certificate
from monai_cadp.certificate.document import CertificateError
from monai_cadp.certificate.keys import new_key, read_private_key, read_public_key

__all__ = [
    "CertificateError",
    "Verified",
    "make_certificate",
    "new_key",
    "read_private_key",
    "read_public_key",
    "verify_certificate",
]
