# SPDX-License-Identifier: Apache-2.0
"""What stands in a ledger in the place of subjects and images: codes that mean nothing without the secret."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Sequence

from monai_cadp.privacy.private_files import check_private, create_private
from monai_cadp.privacy.subject import SubjectId

__all__ = ["LedgerKeys", "digest", "read_secret", "write_secret"]

SECRET_BYTES = 32


class LedgerKeys:
    """Codes for subjects, releases, images, contents and entries, each under a key of its own, derived from one secret.

    Args:
        secret: 32 random bytes or more.

    Raises:
        ValueError: if the secret is shorter.

    References:
        Krawczyk, Bellare, Canetti: HMAC, RFC 2104. Saarinen, Aumasson: BLAKE2, RFC 7693.

    Example:
        >>> keys = LedgerKeys(bytes(32))
        >>> keys.subject("patient 7") == keys.subject("patient 7") != keys.subject("patient 8")
        True
    """

    def __init__(self, secret: bytes) -> None:
        if not isinstance(secret, bytes) or len(secret) < SECRET_BYTES:
            raise ValueError(
                f"The ledger's secret is no text of {SECRET_BYTES} bytes or more; make one by write_secret."
            )
        self._subject, self._release, self._set, self._image, self._content, self._entry = (
            hmac.digest(secret, purpose, "sha256")
            for purpose in (b"subject", b"release", b"set", b"image", b"content", b"entry")
        )

    def subject(self, subject: str) -> str:
        """Return the code of a subject, one for a person, however the id was typed.

        Raises:
            ValueError: if there is no subject, or it is no text; see :class:`~monai_cadp.privacy.SubjectId`.
        """
        return hmac.digest(self._subject, bytes(SubjectId(subject)), "sha256").hex()

    def release(self, parts: Sequence[bytes]) -> str:
        """Return the code of a release, from everything that decides whether two of them are the same."""
        # With its length before it, no part can run over into the next.
        whole = b"".join(piece for part in parts for piece in (len(part).to_bytes(8, "big"), part))
        return hmac.digest(self._release, whole, "sha256").hex()

    def set(self, keys: Iterable[str]) -> str:
        """Return the code of a set of releases, from their codes in any order."""
        return hmac.digest(self._set, "".join(sorted(keys)).encode(), "sha256").hex()

    def image(self, key: str, image: bytes) -> str:
        """Return the code of the image of a release; with its key, so that equal images of two releases do not show."""
        return hmac.digest(self._image, key.encode() + self.content(image).encode(), "sha256").hex()

    def content(self, content: bytes) -> str:
        """Return the code of a content; a plain digest would tell it to whoever can list all candidates."""
        # Keyed BLAKE2 is an HMAC's equal, at twice the speed; contents are large.
        return hashlib.blake2b(content, key=self._content, digest_size=32).hexdigest()

    def entry(self, previous: str, content: Sequence[str | int | None]) -> str:
        """Return the code of an entry, which holds that of the entry before it."""
        return hmac.digest(self._entry, json.dumps([previous, *content]).encode(), "sha256").hex()


def digest(content: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def write_secret(path: str | os.PathLike[str]) -> bytes:
    """Make a secret from the system's random numbers, and write it to a new file that its owner alone may read.

    Whoever has the file can check whether a person is in the ledger; whoever loses it can use the ledger no more.

    Args:
        path: of the file; it must not exist.

    Returns:
        The secret.

    Raises:
        ValueError: if the file exists or could not be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_secret(f"{folder}/secret") == read_secret(f"{folder}/secret")
        True
    """
    secret = secrets.token_bytes(SECRET_BYTES)
    descriptor = None
    with contextlib.suppress(OSError):
        descriptor = create_private(path)
    if descriptor is None:
        raise ValueError("The file of the secret exists or cannot be written; give the path of a new one.")
    with os.fdopen(descriptor, "w") as file:
        file.write(secret.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return secret


def read_secret(path: str | os.PathLike[str]) -> bytes:
    """Read a secret.

    Args:
        path: of a file of :func:`write_secret`, or of a link to one.

    Raises:
        ValueError: if the file is missing or holds something else, or others than its owner may read or write it.
    """
    secret, status = b"", None
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
        # Of the file that is open, which is the one that is read, whatever the path means by now.
        status = os.fstat(file.fileno())
        secret = bytes.fromhex(file.read())
    if status is not None:
        check_private(status, "The file of the ledger's secret")
    if len(secret) < SECRET_BYTES:
        raise ValueError("The file of the ledger's secret is missing or holds none; give the one made with the ledger.")
    return secret
