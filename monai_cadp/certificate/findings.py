# SPDX-License-Identifier: Apache-2.0
"""What a verification has found, in sentences for people."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_cadp.certificate.certificate import Verified

__all__ = ["decimal_above", "findings"]

PLACES = 6


def decimal_above(value: Fraction) -> str:
    """Return a number with six decimals, rounded up, without blanks at its end.

    Example:
        >>> decimal_above(Fraction(1, 3)), decimal_above(Fraction(8))
        ('0.333334', '8')
    """
    units = -(-(value * 10**PLACES) // 1)
    return f"{units // 10**PLACES}.{units % 10**PLACES:0{PLACES}d}".rstrip("0").rstrip(".")


def findings(result: Verified) -> dict[str, list[str]]:
    """Return what was checked, what was derived, and what is the signer's word alone.

    Args:
        result: of a verification.
    """
    statement = result.statement
    count = len(statement["files"])
    checked = [
        f"the signature fits the public key {result.public_key}",
        f"all {count} files are the certified ones, and there is no other",
        f"{statement['num_releases']} releases, each with its card; cards, summary and statement agree",
    ]
    found = []
    for kind, one in zip(statement["guarantees"], result.guarantees, strict=True):
        stated = kind["guarantee"]
        found.append(
            f"{kind['count']} releases by {stated['mechanism']}, for one {stated['unit']} "
            f"({stated['relation']}): stated epsilon {stated['epsilon']} and delta {stated['delta']}, "
            f"derived epsilon {decimal_above(one.epsilon)} by "
            f"{one.how}"
        )
    if result.whole is not None:
        whole = statement["set_guarantee"]
        found.append(
            f"the set of {whole['parameters']['num_releases']}, shuffled, to those who see nothing else: stated "
            f"epsilon {whole['epsilon']} and delta {whole['delta']}, "
            f"derived epsilon {decimal_above(result.whole.epsilon)} by {result.whole.how}"
        )
    found += [f"training data {sentence}" for sentence in dict.fromkeys(result.training)]
    public = sorted({fact for kind in statement["guarantees"] for fact in kind["guarantee"]["public"]})
    words = [
        "that the files are what the stated mechanism drew, once for each person, with random draws nobody else knows",
        "that the unit, the set's random order, and the record of trainings are as stated",
        f"public, and not protected: {', '.join(public) if public else 'no fact'}",
        f"weights of the network: {', '.join(statement['fingerprints'])}",
    ]
    if statement["signer"] is not None:
        words.append(f"signer: {statement['signer']}")
    words.append(f"issued: {statement['issued']}")
    audit = statement["audit"]
    if audit is None:
        words.append("no audit is stated")
    else:
        words += [
            f"audit of {row['name']} at the {row['level']}: measured epsilon {row['measured']} of {row['epsilon']}"
            for row in audit["audits"]
        ]
    head = statement["ledger_head"]
    words.append("no ledger is stated" if head is None else f"ledger: entry {head['sequence']}, code {head['code']}")
    return {"Checked": checked, "Derived anew": found, "Taken from the signer's word": words}
