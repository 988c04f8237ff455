# SPDX-License-Identifier: Apache-2.0
"""``python -m monai_cadp certificate``: sign what a released folder promises, and verify it anywhere."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_cadp.certificate import Verified

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the command and its own sub-commands to a parser's."""
    parser = subparsers.add_parser("certificate", help="sign what a released folder promises, and verify it")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Any, help_text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.set_defaults(run=run)
        return command

    new = add("new-key", _new_key, "make a key to sign with, and its public key, FILE.pub, for everybody")
    new.add_argument("file", type=Path, metavar="FILE", help="the new file, which its owner alone may read")
    make = add("make", _make, "verify a released folder and write a signed certificate.json into it")
    make.add_argument("folder", type=Path, metavar="FOLDER", help="of a release")
    make.add_argument("--key", type=Path, required=True, help="file of 'new-key'")
    make.add_argument("--signer", help="name of the signer, such as the hospital's; public")
    make.add_argument("--audit", type=Path, help="JSON file of 'audit --out'")
    make.add_argument("--ledger_head", type=Path, help="JSON file of 'ledger head'")
    for name, run, text in (
        ("verify", _verify, "check every file, number and the signature, and derive the epsilons anew"),
        ("registry", _registry, "verify, and print a record for the OpenDP Deployments Registry, as YAML"),
        ("page", _page, "verify, and write one page for people, as HTML"),
    ):
        command = add(name, run, text)
        command.add_argument("folder", type=Path, metavar="FOLDER", help="with its certificate.json")
        command.add_argument("--public_key", type=Path, required=True, help="of the signer, from the signer")
        if name == "registry":
            command.add_argument("--about", type=Path, help="YAML file with the fields that the curator alone knows")
        if name == "page":
            command.add_argument("--out", type=Path, required=True, help="the new HTML file, outside of the folder")


def _new_key(options: argparse.Namespace) -> int:
    from monai_cadp.certificate import new_key

    new_key(options.file)
    print("The key is made. Keep it to yourself, and publish the .pub file where others will look for it.")
    return 0


def _make(options: argparse.Namespace) -> int:
    from monai_cadp.certificate import make_certificate, read_private_key

    result = make_certificate(
        options.folder,
        read_private_key(options.key),
        signer=options.signer,
        audit=options.audit,
        ledger_head=options.ledger_head,
    )
    _print(result)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from monai_cadp.certificate import CertificateError

    try:
        _print(_verified(options))
    except CertificateError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    return 0


def _registry(options: argparse.Namespace) -> int:
    from monai_cadp.certificate.registry import read_about, registry_record, to_yaml

    about = {} if options.about is None else read_about(options.about)
    print(to_yaml(registry_record(_verified(options), about)), end="")
    return 0


def _page(options: argparse.Namespace) -> int:
    from monai_cadp.certificate.page import certificate_page, write_page

    write_page(options.out, certificate_page(_verified(options)), options.folder)
    print("The page is written.")
    return 0


def _verified(options: argparse.Namespace) -> Verified:
    from monai_cadp.certificate import read_public_key, verify_certificate

    return verify_certificate(options.folder, read_public_key(options.public_key))


def _print(result: Verified) -> None:
    from monai_cadp.certificate.findings import findings

    for title, sentences in findings(result).items():
        print(f"{title}:")
        for sentence in sentences:
            print(f"  {sentence}")
