# SPDX-License-Identifier: Apache-2.0
"""``python -m monai_cadp ledger``: make a ledger, look at it, check it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_cadp.privacy import PrivacyLedger

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the command and its own sub-commands to a parser's."""
    parser = subparsers.add_parser("ledger", help="make, show, verify and export a ledger of privacy budgets")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Any, help_text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.add_argument("--ledger", required=True, help="SQLite file, or URL of a PostgreSQL database")
        command.add_argument("--secret_file", required=True, help="file of the ledger's secret")
        command.set_defaults(run=run)
        return command

    init = add("init", _init, "make a new ledger; a secret is made too where the file does not exist")
    init.add_argument("--epsilon", type=float, required=True, help="cap of every subject's epsilon")
    init.add_argument("--delta", type=float, default=0.0, help="cap of every subject's delta (default 0)")
    init.add_argument("--unit", default="patient", help="image, volume, row or patient, what a subject is (the last)")
    init.add_argument("--accounting", choices=("sum", "identical"), default="sum", help="how releases add up")
    add("show", _show, "show the budget and the numbers of subjects, reservations and releases")
    subject = add("subject", _subject, "show what one subject has spent, or give it caps of its own")
    subject.add_argument("--subject", required=True, help="the subject; - to read it from standard input")
    subject.add_argument("--epsilon", type=float, help="a new cap of its epsilon")
    subject.add_argument("--delta", type=float, help="a new cap of its delta, with one of its epsilon (default 0)")
    verify = add("verify", _verify, "check every entry, guarantee and release; exit code 1 if anything is wrong")
    verify.add_argument("--head", type=Path, help="a head that was kept elsewhere, to tell an older copy")
    head = add("head", _head, "write the signed last entry, to be kept elsewhere")
    head.add_argument("--out", type=Path, required=True, help="JSON file")
    export = add("export", _export, "write all entries as JSON: codes, digests and guarantees, no content")
    export.add_argument("--out", type=Path, required=True, help="JSON file")


def _open(options: argparse.Namespace) -> PrivacyLedger:
    from monai_cadp.privacy import PrivacyLedger

    ledger = PrivacyLedger.open(options.ledger, options.secret_file)
    assert ledger is not None
    return ledger


def _init(options: argparse.Namespace) -> int:
    from monai_cadp.privacy import Budget, PrivacyLedger, check_unit
    from monai_cadp.privacy.ledger import read_secret, write_secret

    budget = Budget(options.epsilon, options.delta, options.accounting)
    check_unit(options.unit)
    path = Path(options.secret_file)
    # A secret is never removed, whatever fails: the ledger may be there already.
    secret = read_secret(path) if os.path.exists(path) else write_secret(path)
    PrivacyLedger.create(options.ledger, secret, budget, unit=options.unit)
    print(
        "The ledger is made. Keep the file of its secret apart from it, and a copy safe: the ledger is lost without it."
    )
    return 0


def _show(options: argparse.Namespace) -> int:
    for name, value in _open(options).summary().items():
        print(f"{name.replace('_', ' ')}: {value}")
    return 0


def _subject(options: argparse.Namespace) -> int:
    from monai_cadp.privacy.exact_numbers import as_read

    if options.epsilon is None and options.delta is not None:
        raise ValueError("--delta was given without --epsilon; give both caps, which are set together.")
    ledger = _open(options)
    subject = sys.stdin.readline().strip() if options.subject == "-" else options.subject
    if options.epsilon is not None:
        ledger.set_budget(subject, options.epsilon, options.delta or 0.0)
    epsilon, delta = ledger.spent(subject)
    budget = ledger.budget_of(subject)
    spent, caps = (as_read(epsilon), as_read(delta)), (as_read(budget.epsilon), as_read(budget.delta))
    print(f"spent: epsilon {spent[0]} of {caps[0]}, delta {spent[1]} of {caps[1]}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    kept = None
    if options.head is not None:
        try:
            kept = json.loads(options.head.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            pass
        if not isinstance(kept, dict):
            raise ValueError("The kept head could not be read; expected a file of 'ledger head'.")
    findings = _open(options).verify(kept)
    for finding in findings:
        print(finding)
    if not findings:
        print("Every entry, guarantee and release is as it was written.")
    return 1 if findings else 0


def _head(options: argparse.Namespace) -> int:
    _write(options.out, _open(options).head())
    return 0


def _export(options: argparse.Namespace) -> int:
    _write(options.out, _open(options).export())
    return 0


def _write(path: Path, content: Any) -> None:
    from monai_cadp.privacy.private_files import write_private

    written = False
    with contextlib.suppress(OSError):
        write_private(path, json.dumps(content, indent=2) + "\n")
        written = True
    if not written:
        raise ValueError("The file could not be written; check its folder and its permissions.")
