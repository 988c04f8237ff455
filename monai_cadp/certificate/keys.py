# SPDX-License-Identifier: Apache-2.0
"""The keys of those who sign: Ed25519, in PEM files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from monai_cadp.certificate.document import CertificateError

__all__ = ["new_key", "public_text", "read_private_key", "read_public_key"]

PUBLIC = ".pub"


def new_key(path: str | os.PathLike[str]) -> Path:
    """Make a private key that its owner alone may read, and its public key beside it.

    Args:
        path: of the new file.

    Returns:
        The file of the public key, ``<path>.pub``, for everybody.

    Raises:
        CertificateError: if a file of either name exists, or cannot be made.
    """
    from monai_cadp.privacy.private_files import create_private

    path = Path(path)
    public = path.with_name(path.name + PUBLIC)
    key = Ed25519PrivateKey.generate()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    made = False
    with contextlib.suppress(OSError):
        if not public.exists():
            with os.fdopen(create_private(path), "wb") as file:
                file.write(key.private_bytes(encoding, form, serialization.NoEncryption()))
            public.write_bytes(key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
            made = True
    if not made:
        raise CertificateError("The key could not be made; give the name of a new file, in a folder of your own.")
    return public


def read_private_key(path: str | os.PathLike[str]) -> Ed25519PrivateKey:
    """Read the key by which a certificate is signed.

    Raises:
        ValueError: if others than its owner may read it, or replace it.
        CertificateError: if it is no such key.
    """
    from monai_cadp.privacy.private_files import check_folder, check_private

    content = None
    with contextlib.suppress(OSError), open(path, "rb") as file:
        check_private(os.fstat(file.fileno()), "The file of the key")
        check_folder(path, "The file of the key")
        content = file.read()
    key = None
    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = serialization.load_pem_private_key(content or b"", password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise CertificateError("The key could not be read; expected a file of 'certificate new-key'.")
    return key


def read_public_key(path: str | os.PathLike[str]) -> Ed25519PublicKey:
    """Read the key by which a signature is checked.

    Raises:
        CertificateError: if it is no such key.
    """
    content = b""
    with contextlib.suppress(OSError):
        content = Path(path).read_bytes()
    key = None
    with contextlib.suppress(ValueError, UnsupportedAlgorithm):
        key = serialization.load_pem_public_key(content)
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("The public key could not be read; expected a .pub file of 'certificate new-key'.")
    return key


def public_text(key: Ed25519PublicKey) -> str:
    """Return the 32 bytes of a public key, in hexadecimal."""
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw).hex()
