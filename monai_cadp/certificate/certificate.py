# SPDX-License-Identifier: Apache-2.0
"""A signed statement about a released folder: made, and verified."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from monai_cadp.certificate.derivation import Derived, derived, derived_set
from monai_cadp.certificate.document import (
    LARGEST,
    CertificateError,
    canonical,
    integer,
    leaves,
    number,
    parsed,
    sha256,
    shown,
)
from monai_cadp.certificate.folder import CERTIFICATE, FolderFiles, described
from monai_cadp.certificate.keys import public_text
from monai_cadp.certificate.training import derived_training

__all__ = ["Verified", "make_certificate", "read_certificate", "signed", "verified", "verify_certificate"]

FORMAT, VERSION = "monai_cadp certificate", 1
PARTS = {"digests", "public_key", "signature", "statement"}
# What is the signer's word, and no document of the folder says.
WORDS = {"audit", "certified_with", "format", "issued", "ledger_head", "signer", "version"}
LIBRARIES = ("monai_cadp", "cryptography", "dp-accounting")
# Of a certificate, for each file that it names.
BYTES_PER_FILE = 512
AUDITED = ("name", "level", "epsilon", "delta", "measured", "ceiling", "contradicted")


@dataclass(frozen=True)
class Verified:
    """What a verification has found.

    Attributes:
        statement: as it was signed.
        public_key: by which, in hexadecimal.
        guarantees: what was derived for each kind of release, in the order of the statement.
        whole: what was derived for the set; None where nothing is stated of it.
        training: a sentence about the training data of each kind of release.
    """

    statement: dict[str, Any]
    public_key: str
    guarantees: list[Derived]
    whole: Derived | None
    training: list[str]


def make_certificate(
    folder: str | os.PathLike[str],
    key: Ed25519PrivateKey,
    *,
    signer: str | None = None,
    issued: datetime.date | None = None,
    audit: str | os.PathLike[str] | None = None,
    ledger_head: str | os.PathLike[str] | None = None,
) -> Verified:
    """Write ``certificate.json`` into a released folder, if everything that it would state can be verified.

    Args:
        folder: of the release; complete, with nothing else in it.
        key: the signer's.
        signer: name of the signer; public.
        issued: date of the certificate; today, if left out.
        audit: JSON file of ``python -m monai_cadp audit --out``; what it measured is stated.
        ledger_head: JSON file of ``python -m monai_cadp ledger head``; it is stated as it is.

    Returns:
        What :func:`verify_certificate` returns.

    Raises:
        CertificateError: if there is a certificate, a card is missing or contradicts another, an epsilon cannot be
            derived anew or is a false one, or the audit has contradicted a promise; nothing is written.
    """
    path = Path(folder) / CERTIFICATE
    if path.exists() or path.is_symlink():
        raise CertificateError(f"The folder has a {CERTIFICATE} already; certificates are never overwritten.")
    files = FolderFiles.read(folder)
    words = {
        "audit": None if audit is None else _audit(_content(audit, "The audit")),
        "certified_with": {name: _version(name) for name in LIBRARIES},
        "format": FORMAT,
        "issued": (issued or datetime.date.today()).isoformat(),
        "ledger_head": None if ledger_head is None else _head(_content(ledger_head, "The ledger's head")),
        "signer": signer,
        "version": VERSION,
    }
    content = signed({**words, **_derivable(files)}, key)
    # As everybody else will; what cannot be verified is not signed.
    result = verified(files, content, key.public_key())
    try:
        with path.open("xb") as file:
            file.write(content)
    except OSError:
        raise CertificateError("The certificate could not be written; check the folder's permissions.") from None
    return result


def verify_certificate(folder: str | os.PathLike[str], public_key: Ed25519PublicKey) -> Verified:
    """Check every file, number and the signature of a certified folder, and derive its epsilons anew.

    Args:
        folder: with its ``certificate.json``.
        public_key: of the signer, from the signer.

    Raises:
        CertificateError: naming what is missing, added, changed or false.
    """
    return verified(FolderFiles.read(folder), read_certificate(folder), public_key)


def read_certificate(folder: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a folder's certificate.

    Raises:
        CertificateError: if there is none.
    """
    path = Path(folder) / CERTIFICATE
    try:
        if path.is_file() and not path.is_symlink():
            return path.read_bytes()
    except OSError:
        pass
    raise CertificateError(f"{CERTIFICATE} is missing, a link, or cannot be read; expected a certified folder.")


def signed(statement: Mapping[str, Any], key: Ed25519PrivateKey) -> bytes:
    """Return the bytes of a certificate: a statement, digests of its values by name, and a signature over it.

    The digests are no part of the security: they let a verifier say which value was changed.
    """
    parts = {
        "digests": _digests(statement),
        "public_key": public_text(key.public_key()),
        "signature": key.sign(canonical(statement)).hex(),
        "statement": dict(statement),
    }
    return canonical(parts) + b"\n"


def verified(files: FolderFiles, certificate: bytes, public_key: Ed25519PublicKey) -> Verified:
    """Verify a certificate against the files of its folder; see :func:`verify_certificate`."""
    try:
        return _verified(files, certificate, public_key)
    except CertificateError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        # Whoever signs may sign anything.
        raise CertificateError(
            f"{CERTIFICATE}: a value of the statement is of a kind that no release writes."
        ) from None


def _verified(files: FolderFiles, certificate: bytes, public_key: Ed25519PublicKey) -> Verified:
    parts = parsed(certificate, CERTIFICATE, LARGEST + BYTES_PER_FILE * len(files.digests))
    if not isinstance(parts, dict) or set(parts) != PARTS or not isinstance(parts["statement"], dict):
        raise CertificateError(f"{CERTIFICATE} has not the parts of a certificate; a name was changed.")
    statement = parts["statement"]
    if not isinstance(statement.get("files"), dict):
        raise CertificateError(f"{CERTIFICATE}: statement.files is missing.")
    expected = _digests(statement)
    if parts["digests"] != expected:
        raise CertificateError(f"{CERTIFICATE}: {shown(_first_change(parts['digests'], expected))} was changed.")
    text = public_text(public_key)
    if parts["public_key"] != text:
        raise CertificateError(
            f"{CERTIFICATE}: public_key is not the given one; somebody else signed, or it was changed."
        )
    if canonical(parts) + b"\n" != certificate:
        raise CertificateError(f"{CERTIFICATE} is not in the form in which it was written; a byte was changed.")
    try:
        signature = bytes.fromhex(parts["signature"])
        if signature.hex() != parts["signature"]:
            raise ValueError("It has blanks or capitals.")
        public_key.verify(signature, canonical(statement))
    except (InvalidSignature, ValueError, TypeError):
        raise CertificateError(f"{CERTIFICATE}: {_changed_in_files(files, statement)}") from None
    files.check(statement["files"])
    if canonical([statement.get("format"), statement.get("version")]) != canonical([FORMAT, VERSION]):
        raise CertificateError(f"{CERTIFICATE} is of another version; verify it with that version of monai_cadp.")
    said = _derivable(files)
    for name in sorted(set(said) | WORDS | set(statement)):
        if name not in statement or name not in set(said) | WORDS:
            raise CertificateError(f"{CERTIFICATE}: {shown(name)} is missing, or no part of a statement.")
        # Not by ==, by which True is 1.
        if name in said and canonical(statement[name]) != canonical(said[name]):
            changed = _first_change(_digests({name: statement[name]}), _digests({name: said[name]}))
            raise CertificateError(f"{CERTIFICATE}: {shown(changed)} is not what the files of the folder say.")
    _check_words(statement)
    if statement["audit"] is not None:
        _check_audit(statement["audit"])
    if statement["ledger_head"] is not None:
        _check_head(statement["ledger_head"], "ledger_head")
    for name, value in leaves(statement):
        if isinstance(value, str) and not value.isprintable():
            raise CertificateError(f"{CERTIFICATE}: {shown(name)} has characters that no page shows; give plain text.")
    return _derive(statement, text)


def _derive(statement: dict[str, Any], public_key: str) -> Verified:
    kinds = [kind["guarantee"] for kind in statement["guarantees"]]
    names = [f"guarantees.{index}.guarantee" for index in range(len(kinds))]
    found = [derived(guarantee, name) for guarantee, name in zip(kinds, names, strict=True)]
    training = [
        derived_training(kind["training_data"], f"{name}.training_data")
        for kind, name in zip(kinds, names, strict=True)
    ]
    whole = None
    if statement["set_guarantee"] is not None:
        if len(kinds) != 1:
            raise CertificateError("set_guarantee is given for releases of several kinds; expected one kind.")
        whole = derived_set(statement["set_guarantee"], kinds[0], statement["smallest_group"], "set_guarantee")
    return Verified(statement, public_key, found, whole, training)


def _derivable(files: FolderFiles) -> dict[str, Any]:
    """Return what a statement takes from the folder."""
    said = described(files)
    fingerprints = {str(kind["guarantee"].get("fingerprint")) for kind in said["guarantees"]}
    return {"files": dict(files.digests), "fingerprints": sorted(fingerprints), **said}


def _digests(statement: Mapping[str, Any]) -> dict[str, str]:
    """Return a short digest of every value by its name; files, which have digests, are left out."""
    rest = {name: value for name, value in statement.items() if name != "files"}
    return {name: sha256(canonical(value))[:16] for name, value in leaves(rest)}


def _first_change(found: Any, expected: Mapping[str, str]) -> str:
    if not isinstance(found, dict):
        return "digests"
    # None is a value that a changed document may have; where nothing differs, names that hold points do.
    changed = (name for name in sorted(set(found) | set(expected)) if found.get(name, "") != expected.get(name, ""))
    return next(changed, "a name")


def _changed_in_files(files: FolderFiles, statement: Mapping[str, Any]) -> str:
    """Say what an invalid signature is about: an entry of a file that is not as the statement says, or itself."""
    try:
        files.check(statement["files"])
    except CertificateError as error:
        return f"the signature does not fit the statement, and of its files {error}"
    return "the signature does not fit the statement; one of them was changed."


def _content(path: str | os.PathLike[str], what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        raise CertificateError(f"{what} could not be read; give the file that the command has written.") from None


def _audit(content: bytes) -> dict[str, Any]:
    report = parsed(content, "The audit")
    if not isinstance(report, dict) or not isinstance(report.get("audits"), list) or not report["audits"]:
        raise CertificateError("The audit has no results; give the file of 'audit --out'.")
    found = {
        "sha256": sha256(content),
        "failure_rate": report.get("failure_rate"),
        "audits": report["audits"],
        "controls": report.get("controls") or [],
    }
    _check_audit(found)
    for part in ("audits", "controls"):
        found[part] = [{name: row[name] for name in AUDITED} for row in found[part]]
    return found


def _check_words(statement: Mapping[str, Any]) -> None:
    """Refuse words of the signer of another kind than a certificate has; what they say is the signer's."""
    signer, issued, versions = (statement[name] for name in ("signer", "issued", "certified_with"))
    if signer is not None and not isinstance(signer, str):
        raise CertificateError("signer is no name; give a text, or leave it out.")
    if not isinstance(issued, str) or not _is_date(issued):
        raise CertificateError("issued is no date; expected one such as 2026-01-31.")
    if not isinstance(versions, Mapping) or not all(isinstance(version, str) for version in versions.values()):
        raise CertificateError("certified_with is not the versions of libraries; expected texts by name.")


def _is_date(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _check_audit(audit: Mapping[str, Any]) -> None:
    if (
        not isinstance(audit, Mapping)
        or not isinstance(audit.get("audits"), list)
        or not isinstance(audit.get("controls"), list)
        or not audit["audits"]
    ):
        raise CertificateError("audit is not what an audit has found; expected its results.")
    if not all(isinstance(row, Mapping) and set(AUDITED) <= set(row) for row in [*audit["audits"], *audit["controls"]]):
        raise CertificateError("audit has not the fields of its results; give the file of 'audit --out'.")
    if not all(isinstance(row[name], str) for row in audit["audits"] for name in ("name", "level")):
        raise CertificateError("audit: a name or a level is no text; give the file of 'audit --out'.")
    for row in audit["audits"]:
        if row["contradicted"] is not False or number(row["measured"], "audit") > number(row["epsilon"], "audit"):
            raise CertificateError("audit: a promise was contradicted by measurement; nothing is certified.")
    if not all(row["contradicted"] is True for row in audit["controls"]):
        raise CertificateError("audit: a negative control was not caught; its results say nothing.")


def _head(content: bytes) -> dict[str, Any]:
    head = parsed(content, "The ledger's head")
    _check_head(head, "The ledger's head")
    return dict(head)


def _check_head(head: Any, name: str) -> None:
    if not isinstance(head, dict) or set(head) != {"sequence", "code", "signature"}:
        raise CertificateError(f"{name} is not usable; give the file of 'ledger head'.")
    if not all(isinstance(head[part], str) for part in ("code", "signature")):
        raise CertificateError(f"{name}: code or signature is no text; give the file of 'ledger head'.")
    integer(head["sequence"], f"{name}: sequence", 0, 2**63)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"
