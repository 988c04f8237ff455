# SPDX-License-Identifier: Apache-2.0
"""The command line: ``python -m monai_cadp``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from monai_cadp.cli import audit, bundle, certificate, dicomweb, ledger

__all__ = ["main"]

# Each has add_parser(subparsers), which sets ``run``: options -> exit code.
COMMANDS = (audit, bundle, certificate, dicomweb, ledger)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command line; None for those of this process.

    Returns:
        The exit code of the command; 2 if it refused its arguments, with one sentence on the standard error.

    Raises:
        SystemExit: with code 2 for a command line that is not understood, with 0 after ``--help``.
    """
    parser = argparse.ArgumentParser(prog="python -m monai_cadp", description="Tools around private releases.")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    options, unknown = parser.parse_known_args(arguments)
    # Only a command that reads configurations takes options that are not its own, as replacements of their values.
    if hasattr(options, "overrides"):
        options.overrides = unknown
    elif unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        return options.run(options)
    except Exception as error:
        # What this package refuses, it refuses in a sentence; everything else needs its traceback.
        if not isinstance(error, ValueError) and not type(error).__module__.startswith("monai_cadp."):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
