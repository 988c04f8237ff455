# SPDX-License-Identifier: Apache-2.0
"""A certificate on one page, for people."""

from __future__ import annotations

import html
import os
from pathlib import Path

from monai_cadp.certificate.certificate import Verified
from monai_cadp.certificate.document import CertificateError
from monai_cadp.certificate.findings import findings

__all__ = ["certificate_page", "write_page"]

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 1.2rem 0 .3rem; } li { overflow-wrap: anywhere; }
@media print { body { margin: 0; font-size: 11px; } }
"""
CAVEAT = (
    "A signature says who states this, and that nothing was changed since. It does not prove that the files were "
    "made as stated, nor that the random draws were secret. "
    "The guarantee is for one release of each; further ones add up."
)


def certificate_page(result: Verified) -> str:
    """Return a page of HTML about a verified certificate, without anything from elsewhere.

    Args:
        result: of the verification.
    """
    statement = result.statement
    signer = html.escape(str(statement["signer"] or "the holder of the key below"))
    parts = [f"<h1>Privacy certificate of {statement['num_releases']} releases</h1>"]
    parts.append(f"<p>Signed by {signer}, {html.escape(str(statement['issued']))}.</p>")
    for title, sentences in findings(result).items():
        items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
        parts.append(f"<h2>{html.escape(title)}</h2><ul>{items}</ul>")
    parts.append(f"<p>{CAVEAT}</p>")
    head = f'<meta charset="utf-8"><title>Privacy certificate</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def write_page(path: str | os.PathLike[str], page: str, folder: str | os.PathLike[str]) -> None:
    """Write a page into a new file outside of the certified folder, which nothing may be added to.

    Raises:
        CertificateError: if it is inside, exists, or cannot be written.
    """
    target = Path(path).resolve()
    if target.is_relative_to(Path(folder).resolve()):
        raise CertificateError("The page would lie in the certified folder; give a file outside of it.")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(page)
    except OSError:
        raise CertificateError("The page could not be written; give a new file in a folder of your own.") from None
